"""Misbehaviour on request: statuses, pages of HTML, cut bodies, resets and silence.

A fault strikes a route with a probability, a number of times, or for a while; or only what concerns one
character. It replaces or spoils the answer the simulator would have given; what that costs in tokens is left to
`esi_gate.py`.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from simulator import odd_answers
from simulator.request_log import ROUTES, Note
from simulator.wire import Delivery, Payload, Response

KINDS: Final = (
    "html", "reset", "hang", "truncated", "invalid_json", "420", "429", "429_bare", "429_bare_wait",
    "not_found", "scope", *odd_answers.KINDS,
)  # fmt: skip
#: The token endpoint when it is asked to refresh, and not to exchange a code.
REFRESH: Final = "refresh"
LISTS: Final = "recent"
_WHOLE_NUMBERS: Final = ("count", "killmail_id", "page", "character_id", "other_id")
_STATUS: Final = re.compile(r"status:([45]\d\d)")
_HTML: Final = "<html><body><h1>503 Service Unavailable</h1>No server is available.</body></html>"


@dataclass
class Fault:
    """One kind of misbehaviour, where it strikes, and how often it did."""

    route: str
    kind: str
    rate: float = 1.0
    #: How often it strikes before it is spent; None is for ever.
    count: int | None = None
    killmail_id: int | None = None
    page: int | None = None
    #: How long a hang holds, or what Retry-After and the error limit's reset say.
    seconds: float = 5.0
    #: Only what concerns this character: its list, its refreshes, and the killmails that are listed for it.
    character_id: int | None = None
    #: Whose list a foreign_list shows.
    other_id: int | None = None
    #: Seconds from the first request it could strike until it is over; None is never.
    lasts: float | None = None
    ends_at: float | None = None
    hits: int = 0

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Fault":
        """Read the control API's object. Raises ValueError saying what is wrong with it."""
        unknown = value.keys() - {"route", "kind", "rate", "seconds", *_WHOLE_NUMBERS, "lasts"}
        if unknown:
            raise ValueError(f"fault: unknown keys {sorted(unknown)}")
        route, kind = str(value.get("route", "any")), str(value.get("kind", ""))
        if route not in ("any", REFRESH) and route not in ROUTES:
            raise ValueError(f"fault: unknown route {route!r}; there are any, {REFRESH}, {', '.join(sorted(ROUTES))}")
        if kind not in KINDS and not _STATUS.fullmatch(kind):
            raise ValueError(f"fault: unknown kind {kind!r}; there are status:NNN, {', '.join(KINDS)}")
        if kind in odd_answers.OF_LISTS and route not in ("any", LISTS):
            raise ValueError(f"fault: {kind} strikes only killmail lists; their route is {LISTS}")
        fault = cls(route, kind, rate=float(value.get("rate", 1.0)), seconds=float(value.get("seconds", 5.0)))
        for key in _WHOLE_NUMBERS:
            if value.get(key) is not None:
                setattr(fault, key, int(value[key]))
        if value.get("lasts") is not None:
            fault.lasts = float(value["lasts"])
        if kind == "foreign_list" and fault.other_id is None:
            raise ValueError("fault: foreign_list needs other_id, the character whose list is shown")
        return fault

    @classmethod
    def of_text(cls, text: str) -> "Fault":
        """Read the command line's `route=killmail,kind=status:502,rate=0.05`. Raises ValueError."""
        pairs = [part.partition("=") for part in text.split(",")]
        return cls.of_json({key.strip(): value.strip() for key, _, value in pairs})

    def fits(self, note: Note, at: float) -> bool:
        """Whether it may strike this request, which arrived at `at` (epoch seconds), at all."""
        route = note.route if self.route != REFRESH or note.grant_type != "refresh_token" else REFRESH
        fits = (
            self.count != 0
            and self.route in ("any", route)
            and self.killmail_id in (None, note.killmail_id)
            and self.page in (None, note.page)
            and (self.character_id is None or self.character_id in note.concerns)
        )
        if fits and self.lasts is not None:
            self.ends_at = self.ends_at or at + self.lasts
            return at < self.ends_at
        return fits

    def spoil(self, real: Callable[[], Response]) -> Response:
        """The answer a struck request gets; `real` gives what it would have been."""
        if found := _STATUS.fullmatch(self.kind):
            return Response.error(int(found[1]), "The simulator was told to fail")
        match self.kind:
            case "html":
                return Response.html(503, _HTML)
            case "not_found":
                return Response.error(404, "Not found")
            case "scope":  # as ESI's own check of tokens fails
                return Response.error(403, "token is not valid for scope")
            case "420":
                return self._error_limited()
            case "429" | "429_bare" | "429_bare_wait":
                return self._rate_limited()
        if (odd := odd_answers.spoil(self.kind, real)) is not None:
            return odd
        response = real()
        match self.kind:
            case "reset":
                response.delivery = Delivery.RESET
            case "hang":
                response.delivery, response.delay = Delivery.HANG, self.seconds
            case "truncated":
                # Every other time nothing but the content shows that the body was cut.
                response.delivery = Delivery.CUT_SHORT if self.hits % 2 else Delivery.CUT_UNDECLARED
            case "invalid_json":
                response.payload = Payload(b'{"killmail_id": 1, "attackers": [}')
        return response

    def _error_limited(self) -> Response:
        response = Response.error(420, "This software has exceeded the error limit for ESI.")
        response.headers["X-ESI-Error-Limit-Remain"] = "0"
        response.headers["X-ESI-Error-Limit-Reset"] = str(round(self.seconds))
        return response

    def _rate_limited(self) -> Response:
        response = Response.error(429, "Too many requests")
        if self.kind != "429_bare":
            response.headers["Retry-After"] = str(round(self.seconds))
        return response


@dataclass
class FaultBoard:
    """The active faults, oldest first; the first one that strikes wins."""

    rng: random.Random
    faults: list[Fault] = field(default_factory=list)

    def pick(self, note: Note, at: float) -> Fault | None:
        """The fault that strikes this request, counted as a hit, or None."""
        for fault in self.faults:
            if fault.fits(note, at) and (fault.rate >= 1 or self.rng.random() < fault.rate):
                fault.hits += 1
                if fault.count is not None:
                    fault.count -= 1
                note.fault, note.shown_id = fault.kind, fault.other_id
                return fault
        return None

    def put_back(self, fault: Fault, note: Note) -> None:
        """Undo a hit whose request was refused before it could strike."""
        fault.hits -= 1
        if fault.count is not None:
            fault.count += 1
        note.fault = note.shown_id = None
