"""Write killmails, one statement a table, inside the caller's transaction; and read them back as they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from database import execute, insert_rows, utcnow
from killmails import Attacker, Item, Killmail, Position, Victim, is_npc, is_solo, item_rows, nest_items
from models import Killmail as KillmailRow

VICTIM = (
    "killmail_id", "character_id", "corporation_id", "alliance_id", "faction_id", "ship_type_id", "damage_taken",
    "position_x", "position_y", "position_z",
)  # fmt: skip
ATTACKER = (
    "killmail_id", "ordinal", "character_id", "corporation_id", "alliance_id", "faction_id", "ship_type_id",
    "weapon_type_id", "damage_done", "final_blow", "security_status",
)  # fmt: skip
ITEM = (
    "killmail_id", "ordinal", "parent_ordinal", "item_type_id", "flag", "singleton", "quantity_destroyed",
    "quantity_dropped",
)  # fmt: skip


def store(killmail: Killmail, killmail_hash: str) -> bool:
    """Insert the killmail with everything it holds. False: it is stored already, and nothing was written."""
    now = utcnow()
    row = (
        killmail.killmail_id, killmail_hash, killmail.killmail_time, killmail.solar_system_id, killmail.moon_id,
        killmail.war_id, len(killmail.attackers), is_npc(killmail), is_solo(killmail), now,
    )  # fmt: skip
    inserted = execute(
        """
        INSERT INTO killmails (killmail_id, killmail_hash, killmail_time, solar_system_id, moon_id, war_id,
                               attacker_count, is_npc, is_solo, created_at)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
        """,
        row,
    )
    if not inserted.rowcount:
        return False
    key = killmail.killmail_id
    insert_rows("victims", VICTIM, [_victim_row(key, killmail.victim)])
    insert_rows("attackers", ATTACKER, [_attacker_row(key, n, row) for n, row in enumerate(killmail.attackers)])
    insert_rows("killmail_items", ITEM, [_item_row(key, n, parent, item) for n, parent, item in item_rows(killmail)])
    # Last, and in order of id: transactions that meet the same new names wait for each other here and only here.
    insert_rows(
        "names",
        ("id", "updated_at"),
        [(id_, now) for id_ in sorted(set(_named_ids(killmail)))],
        "ON CONFLICT DO NOTHING",
    )
    return True


def load(killmail_id: int) -> Killmail | None:
    """The stored killmail, field by field as ESI sent it; None where it is not stored."""
    row = KillmailRow.get_or_none(KillmailRow.killmail_id == killmail_id)
    if row is None:
        return None
    return Killmail(
        killmail_id=killmail_id,
        killmail_time=row.killmail_time,
        solar_system_id=row.solar_system_id,
        moon_id=row.moon_id,
        war_id=row.war_id,
        victim=_load_victim(killmail_id),
        attackers=tuple(
            Attacker(character, corporation, alliance, faction, ship, weapon, damage, bool(final_blow), security)
            for character, corporation, alliance, faction, ship, weapon, damage, final_blow, security in _rows(
                "attackers", ATTACKER[2:], killmail_id, "ORDER BY ordinal"
            )
        ),
    )


def _load_victim(killmail_id: int) -> Victim:
    ((character, corporation, alliance, faction, ship, damage, x, y, z),) = _rows("victims", VICTIM[1:], killmail_id)
    items = nest_items(
        (ordinal, parent, Item(type_id, flag, singleton, destroyed, dropped))
        for ordinal, parent, type_id, flag, singleton, destroyed, dropped in _rows(
            "killmail_items", ITEM[1:], killmail_id, "ORDER BY ordinal"
        )
    )
    position = None if x is None else Position(x, y, z)
    return Victim(character, corporation, alliance, faction, ship, damage, position, items)


def _rows(table: str, columns: Sequence[str], killmail_id: int, order: str = "") -> list[tuple[Any, ...]]:
    sql = f"SELECT {', '.join(columns)} FROM {table} WHERE killmail_id = ? {order}"
    return list(execute(sql, (killmail_id,)).fetchall())


def _victim_row(key: int, victim: Victim) -> tuple[object, ...]:
    where = victim.position
    return (
        key, victim.character_id, victim.corporation_id, victim.alliance_id, victim.faction_id, victim.ship_type_id,
        victim.damage_taken, where.x if where else None, where.y if where else None, where.z if where else None,
    )  # fmt: skip


def _attacker_row(key: int, ordinal: int, attacker: Attacker) -> tuple[object, ...]:
    return (
        key, ordinal, attacker.character_id, attacker.corporation_id, attacker.alliance_id, attacker.faction_id,
        attacker.ship_type_id, attacker.weapon_type_id, attacker.damage_done, attacker.final_blow,
        attacker.security_status,
    )  # fmt: skip


def _item_row(key: int, ordinal: int, parent: int | None, item: Item) -> tuple[object, ...]:
    return (
        key, ordinal, parent, item.item_type_id, item.flag, item.singleton, item.quantity_destroyed,
        item.quantity_dropped,
    )  # fmt: skip


def _named_ids(killmail: Killmail) -> Iterator[int]:
    """Every id of this killmail that /universe/names may know."""
    yield killmail.solar_system_id
    parties: tuple[Victim | Attacker, ...] = (killmail.victim, *killmail.attackers)
    for party in parties:
        for id_ in (party.character_id, party.corporation_id, party.alliance_id, party.faction_id, party.ship_type_id):
            if id_:
                yield id_
    for attacker in killmail.attackers:
        if attacker.weapon_type_id:
            yield attacker.weapon_type_id
    for _, _, item in item_rows(killmail):
        yield item.item_type_id
