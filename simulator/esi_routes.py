"""What ESI answers on the routes a killmail sync needs, once the door (`esi_gate.py`) lets a request in.

Bodies follow the OpenAPI document of 2026-08-18. Answers are computed without side effects, because the door
may still refuse them.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

from simulator import esi_gate, esi_public
from simulator.esi_gate import Caller
from simulator.request_log import Note
from simulator.state import RECENT_SCOPE, Simulator
from simulator.wire import Payload, Request, Response

CORPORATION_SCOPE: Final = "esi-killmails.read_corporation_killmails.v1"
#: Seconds a killmail may be cached: it never changes.
_KILLMAIL_AGE: Final = 2_592_000
#: A Last-Modified all killmails share; their ETag tells them apart.
_LONG_AGO: Final = 1_600_000_000


@dataclass(frozen=True)
class Call:
    """One request for ESI with all that its answer may depend on."""

    state: Simulator
    request: Request
    caller: Caller
    note: Note
    match: re.Match[str]


@dataclass(frozen=True)
class Route:
    """An address ESI knows. `group` None means the legacy error limit; `scope` None needs no token."""

    name: str
    method: str
    pattern: re.Pattern[str]
    group: str | None
    scope: str | None
    answer: Callable[[Call], Response]


def handle(state: Simulator, request: Request, note: Note) -> Response:
    """Answer one request for ESI under its rules. `note` learns what it was about."""
    caller = esi_gate.identify(state, request)
    path = request.path.rstrip("/")
    found = [(route, match) for route in ROUTES if (match := route.pattern.fullmatch(path))]
    if not found or found[0][0].method != request.method:
        missing = Response.error(405, "Method not allowed") if found else Response.error(404, "Not found")
        return esi_gate.admit(state, request, note, None, "", lambda: missing)
    route, match = found[0]
    note.route = route.name
    call = Call(state, request, caller, note, match)
    _note_ids(call)
    user = caller.bucket_user(authenticated=route.scope is not None)
    return esi_gate.admit(state, request, note, route.group, user, lambda: _authorised(route, call))


def _note_ids(call: Call) -> None:
    ids = call.match.groupdict()
    if "character_id" in ids:
        call.note.character_id = int(ids["character_id"])
        call.note.concerns = frozenset({call.note.character_id})
    if "killmail_id" in ids:
        call.note.killmail_id = int(ids["killmail_id"])
        killmail = call.state.world.killmails.get(call.note.killmail_id)
        call.note.concerns = frozenset(killmail.listed_for if killmail else ())
    page = call.request.query.get("page", "1")
    if call.note.route == "recent" and re.fullmatch(r"[0-9]{1,9}", page):
        call.note.page = int(page)


def _authorised(route: Route, call: Call) -> Response:
    if route.scope is None:
        return route.answer(call)
    claims = call.caller.claims
    if claims is None:
        return Response.error(401, call.caller.complaint or "Unauthorized - No token was sent")
    scopes = claims.get("scp", [])
    if route.scope not in ([scopes] if isinstance(scopes, str) else scopes):
        return Response.error(403, "token is not valid for scope")
    return route.answer(call)


def _recent(call: Call) -> Response:
    state, now = call.state, call.request.at
    if call.caller.character_id != call.note.character_id:
        return Response.error(403, "token is not valid for character")
    pilot = state.world.pilots[call.note.shown_id or call.caller.character_id or 0]
    number, size = call.note.page, state.settings.page_size
    if number is None or number < 1:
        return Response.error(400, "page must be a positive integer")
    snapshot = state.lists.get(state.world, pilot, state.settings, now)
    empty = not snapshot.references and state.settings.empty_list_status == 404
    if number > snapshot.page_count(size) or empty:
        return Response.error(404, "Requested page does not exist!")
    page = snapshot.page(f"{pilot.character_id}?page={number}", number, size)
    age = max(0, math.ceil(snapshot.expires_at - now))
    response = fresh_or_304(call.request, page.payload, page.etag, snapshot.last_modified, age)
    if call.note.fault == "frozen" and "if-none-match" in call.request.headers:
        response.status, response.payload = 304, Payload(b"")
    response.headers["X-Pages"] = str(snapshot.page_count(size))
    response.headers["Expires"] = formatdate(max(snapshot.expires_at, now), usegmt=True)
    return response


def _corporation(call: Call) -> Response:
    return Response.error(403, "Character does not have required role(s)")


def _killmail(call: Call) -> Response:
    killmail = call.state.world.killmails.get(int(call.match["killmail_id"]))
    if killmail is None or killmail.killmail_hash != call.match["killmail_hash"]:
        return Response.error(422, "Invalid killmail_id and/or killmail_hash")
    return fresh_or_304(call.request, killmail.payload, killmail.etag, _LONG_AGO, _KILLMAIL_AGE)


def _war_killmails(call: Call) -> Response:
    war_id = int(call.match["war_id"])
    found = [one for one in call.state.world.killmails.values() if one.war_id == war_id]
    if not found:
        return Response.error(404, "Requested page does not exist!")
    rows = [{"killmail_id": one.killmail_id, "killmail_hash": one.killmail_hash} for one in found]
    return _public_json(call, rows, 3600)


def _names(call: Call) -> Response:
    try:
        asked = json.loads(call.request.body)
    except ValueError:
        return Response.error(400, "Body is not valid JSON")
    return esi_public.names(call.state.world, asked)


def _character(call: Call) -> Response:
    body = esi_public.character(call.state.world, int(call.match["character_id"]))
    return Response.error(404, "Character not found") if body is None else _public_json(call, body, 86_400)


def _system(call: Call) -> Response:
    body = esi_public.solar_system(call.state.world, int(call.match["system_id"]))
    return Response.error(404, "Solar system not found!") if body is None else _public_json(call, body, 86_400)


def _status(call: Call) -> Response:
    return _public_json(call, esi_public.status(call.state.settings.players, call.request.at), 30)


def _prices(call: Call) -> Response:
    return _public_json(call, esi_public.prices(call.state.world), 3600)


def _public_json(call: Call, value: object, max_age: int) -> Response:
    payload = Payload.of_json(value)
    etag = f'"{hashlib.sha1(payload.raw, usedforsecurity=False).hexdigest()}"'
    response = fresh_or_304(call.request, payload, etag, _LONG_AGO, max_age)
    response.headers["Expires"] = formatdate(call.request.at + max_age, usegmt=True)
    return response


def fresh_or_304(request: Request, payload: Payload, etag: str, last_modified: int, max_age: int) -> Response:
    """The body, or 304 if the caller's ETag (or date, without an ETag) says that it has it."""
    known = request.headers.get("if-none-match")
    if known is not None:
        same = etag in (part.strip().removeprefix("W/") for part in known.split(","))
    else:
        same = _not_modified_since(request.headers.get("if-modified-since"), last_modified)
    response = Response(304) if same else Response(200, payload)
    response.headers |= {
        "ETag": etag,
        "Last-Modified": formatdate(last_modified, usegmt=True),
        "Cache-Control": f"public, max-age={max_age}",
    }
    return response


def _not_modified_since(text: str | None, last_modified: int) -> bool:
    if text is None:
        return False
    try:
        return parsedate_to_datetime(text).timestamp() >= last_modified
    except ValueError:
        return False


ROUTES: Final = (
    Route(
        "killmail", "GET", re.compile(r"/killmails/(?P<killmail_id>\d{1,19})/(?P<killmail_hash>[^/]+)"),
        "killmail", None, _killmail,
    ),
    Route(
        "recent", "GET", re.compile(r"/characters/(?P<character_id>\d{1,19})/killmails/recent"),
        "char-killmail", RECENT_SCOPE, _recent,
    ),
    Route("names", "POST", re.compile(r"/universe/names"), None, None, _names),
    Route("character", "GET", re.compile(r"/characters/(?P<character_id>\d{1,19})"), None, None, _character),
    Route("system", "GET", re.compile(r"/universe/systems/(?P<system_id>\d{1,19})"), None, None, _system),
    Route("status", "GET", re.compile(r"/status"), "status", None, _status),
    Route("prices", "GET", re.compile(r"/markets/prices"), None, None, _prices),
    Route(
        "corporation", "GET", re.compile(r"/corporations/(?P<corporation_id>\d{1,19})/killmails/recent"),
        "corp-killmail", CORPORATION_SCOPE, _corporation,
    ),
    Route("wars", "GET", re.compile(r"/wars/(?P<war_id>\d{1,19})/killmails"), "killmail", None, _war_killmails),
)  # fmt: skip
