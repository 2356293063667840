"""Bodies of ESI's public routes beside the killmails: names, characters, solar systems, status and prices.

Pure functions of the world; the same question has the same answer for as long as the world stands.
"""

import random
import zlib
from typing import Any, Final

from simulator.wire import Response
from simulator.world import World, esi_time

#: Ids in one batch (OpenAPI: minItems 1, maxItems 1000, uniqueItems).
MOST_NAMES: Final = 1000
_DAY: Final = 86_400
_DOWNTIME: Final = 11 * 3600
_INT64: Final = 2**63
#: Ids of wormhole systems (EVE's documentation, ranges of ids), and what the game has for every one of them.
_WORMHOLES: Final = range(31_000_000, 32_000_000)
_WORMHOLE_SECURITY: Final = -0.99


def names(world: World, asked: object) -> Response:
    """Names of a batch of ids; one unknown id refuses them all, as on ESI."""
    if not isinstance(asked, list) or not 1 <= len(asked) <= MOST_NAMES:
        return Response.error(400, f"Body must be an array of 1 to {MOST_NAMES} ids")
    if not all(type(one) is int and -_INT64 <= one < _INT64 for one in asked):
        return Response.error(400, "Every id must be an integer")
    if len(set(asked)) != len(asked):
        return Response.error(400, "Ids must be unique")
    if any(one not in world.names for one in asked):
        return Response.error(404, "Ensure all IDs are valid before resolving.")
    rows = [{"category": world.names[one][0], "id": one, "name": world.names[one][1]} for one in asked]
    # Grouped by category: the order of the question is not promised.
    return Response.of_json(200, sorted(rows, key=lambda row: str(row["category"])))


def character(world: World, character_id: int) -> dict[str, Any] | None:
    """The public sheet of a pilot or of a stranger with a name, or None."""
    category, name = world.names.get(character_id, ("", ""))
    if category != "character":
        return None
    rng = random.Random(f"sheet {character_id}")
    pilot = world.pilots.get(character_id)
    sheet: dict[str, Any] = {
        "achievement_score": rng.randint(0, 5000),
        "birthday": esi_time(rng.randint(1_100_000_000, 1_700_000_000)),
        "bloodline_id": rng.randint(1, 14),
        "corporation_id": pilot.corporation_id if pilot else rng.randint(98_000_000, 98_700_000),
        "description": "",
        "gender": rng.choice(("male", "female")),
        "name": name,
        "race_id": rng.choice((1, 2, 4, 8)),
        "security_status": round(rng.uniform(-10, 5), 2),
    }
    if pilot and pilot.alliance_id is not None:
        sheet["alliance_id"] = pilot.alliance_id
    return sheet


def solar_system(world: World, system_id: int) -> dict[str, Any] | None:
    """A solar system that has a name, or None."""
    category, name = world.names.get(system_id, ("", ""))
    if category != "solar_system":
        return None
    rng = random.Random(f"system {system_id}")
    return {
        "constellation_id": rng.randint(20_000_001, 20_000_800),
        "name": name,
        "position": {axis: rng.uniform(-5e17, 5e17) for axis in "xyz"},
        "security_status": world.security_statuses.get(system_id, _security_of(system_id)),
        "star_id": rng.randint(40_000_000, 40_500_000),
        "system_id": system_id,
    }


def _security_of(system_id: int) -> float:
    """For those the catalog does not have: the same every time, in every world."""
    if system_id in _WORMHOLES:
        return _WORMHOLE_SECURITY
    return round(random.Random(f"security {system_id}").uniform(-1, 1), 6)


def status(players: int, now: float) -> dict[str, Any]:
    """Tranquility's health; it started after the last downtime at 11:00 UTC."""
    started = (now - _DOWNTIME) // _DAY * _DAY + _DOWNTIME + 270
    start_time = esi_time(started if started <= now else started - _DAY)
    return {"players": players, "server_version": "3087211", "start_time": start_time, "vip": False}


def prices(world: World) -> list[dict[str, Any]]:
    """A price for every type, some without an average; the same ones every time."""
    rows = []
    for type_id in sorted(one for one, (category, _) in world.names.items() if category == "inventory_type"):
        # A checksum is a cheap fixed roll: seeding a generator for thousands of types would stall the loop.
        roll = zlib.crc32(b"price %d" % type_id) / 2**32
        price = round(10 ** (0.5 + 8 * roll), 2)
        row: dict[str, Any] = {"adjusted_price": price, "type_id": type_id}
        if type_id % 10:
            row["average_price"] = round(price * (0.8 + 0.4 * roll), 2)
        rows.append(row)
    return rows
