"""A killmail in the form ESI hands it out, with its hash: for downloads, and for whoever wants to read them again.

Optional keys are left out where ESI left them out; `killmail_hash`, which is no part of ESI's body, stands beside
`killmail_id`, as others who pass killmails on have it.
"""

from __future__ import annotations

from typing import Any

from api.killmail_views import AttackerView, Entity, ItemView, KillmailView, VictimView


def esi_form(killmail: KillmailView) -> dict[str, Any]:
    """A JSON object; its `victim`, `attackers` and `items` must have been read."""
    return _without_none(
        killmail_id=killmail.id,
        killmail_hash=killmail.killmail_hash,
        killmail_time=killmail.killmail_time.isoformat(timespec="seconds") + "Z",
        solar_system_id=_id(killmail.solar_system),
        moon_id=killmail.moon_id,
        war_id=killmail.war_id,
        victim=_victim(killmail.victim, killmail.items),
        attackers=[_attacker(attacker) for attacker in killmail.attackers],
    )


def _victim(victim: VictimView, items: Any) -> dict[str, Any]:
    where = victim.position
    return _without_none(
        **_party(victim),
        ship_type_id=_id(victim.ship_type),
        damage_taken=victim.damage_taken,
        position=None if where is None else {"x": where.x, "y": where.y, "z": where.z},
        items=[_item(item) for item in items],
    )


def _attacker(attacker: AttackerView) -> dict[str, Any]:
    return _without_none(
        **_party(attacker),
        ship_type_id=_id(attacker.ship_type),
        weapon_type_id=_id(attacker.weapon_type),
        damage_done=attacker.damage_done,
        final_blow=bool(attacker.final_blow),
        security_status=attacker.security_status,
    )


def _party(party: VictimView | AttackerView) -> dict[str, int | None]:
    return {
        "character_id": _id(party.character),
        "corporation_id": _id(party.corporation),
        "alliance_id": _id(party.alliance),
        "faction_id": _id(party.faction),
    }


def _item(item: ItemView) -> dict[str, Any]:
    return _without_none(
        item_type_id=_id(item.type),
        flag=item.flag,
        singleton=item.singleton,
        quantity_destroyed=item.quantity_destroyed,
        quantity_dropped=item.quantity_dropped,
        items=[_item(inner) for inner in item.items] or None,
    )


def _id(entity: Entity | None) -> int | None:
    return None if entity is None else entity.id


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
