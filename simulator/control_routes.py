"""The control API under /_simulator/: what the truth is, what was asked, and what shall go wrong next.

For demos, tests and benchmarks. It obeys no ESI rule, is not in the request log, and answers
`{"error": ...}` with 400 to a wish it cannot understand and 404 to one about something unknown.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from simulator.faults import Fault
from simulator.state import Simulator
from simulator.wire import Request, Response
from simulator.world import Killmail, Pilot

PREFIX: Final = "/_simulator/"
#: Entries one answer holds unless `limit` says otherwise.
_MANY: Final = 10_000
Json = dict[str, Any]


def handle(state: Simulator, request: Request) -> Response:
    """Answer one control request."""
    for method, pattern, answer in _ROUTES:
        found = pattern.fullmatch(request.path.rstrip("/"))
        if found and method == request.method:
            try:
                body = json.loads(request.body) if request.body else {}
                if not isinstance(body, dict):
                    raise ValueError("the body must be a JSON object")
                return Response.of_json(200, answer(state, request, body, *map(int, found.groups())))
            except KeyError as error:
                return Response.error(404, f"unknown: {error}")
            except (ValueError, TypeError) as error:
                return Response.error(400, str(error))
    return Response.error(404, "no such control")


def _truth(state: Simulator, request: Request, body: Json) -> object:
    characters = {
        str(pilot.character_id): {
            "name": pilot.name,
            "owner": pilot.owner,
            "killmails": state.world.references(pilot),
        }
        for pilot in state.world.pilots.values()
    }
    return {"characters": characters, "killmail_count": len(state.world.killmails)}


def _killmail(state: Simulator, request: Request, body: Json, killmail_id: int) -> object:
    killmail = state.world.killmails[killmail_id]
    return json.loads(killmail.payload.raw) | {"killmail_hash": killmail.killmail_hash}


def _names(state: Simulator, request: Request, body: Json) -> object:
    return {str(one): {"category": category, "name": name} for one, (category, name) in state.world.names.items()}


def _requests(state: Simulator, request: Request, body: Json) -> object:
    limit = int(request.query.get("limit", _MANY))
    entries = state.log.since(int(request.query.get("since", 0)))
    return [entry._asdict() for entry, _ in zip(entries, range(limit), strict=False)]


def _stats(state: Simulator, request: Request, body: Json) -> object:
    spent = {f"{group} {user}": window.total for (group, user), window in state.buckets.items()}
    return state.log.statistics(int(request.query.get("since_seq", 0))) | {"tokens_spent": spent}


def _faults(state: Simulator, request: Request, body: Json) -> object:
    return [vars(fault) for fault in state.faults.faults]


def _add_fault(state: Simulator, request: Request, body: Json) -> object:
    fault = Fault.of_json(body)
    state.faults.faults.append(fault)
    return vars(fault)


def _clear_faults(state: Simulator, request: Request, body: Json) -> object:
    hits = sum(fault.hits for fault in state.faults.faults)
    state.faults.faults.clear()
    return {"hits": hits}


def _downtime(state: Simulator, request: Request, body: Json) -> object:
    state.esi_down_until = request.at + float(body.get("seconds", 60))
    return {"until": state.esi_down_until}


def _sso_downtime(state: Simulator, request: Request, body: Json) -> object:
    state.sso_down_until = request.at + float(body.get("seconds", 60))
    return {"until": state.sso_down_until}


def _settings(state: Simulator, request: Request, body: Json) -> object:
    state.settings.update(body)
    return vars(state.settings) | {
        "limits": {group: limit.text for group, limit in state.settings.limits.items()},
        "error_limit": state.settings.error_limit.text,
    }


def _rotate_keys(state: Simulator, request: Request, body: Json) -> object:
    return {"kid": state.keys.rotate(keep_old=bool(body.get("keep_old", False)))}


def _add_character(state: Simulator, request: Request, body: Json) -> object:
    pilot = state.fleet.add_pilot(body.get("name"))
    _fight(state, pilot, None, {"count": body.get("killmails", 0)})
    return {"character_id": pilot.character_id, "name": pilot.name, "killmails": state.world.references(pilot)}


def _add_killmails(state: Simulator, request: Request, body: Json, character_id: int) -> object:
    pilot = state.world.pilots[character_id]
    other = state.world.pilots[int(body["shared_with"])] if body.get("shared_with") else None
    if body.get("body") is not None:
        added = [_add_body(state, dict(body["body"]), [pilot] + ([other] if other else []))]
    else:
        added = _fight(state, pilot, other, body)
    if body.get("bust_cache"):
        for one in (pilot, other):
            if one is not None:
                state.lists.bust(one.character_id)
    return {"added": [[killmail.killmail_id, killmail.killmail_hash] for killmail in added]}


def _add_body(state: Simulator, body: Json, pilots: list[Pilot]) -> Killmail:
    try:
        killmail = state.world.add(body, body.pop("killmail_hash", None))
    except KeyError as error:
        raise ValueError(f"the killmail lacks {error}") from error
    for pilot in pilots:
        pilot.killmail_ids.add(killmail.killmail_id)
    return killmail


def _fight(state: Simulator, pilot: Pilot, other: Pilot | None, wish: Json) -> list[Killmail]:
    """Let killmails happen: after the newest one, or with `late` between those already listed."""
    added = []
    for number in range(int(wish.get("count", 1))):
        if wish.get("late"):
            added.append(state.fleet.fight_late(pilot, other, number))
        else:
            added.append(state.fleet.fight(pilot, other, number))
    return added


def _list_order(state: Simulator, request: Request, body: Json, character_id: int) -> object:
    pilot = state.world.pilots[character_id]
    pilot.shuffled = bool(body.get("shuffle", True))
    state.lists.bust(character_id)
    return {"shuffled": pilot.shuffled}


def _transfer(state: Simulator, request: Request, body: Json, character_id: int) -> object:
    pilot = state.world.pilots[character_id]
    pilot.transfers += 1
    return {"owner": pilot.owner, "revoked": state.grants.revoke_pilot(character_id)}


def _revoke(state: Simulator, request: Request, body: Json, character_id: int) -> object:
    pilot = state.world.pilots[character_id]
    return {"revoked": state.grants.revoke_pilot(pilot.character_id)}


def _drop(state: Simulator, request: Request, body: Json, character_id: int) -> object:
    """Take a killmail out of a list, as ESI does after ninety days; the killmail itself stays."""
    state.world.pilots[character_id].killmail_ids.remove(int(body["killmail_id"]))
    state.lists.bust(character_id)
    return {"dropped": int(body["killmail_id"])}


def _route(method: str, path: str, answer: Callable[..., object]) -> tuple[str, re.Pattern[str], Callable[..., object]]:
    return method, re.compile(PREFIX + path.replace("<id>", r"(\d{1,19})")), answer


_ROUTES: Final = (
    _route("GET", "truth", _truth),
    _route("GET", "killmails/<id>", _killmail),
    _route("GET", "names", _names),
    _route("GET", "requests", _requests),
    _route("GET", "stats", _stats),
    _route("GET", "faults", _faults),
    _route("POST", "faults", _add_fault),
    _route("DELETE", "faults", _clear_faults),
    _route("POST", "downtime", _downtime),
    _route("POST", "sso_downtime", _sso_downtime),
    _route("POST", "settings", _settings),
    _route("POST", "jwks/rotate", _rotate_keys),
    _route("POST", "characters", _add_character),
    _route("POST", "characters/<id>/killmails", _add_killmails),
    _route("POST", "characters/<id>/list_order", _list_order),
    _route("POST", "characters/<id>/transfer", _transfer),
    _route("POST", "characters/<id>/revoke", _revoke),
    _route("POST", "characters/<id>/drop", _drop),
)
