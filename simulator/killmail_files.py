"""A world of real killmails from files: ESI bodies with the hash added as `killmail_hash`.

The pilots are the characters most often victim or final blow there, so that as many files as possible stand
in somebody's list; what no pilot covers is listed for the first one. The ninety days do not apply.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Final

from simulator.names import Names, ids_in
from simulator.world import Killmail, Pilot, World

_NAMES_FILE: Final = Path("names") / "universe_names.json"
#: For a character whose corporation no file tells.
_SOME_CORPORATION: Final = 98_370_861


def load(folder: Path, pilots: int, seed: int) -> World:
    """Read every `*.json` of a folder.

    Raises OSError or ValueError for a folder that holds no killmails, or a file that is none, which is named.
    """
    world = World(seed, ninety_days=False)
    by_file = {file: _read(file) for file in sorted(folder.glob("*.json"))}
    bodies = list(by_file.values())
    if not bodies:
        raise ValueError(f"no killmails in {folder}")
    world.names |= _names_beside(folder)
    for character_id in _most_listed(bodies, pilots):
        _, name = world.names.get(character_id, ("character", f"Name {character_id}"))
        corporation, alliance = _affiliation(bodies, character_id)
        world.add_pilot(Pilot(character_id, name, corporation, alliance))
    first = next(iter(world.pilots.values()))
    for file, body in by_file.items():
        killmail_hash = body.pop("killmail_hash", None)
        try:
            killmail = world.add(body, killmail_hash)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if not killmail.listed_for & world.pilots.keys():
            first.killmail_ids.add(killmail.killmail_id)
    return world


def _read(file: Path) -> dict[str, Any]:
    """The body in a file, with everything in it that the simulator looks at."""
    try:
        body: dict[str, Any] = json.loads(file.read_text("utf-8"))
        Killmail.of_body(body)
        if not all(type(one) is int for one in (body["killmail_id"], *(one for one, _ in ids_in(body)))):
            raise ValueError("an id is not a whole number")
    except KeyError as error:
        raise ValueError(f"{file} is no killmail: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no killmail: {error}") from error
    return body


def _names_beside(folder: Path) -> Names:
    file = folder.resolve().parent / _NAMES_FILE
    if not file.is_file():
        return {}
    return {row["id"]: (row["category"], row["name"]) for row in json.loads(file.read_text("utf-8"))}


def _listed(body: dict[str, Any]) -> set[int]:
    blows = [one.get("character_id") for one in body["attackers"] if one["final_blow"]]
    return {one for one in (body["victim"].get("character_id"), *blows) if one is not None}


def _most_listed(bodies: list[dict[str, Any]], count: int) -> list[int]:
    """Greedily the characters that cover most files not covered yet. At least one if any file has one."""
    left = [_listed(body) for body in bodies]
    chosen: list[int] = []
    while len(chosen) < max(1, count):
        tally = Counter(one for listed in left for one in listed if one not in chosen)
        if not tally:
            break
        best = max(tally, key=lambda one: (tally[one], -one))
        chosen.append(best)
        left = [listed for listed in left if best not in listed]
    if not chosen:
        raise ValueError("no killmail names a character that could log in")
    return chosen


def _affiliation(bodies: list[dict[str, Any]], character_id: int) -> tuple[int, int | None]:
    newest = sorted(bodies, key=lambda body: -int(body["killmail_id"]))
    for body in newest:
        for party in (body["victim"], *body["attackers"]):
            if party.get("character_id") == character_id and party.get("corporation_id") is not None:
                return party["corporation_id"], party.get("alliance_id")
    return _SOME_CORPORATION, None
