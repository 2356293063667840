"""How a killmail is shown: dataclasses named as in `schema.graphql`, built from rows with few statements.

For a page of killmails it takes one statement each for attackers, items and names, and only where they are asked for.
Views do not depend on who looks, so that one reading serves every socket; `KillmailView.is_loss_of` says whose loss it
was. Who may see what is decided in `api/killmails.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from api import security
from api.values import ValueView, values_of
from database import MAX_PARAMETERS
from models import Attacker, Killmail, KillmailItem, Name, SolarSystem, Victim

ZKILLBOARD = "https://zkillboard.com/kill"

#: Field names of the schema that cost a statement of their own.
EVERYTHING = frozenset({"name", "attackers", "finalBlow", "items"})

#: Those of which one killmail may have thousands of rows.
UNBOUNDED = frozenset({"attackers", "items", "value"})

#: A row as the database gives it, in the order of the columns below.
Row = Any
#: The id of something, to what it is called.
Naming = Callable[[int | None], "Entity | None"]

#: Looked up for each row that is returned, and for no other. Without a name of its own peewee takes it for the last
#: column that its SQL mentions, and the number for an id.
_SECURITY_STATUS: Any = (
    SolarSystem.select(SolarSystem.security_status)
    .where(SolarSystem.id == Killmail.solar_system_id)
    .alias("security_status")
)
KILLMAIL_COLUMNS = (
    Killmail.killmail_id,
    Killmail.killmail_hash,
    Killmail.killmail_time,
    Killmail.solar_system_id,
    Killmail.moon_id,
    Killmail.war_id,
    Killmail.attacker_count,
    Killmail.is_npc,
    Killmail.is_solo,
    Killmail.created_at,
    Victim.character_id,
    Victim.corporation_id,
    Victim.alliance_id,
    Victim.faction_id,
    Victim.ship_type_id,
    Victim.damage_taken,
    Victim.position_x,
    Victim.position_y,
    Victim.position_z,
    _SECURITY_STATUS,
)
_ATTACKER_COLUMNS = (
    Attacker.killmail,
    Attacker.character_id,
    Attacker.corporation_id,
    Attacker.alliance_id,
    Attacker.faction_id,
    Attacker.ship_type_id,
    Attacker.weapon_type_id,
    Attacker.damage_done,
    Attacker.final_blow,
    Attacker.security_status,
)
_ITEM_COLUMNS = (
    KillmailItem.killmail,
    KillmailItem.ordinal,
    KillmailItem.parent_ordinal,
    KillmailItem.item_type_id,
    KillmailItem.flag,
    KillmailItem.singleton,
    KillmailItem.quantity_destroyed,
    KillmailItem.quantity_dropped,
)


@dataclass(frozen=True, slots=True)
class Entity:
    """`name` is None until it is known."""

    id: int
    name: str | None


@dataclass(frozen=True, slots=True)
class PositionView:
    """Metres, in the solar system."""

    x: float
    y: float
    z: float


@dataclass(frozen=True, slots=True)
class VictimView:
    """Who and what was lost; ids are None where ESI names none."""

    character: Entity | None
    corporation: Entity | None
    alliance: Entity | None
    faction: Entity | None
    ship_type: Entity | None
    damage_taken: int
    position: PositionView | None


@dataclass(frozen=True, slots=True)
class AttackerView:
    """One attacker, in the order ESI lists them."""

    character: Entity | None
    corporation: Entity | None
    alliance: Entity | None
    faction: Entity | None
    ship_type: Entity | None
    weapon_type: Entity | None
    damage_done: int
    final_blow: bool
    security_status: float


@dataclass(frozen=True, slots=True)
class ItemView:
    """One stack, with what lay in it."""

    type: Entity | None
    flag: int
    singleton: int
    quantity_destroyed: int | None
    quantity_dropped: int | None
    items: list[ItemView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class KillmailView:
    """`attackers`, `final_blow`, `items` and `value` are empty where they were not asked for.

    `security_status`: the solar system's, as the game shows it; None until it is known.
    """

    id: int
    killmail_hash: str = field(repr=False)
    killmail_time: datetime
    solar_system: Entity | None
    security_status: float | None
    moon_id: int | None
    war_id: int | None
    attacker_count: int
    is_npc: bool
    is_solo: bool
    created_at: datetime
    victim: VictimView
    attackers: Sequence[AttackerView]
    final_blow: AttackerView | None
    items: Sequence[ItemView]
    value: ValueView | None = None

    @property
    def zkillboard_url(self) -> str:
        return f"{ZKILLBOARD}/{self.id}/"

    def is_loss_of(self, character_id: int) -> bool:
        return self.victim.character is not None and self.victim.character.id == character_id


def build(rows: Sequence[Row], named_fields: frozenset[str]) -> list[KillmailView]:
    """Views of these rows, in their order; `named_fields`: which names the query asks for."""
    ids = [row[0] for row in rows]
    attackers = _attacker_rows(ids, named_fields)
    items = _item_rows(ids) if named_fields & {"items", "value"} else {}
    naming = _naming(_ids_with_names(rows, attackers, items)) if "name" in named_fields else _unnamed
    views = [_view(row, attackers.get(row[0], []), items.get(row[0], []), naming) for row in rows]
    if "value" not in named_fields:
        return views
    return [replace(view, value=value) for view, value in zip(views, values_of(views), strict=True)]


def rows_to_read(rows: Sequence[Row], named_fields: frozenset[str]) -> int:
    """How many attackers and items `build` would read."""
    count = sum(row[6] for row in rows) if "attackers" in named_fields else 0
    if rows and named_fields & {"items", "value"}:
        count += KillmailItem.select().where(KillmailItem.killmail.in_([row[0] for row in rows])).count()
    return count


def _attacker_rows(ids: list[int], named_fields: frozenset[str]) -> dict[int, list[Row]]:
    if not ids or not named_fields & {"attackers", "finalBlow"}:
        return {}
    query = Attacker.select(*_ATTACKER_COLUMNS).where(Attacker.killmail.in_(ids))
    if "attackers" not in named_fields:
        query = query.where(Attacker.final_blow)
    ordered: Any = query.order_by(Attacker.killmail, Attacker.ordinal)
    return _by_killmail(ordered.tuples())


def _item_rows(ids: list[int]) -> dict[int, list[Row]]:
    if not ids:
        return {}
    query: Any = KillmailItem.select(*_ITEM_COLUMNS).where(KillmailItem.killmail.in_(ids))
    return _by_killmail(query.order_by(KillmailItem.killmail, KillmailItem.ordinal).tuples())


def _by_killmail(rows: Iterable[Row]) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return grouped


def _ids_with_names(
    rows: Iterable[Row],
    attackers: dict[int, list[Row]],
    items: dict[int, list[Row]],
) -> set[int]:
    ids: set[Any] = set()
    for row in rows:
        ids.update((row[3], *row[10:15]))
    for group in attackers.values():
        for row in group:
            ids.update(row[1:7])
    for group in items.values():
        ids.update(row[3] for row in group)
    ids.discard(None)
    return ids


def names_of(ids: Collection[int]) -> dict[int, str]:
    """Id to name, of those that are known."""
    names: dict[int, str] = {}
    ordered = sorted(ids)
    for start in range(0, len(ordered), MAX_PARAMETERS):
        chunk = ordered[start : start + MAX_PARAMETERS]
        known: Any = Name.select(Name.id, Name.name).where(Name.id.in_(chunk) & Name.name.is_null(False))
        names.update(known.tuples())
    return names


def _naming(ids: set[int]) -> Naming:
    names = names_of(ids)
    return lambda entity_id: None if entity_id is None else Entity(entity_id, names.get(entity_id))


def _unnamed(entity_id: int | None) -> Entity | None:
    return None if entity_id is None else Entity(entity_id, None)


def _view(row: Row, attackers: list[Row], items: list[Row], naming: Naming) -> KillmailView:
    views = [_attacker(attacker, naming) for attacker in attackers]
    return KillmailView(
        id=row[0],
        killmail_hash=row[1],
        killmail_time=row[2],
        solar_system=naming(row[3]),
        security_status=None if row[19] is None else security.shown(row[19]),
        moon_id=row[4],
        war_id=row[5],
        attacker_count=row[6],
        is_npc=row[7],
        is_solo=row[8],
        created_at=row[9],
        victim=_victim(row[10:], naming),
        attackers=views,
        final_blow=next((view for view in views if view.final_blow), None),
        items=_nested(items, naming),
    )


def _victim(row: Row, naming: Naming) -> VictimView:
    character, corporation, alliance, faction, ship_type = map(naming, row[:5])
    position = None if None in row[6:9] else PositionView(*row[6:9])
    return VictimView(character, corporation, alliance, faction, ship_type, row[5], position)


def _attacker(row: Row, naming: Naming) -> AttackerView:
    character, corporation, alliance, faction, ship_type, weapon_type = map(naming, row[1:7])
    return AttackerView(character, corporation, alliance, faction, ship_type, weapon_type, *row[7:])


def _nested(rows: list[Row], naming: Naming) -> list[ItemView]:
    """Rows in the order of `ordinal`: a container stands before what it holds.

    What says that it lies in something that does not stand before it is shown by itself.
    """
    views: dict[int, ItemView] = {}
    outermost: list[ItemView] = []
    for _, ordinal, parent_ordinal, item_type_id, *rest in rows:
        parent = views.get(parent_ordinal)
        view = views[ordinal] = ItemView(naming(item_type_id), *rest)
        (outermost if parent is None else parent.items).append(view)
    return outermost
