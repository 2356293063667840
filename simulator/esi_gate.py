"""The door of ESI: downtime, compatibility date, error limit, rate limit buckets, faults, cost.

Every answer to a request for ESI passes here once. The order is ESI's: a closed service answers first, then
the error limit (for all routes), then the bucket of the route; only then is the question itself answered,
and the answer's status decides its cost. Tokens spent in any window never exceed the limit. What the routes
answer is left to `esi_routes.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from simulator.faults import Fault
from simulator.keys import Claims
from simulator.request_log import Note
from simulator.rules import FloatingWindow, Limit, cost_of
from simulator.state import Simulator
from simulator.wire import Request, Response

#: The compatibility date rolls at 11:00 UTC (ESI docs: overview).
_DATE_ROLLS: Final = 11 * 3600
_OLDEST_DATE: Final = date(2020, 1, 1)
_NEWEST_DATE: Final = date(2026, 8, 18)
_ERROR_LIMITED: Final = (
    "This software has exceeded the error limit for ESI. If you are a user, please contact the maintainer of "
    "this software. If you are a developer/maintainer, please make a greater effort in the future to receive "
    "valid responses."
)
#: Faults of the game server's own limiter, which sends no headers about a limit.
_BARE: Final = ("429_bare", "429_bare_wait")
_DOWN: Final = (
    (503, {"error": "The datasource tranquility is temporarily unavailable"}),
    (504, {"error": "Timeout contacting tranquility", "timeout": 10}),
)


@dataclass(frozen=True)
class Caller:
    """Who asks: the claims of a valid token, or what is wrong with it (None if none was sent)."""

    source_ip: str
    claims: Claims | None
    complaint: str | None

    @property
    def character_id(self) -> int | None:
        """The pilot behind the token."""
        return int(self.claims["sub"].rpartition(":")[2]) if self.claims else None

    def bucket_user(self, *, authenticated: bool) -> str:
        """Whose bucket a request draws from (esi/README.md §2.2)."""
        if self.claims is None:
            return self.source_ip
        application = self.claims["azp"]
        return f"{application}:{self.character_id}" if authenticated else f"{self.source_ip}:{application}"


def identify(state: Simulator, request: Request) -> Caller:
    """Read the Authorization header."""
    header = request.headers.get("authorization", "")
    if not header:
        return Caller(request.source_ip, None, None)
    scheme, _, token = header.partition(" ")
    claims = state.keys.verify(token.strip(), state.url) if scheme.lower() == "bearer" else None
    if claims is None:
        return Caller(request.source_ip, None, "Unauthorized - Invalid token")
    if claims["exp"] <= request.at:
        return Caller(request.source_ip, None, "token is expired")
    return Caller(request.source_ip, claims, None)


def admit(
    state: Simulator,
    request: Request,
    note: Note,
    group: str | None,
    user: str,
    real: Callable[[], Response],
) -> Response:
    """Answer under the rules; `real` computes what the route itself would say and has no side effects."""
    if request.at < state.esi_down_until:
        status, body = state.rng.choice(_DOWN)
        return Response.of_json(status, body)
    if state.errors.remaining(state.settings.error_limit, request.at) == 0:
        return _error_limited(state, request.at)
    limit = state.settings.limits.get(group) if group else None
    if group is not None and limit is not None:
        response = _bucketed(state, request, note, group, limit, state.bucket(group, user), real)
    else:
        response = _unbucketed(state, request, note, real)
    if effective := _effective_date(request):
        response.headers.setdefault("X-Compatibility-Date", effective)
    return response


def _bucketed(
    state: Simulator,
    request: Request,
    note: Note,
    group: str,
    limit: Limit,
    window: FloatingWindow,
    real: Callable[[], Response],
) -> Response:
    if window.remaining(limit, request.at) == 0:
        response, cost = _rate_limited(window, limit, 1, request.at), 0
    else:
        response, fault = _answer(state, request, note, real)
        cost = cost_of(response.status)
        if not window.spend(cost, limit, request.at):
            if fault is not None:
                state.faults.put_back(fault, note)
            response, cost = _rate_limited(window, limit, cost, request.at), 0
    note.cost = cost
    if response.status // 100 == 4 and response.status not in (420, 429):
        # Nobody knows whether ESI counts these, too; a client has to take it that it does (esi/README.md §2.5).
        state.errors.note_error(state.settings.error_limit, request.at)
    if note.fault not in (*_BARE, "420"):
        response.headers["X-Ratelimit-Group"] = group
        response.headers["X-Ratelimit-Limit"] = limit.text
        response.headers["X-Ratelimit-Remaining"] = str(window.remaining(limit, request.at))
        response.headers["X-Ratelimit-Used"] = str(cost)
    if note.fault == "429":
        response.headers["X-Ratelimit-Remaining"] = "0"
    return response


def _unbucketed(state: Simulator, request: Request, note: Note, real: Callable[[], Response]) -> Response:
    response, _ = _answer(state, request, note, real)
    limit = state.settings.error_limit
    if response.status // 100 not in (2, 3):
        state.errors.note_error(limit, request.at)
    if note.fault not in _BARE:
        remaining = state.errors.remaining(limit, request.at)
        response.headers.setdefault("X-ESI-Error-Limit-Remain", str(remaining))
        response.headers.setdefault("X-ESI-Error-Limit-Reset", str(state.errors.reset_in(limit, request.at)))
    return response


def _answer(
    state: Simulator, request: Request, note: Note, real: Callable[[], Response]
) -> tuple[Response, Fault | None]:
    fault = state.faults.pick(note, request.at)
    if fault is not None:
        return fault.spoil(lambda: _dated(request, real)), fault
    return _dated(request, real), None


def _dated(request: Request, real: Callable[[], Response]) -> Response:
    complaint = date_complaint(request)
    return Response.error(400, complaint) if complaint else real()


def _rate_limited(window: FloatingWindow, limit: Limit, cost: int, now: float) -> Response:
    response = Response.error(429, "Rate limit exceeded")
    # A success needs two tokens: coming back for less would be refused again.
    response.headers["Retry-After"] = str(window.retry_after(max(2, cost), limit, now))
    return response


def _error_limited(state: Simulator, now: float) -> Response:
    response = Response.error(420, _ERROR_LIMITED)
    response.headers["X-ESI-Error-Limit-Remain"] = "0"
    response.headers["X-ESI-Error-Limit-Reset"] = str(state.errors.reset_in(state.settings.error_limit, now))
    return response


def date_complaint(request: Request) -> str | None:
    """What is wrong with the date that a request asks for, if anything."""
    text = request.headers.get("x-compatibility-date")
    if text is None:
        return None
    try:
        asked = date.fromisoformat(text)
    except ValueError:
        return "X-Compatibility-Date is not a date"
    today = datetime.fromtimestamp(request.at - _DATE_ROLLS, UTC).date()
    if asked > today:
        return "X-Compatibility-Date is in the future"
    return "X-Compatibility-Date is too old" if asked < _OLDEST_DATE else None


def _effective_date(request: Request) -> str | None:
    """The date the answer is given for: the one asked for or an earlier one, the oldest without any."""
    if date_complaint(request):
        return None
    text = request.headers.get("x-compatibility-date")
    if text is None:
        return _OLDEST_DATE.isoformat()
    return min(date.fromisoformat(text), _NEWEST_DATE).isoformat()
