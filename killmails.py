"""A killmail as a value: ESI's JSON to frozen dataclasses and back, and what follows from the body alone.

The invariant: a Killmail that exists was checked field by field, so whoever stores or shows one checks nothing, and a
body that cannot be one raises MalformedKillmail and nothing else. Pure: no I/O, no clock, standard library only.
Fetching is left to `esi/`, keeping to `models.py`, names of types and pilots to whoever shows them.
The remote contract: GET /killmails/{killmail_id}/{killmail_hash} in ESI's OpenAPI document,
https://developers.eveonline.com/api-explorer (compatibility date 2020-01-01 and later: the shape is one and the same).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha1
from math import isfinite
from typing import Any, Final, TypeVar

#: Ids, damage and quantities are int64 in ESI's OpenAPI document; our columns hold as much.
INT64_MAX: Final = 2**63 - 1
#: `flag` and `singleton` are small enumerations (under 200, and 0 to 2); int32 in ESI's last Swagger document.
INT32_MAX: Final = 2**31 - 1
#: Entries of one list. The OpenAPI document names no bound (the last Swagger document: 10,000); the largest known
#: killmail (a keepstar) has 3,753 attackers and 131 items. What bounds a body is MAX_ANSWER_BYTES (`esi/client.py`):
#: this many attackers are some 20 of its 32 MiB.
MAX_ENTRIES: Final = 100_000
#: Levels of items. ESI has two (an item, and what lay in it); the wall keeps a hostile body off the stack.
MAX_ITEM_LEVELS: Final = 8
#: The capsule and its golden variant: type ids of the whole group "Capsule" in the static data export.
CAPSULES: Final = frozenset({670, 33328})
#: The least id of a players' corporation (https://docs.esi.evetech.net/docs/id_ranges.html). NPC corporations have
#: 1,000,000 to 1,999,999, factions 500,000 to 599,999, players' corporations from before 2010 over 100,000,000.
FIRST_PLAYER_CORPORATION: Final = 98_000_000

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)
_KINDS: Final[dict[type, str]] = {
    bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "a list", dict: "an object",
}  # fmt: skip
#: Where Windows FILETIME, in which EVE tells the time of a death, starts to count.
_FILETIME_EPOCH = datetime(1601, 1, 1)


class MalformedKillmail(ValueError):
    """The body is no killmail: `path` is the field (`attackers[3].damage_done`), `problem` what is wrong with it.

    Neither holds a value out of the body, so the text may be logged and stored.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path or 'killmail'}: {self.problem}"

    def inside(self, outer: str) -> MalformedKillmail:
        """The same problem as seen from one level further out."""
        return MalformedKillmail(f"{outer}.{self.path}" if self.path else outer, self.problem)


class WrongBody(MalformedKillmail):
    """The body is a killmail, and by all signs not the one that was asked for."""

    def __init__(self) -> None:
        super().__init__("", "it does not match its hash, and names none of the pilots in whose lists it is")


@dataclass(frozen=True, slots=True)
class Position:
    """Metres from the system's sun. ESI has none before November 2015."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, slots=True)
class Item:
    """One stack, or the part of it that shared one fate. `flag` is where it was; `singleton` 2 is a blueprint copy.

    ESI repeats rows exactly, so an item is known by its place in the list and by nothing else.
    """

    item_type_id: int
    flag: int
    singleton: int
    quantity_destroyed: int | None = None
    quantity_dropped: int | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Victim:
    """Who lost what. Structures, deployables and customs offices have no `character_id`."""

    character_id: int | None
    corporation_id: int | None
    alliance_id: int | None
    faction_id: int | None
    ship_type_id: int
    damage_taken: int
    position: Position | None = None
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Attacker:
    """One party to the kill. Only a player has a `character_id`; an NPC or a structure has none."""

    character_id: int | None
    corporation_id: int | None
    alliance_id: int | None
    faction_id: int | None
    ship_type_id: int | None
    weapon_type_id: int | None
    damage_done: int
    final_blow: bool
    security_status: float


@dataclass(frozen=True, slots=True)
class Killmail:
    """One killmail. `killmail_time` is naive UTC, `attackers` stand in ESI's order. The hash is not part of it."""

    killmail_id: int
    killmail_time: datetime
    solar_system_id: int
    moon_id: int | None
    war_id: int | None
    victim: Victim
    attackers: tuple[Attacker, ...]


#: (ordinal, ordinal of the item it lay in or None, the item).
ItemRow = tuple[int, int | None, Item]
_T = TypeVar("_T")


def parse_killmail(body: Mapping[str, Any]) -> Killmail:
    """The killmail in a decoded JSON object. Raises MalformedKillmail.

    Unknown fields are ignored, because ESI may add some at any time, and null counts as absent. So does 0 for an id
    that is optional. An empty list of attackers is accepted: ESI's document requires the list and not an entry, and to
    refuse is to lose a killmail.
    So is one without a final blow, or whose damage does not add up: CCP has published such a killmail.
    """
    if not isinstance(body, Mapping):
        raise MalformedKillmail("", f"expected an object, got {_kind(body)}")
    victim_body = _required(body, "victim")
    try:
        victim = _victim(victim_body)
    except MalformedKillmail as error:
        raise error.inside("victim") from None
    return Killmail(
        _whole(body, "killmail_id", 1),
        _time(body, "killmail_time"),
        _whole(body, "solar_system_id", 1),
        _optional_id(body, "moon_id"),
        _optional_id(body, "war_id"),
        victim,
        _entries("attackers", _required(body, "attackers"), _attacker),
    )


def _victim(body: Any) -> Victim:
    if not isinstance(body, dict):
        raise MalformedKillmail("", f"expected an object, got {_kind(body)}")
    return Victim(
        _optional_id(body, "character_id"),
        _optional_id(body, "corporation_id"),
        _optional_id(body, "alliance_id"),
        _optional_id(body, "faction_id"),
        _whole(body, "ship_type_id", 1),
        _whole(body, "damage_taken", 0),
        _position(body.get("position")),
        _items(body.get("items"), 1),
    )


def _attacker(body: dict[str, Any]) -> Attacker:
    blow = body.get("final_blow")
    if type(blow) is not bool:
        raise _refused(body, "final_blow", "a boolean")
    return Attacker(
        _optional_id(body, "character_id"),
        _optional_id(body, "corporation_id"),
        _optional_id(body, "alliance_id"),
        _optional_id(body, "faction_id"),
        _optional_id(body, "ship_type_id"),
        _optional_id(body, "weapon_type_id"),
        _whole(body, "damage_done", 0),
        blow,
        _double(body, "security_status"),
    )


def _position(body: Any) -> Position | None:
    if body is None:
        return None
    if not isinstance(body, dict):
        raise MalformedKillmail("position", f"expected an object, got {_kind(body)}")
    try:
        return Position(_double(body, "x"), _double(body, "y"), _double(body, "z"))
    except MalformedKillmail as error:
        raise error.inside("position") from None


def _items(body: Any, level: int) -> tuple[Item, ...]:
    if body is None or body == []:
        return ()
    if level > MAX_ITEM_LEVELS:
        raise MalformedKillmail("items", f"nested deeper than {MAX_ITEM_LEVELS} levels")
    return _entries("items", body, lambda entry: _item(entry, level))


def _item(body: dict[str, Any], level: int) -> Item:
    return Item(
        _whole(body, "item_type_id", 1),
        _whole(body, "flag", 0, INT32_MAX),
        _whole(body, "singleton", 0, INT32_MAX),
        _optional_whole(body, "quantity_destroyed"),
        _optional_whole(body, "quantity_dropped"),
        _items(body.get("items"), level + 1),
    )


def _entries(field: str, body: Any, parse: Callable[[dict[str, Any]], _T]) -> tuple[_T, ...]:
    """The parsed entries of a list. The path is put together only on the way out of a failure: see `inside`."""
    if not isinstance(body, list):
        raise MalformedKillmail(field, f"expected a list, got {_kind(body)}")
    if len(body) > MAX_ENTRIES:
        raise MalformedKillmail(field, f"more than {MAX_ENTRIES} entries")
    parsed: list[_T] = []
    try:
        for entry in body:
            if not isinstance(entry, dict):
                raise MalformedKillmail("", f"expected an object, got {_kind(entry)}")
            parsed.append(parse(entry))
    except MalformedKillmail as error:
        raise error.inside(f"{field}[{len(parsed)}]") from None
    return tuple(parsed)


def _whole(body: Mapping[str, Any], field: str, least: int, most: int = INT64_MAX) -> int:
    value = body.get(field)
    # Not isinstance: true and false are integers to Python.
    if type(value) is int and least <= value <= most:
        return value
    raise _refused(body, field, "an integer", least, most)


def _optional_whole(body: Mapping[str, Any], field: str) -> int | None:
    value = body.get(field)
    if value is None or (type(value) is int and 0 <= value <= INT64_MAX):
        return value
    raise _refused(body, field, "an integer", 0, INT64_MAX)


def _optional_id(body: Mapping[str, Any], field: str) -> int | None:
    """The id; None where it is absent, null or 0, which has meant "none" where it was seen (evemon issue 227)."""
    return _optional_whole(body, field) or None


def _double(body: Mapping[str, Any], field: str) -> float:
    value = body.get(field)
    if type(value) is float and isfinite(value):
        return value
    if type(value) is int and -INT64_MAX <= value <= INT64_MAX:  # ESI writes 0 and -10 without a point
        return float(value)
    raise _refused(body, field, "a finite number")


def _time(body: Mapping[str, Any], field: str) -> datetime:
    value = body.get(field)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refused(body, field, "a UTC time like 2026-07-23T14:07:33Z")
    try:
        whole = datetime.fromisoformat(match[1])
    except ValueError:
        raise MalformedKillmail(field, "no such date or time") from None
    return whole.replace(microsecond=int(match[2][:6].ljust(6, "0"))) if match[2] else whole


def _required(body: Mapping[str, Any], field: str) -> Any:
    if field not in body:
        raise MalformedKillmail(field, "missing")
    return body[field]


def _refused(body: Mapping[str, Any], field: str, wanted: str, least: int = 0, most: int = 0) -> MalformedKillmail:
    """Why a field was not taken. Asked only once it was refused, so that the good road stays short."""
    if field not in body:
        return MalformedKillmail(field, "missing")
    value = body[field]
    if type(value) is int and most:
        return MalformedKillmail(field, f"expected an integer from {least} to {most}")
    return MalformedKillmail(field, f"expected {wanted}, got {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, float) and not isfinite(value):
        return "a number that is not finite"
    return "null" if value is None else _KINDS.get(type(value), f"a {type(value).__name__}")


def to_json(killmail: Killmail) -> dict[str, Any]:
    """The body as ESI writes it: what is None is left out, and so are nested `items` that are empty.

    `parse_killmail` of it is the same killmail again. The victim's `items` are always there, as they are at ESI.
    """
    body = _fields(killmail)
    body["killmail_time"] = f"{killmail.killmail_time.isoformat()}Z"
    body["victim"] = _victim_json(killmail.victim)
    body["attackers"] = [_fields(attacker) for attacker in killmail.attackers]
    return body


def _victim_json(victim: Victim) -> dict[str, Any]:
    body = _fields(victim)
    if victim.position is not None:
        body["position"] = _fields(victim.position)
    body["items"] = [_item_json(item) for item in victim.items]
    return body


def _item_json(item: Item) -> dict[str, Any]:
    body = _fields(item)
    del body["items"]
    if item.items:
        body["items"] = [_item_json(inner) for inner in item.items]
    return body


def _fields(part: Killmail | Victim | Attacker | Position | Item) -> dict[str, Any]:
    values = ((name, getattr(part, name)) for name in part.__slots__)
    return {name: value for name, value in values if value is not None}


def final_blow(killmail: Killmail) -> Attacker | None:
    """Who ended it: a player, an NPC or a structure. None for the rare killmail that names nobody."""
    return next((attacker for attacker in killmail.attackers if attacker.final_blow), None)


def is_npc(killmail: Killmail) -> bool:
    """Whether NPCs alone did it: no attacker is a pilot, or a structure of a players' corporation."""
    return not any(
        attacker.character_id is not None or (attacker.corporation_id or 0) >= FIRST_PLAYER_CORPORATION
        for attacker in killmail.attackers
    )


def is_solo(killmail: Killmail) -> bool:
    """Whether one player alone beat another: NPCs may have helped, and the victim has a pilot and is no capsule.

    Near to zKillboard's rule, which also leaves out shuttles and rookie ships; that needs the static data.
    """
    if killmail.victim.character_id is None or killmail.victim.ship_type_id in CAPSULES:
        return False
    return sum(attacker.character_id is not None for attacker in killmail.attackers) == 1


def expected_hash(killmail: Killmail) -> str:
    """The killmail_hash that belongs to this body: 40 lower-case hexadecimal digits. A secret: keep it out of logs.

    SHA-1 over victim, final blow ("None" without a character), ship and FILETIME, written one after the other: as
    zKillboard publishes it, true of every published hash from 2008 to 2026 it was tried on. It is not unique.
    """
    blow = final_blow(killmail)
    killer = blow.character_id if blow else None
    filetime = (killmail.killmail_time - _FILETIME_EPOCH) // timedelta(microseconds=1) * 10
    text = f"{killmail.victim.character_id}{killer}{killmail.victim.ship_type_id}{filetime}"
    return sha1(text.encode("ascii"), usedforsecurity=False).hexdigest()


def hash_matches(killmail: Killmail, killmail_hash: str) -> bool:
    """Whether the body is the one this hash was made for. A warning, no proof: CCP promises no rule."""
    return expected_hash(killmail) == killmail_hash


def named_characters(killmail: Killmail) -> set[int]:
    """The characters that the body names, as the victim or as an attacker."""
    parties: tuple[Victim | Attacker, ...] = (killmail.victim, *killmail.attackers)
    return {party.character_id for party in parties if party.character_id is not None}


def item_rows(killmail: Killmail) -> Iterator[ItemRow]:
    """The victim's items as flat rows, depth first, ordinals from 0: a container, what lay in it, the next one."""
    ordinal = 0
    waiting: list[tuple[int | None, Item]] = [(None, item) for item in reversed(killmail.victim.items)]
    while waiting:
        parent_ordinal, item = waiting.pop()
        yield ordinal, parent_ordinal, item
        waiting += [(ordinal, inner) for inner in reversed(item.items)]
        ordinal += 1


def nest_items(rows: Iterable[ItemRow]) -> tuple[Item, ...]:
    """The items again, from rows by rising ordinal; gaps are allowed, and what `items` a row holds is not looked at.

    Raises ValueError for ordinals that do not rise, and for a parent that is no earlier row.
    """
    ordered = list(rows)
    inside: dict[int | None, list[Item]] = {None: []}
    last = -1
    for ordinal, parent_ordinal, _ in ordered:
        if ordinal <= last:
            raise ValueError(f"item {ordinal} stands after item {last}")
        if parent_ordinal not in inside:
            raise ValueError(f"item {ordinal} lies in item {parent_ordinal}, which is no earlier row")
        inside[ordinal] = []
        last = ordinal
    # Backwards, so that whatever lies in an item is whole before the item is made.
    for ordinal, parent_ordinal, item in reversed(ordered):
        content = tuple(reversed(inside[ordinal]))
        inside[parent_ordinal].append(replace(item, items=content) if content or item.items else item)
    return tuple(reversed(inside[None]))
