"""My killmails as a file, however many: read and sent in pieces, in constant memory, and holding no connection between.

The order is that of the list, newest first. What is stored meanwhile is newer than where the export stands and is not
in it; what is deleted meanwhile is not either. A spreadsheet would run cells that begin like a formula: they are
defused with an apostrophe, because names come from strangers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence

from api import killmails
from api.killmail_views import EVERYTHING, Entity, KillmailView
from database import db
from models import User
from web.raw import esi_form

#: Killmails read at a time: one may have thousands of attackers, which the rows of a table do not show.
ROWS_AT_ONCE, WHOLE_AT_ONCE = 500, 20

COLUMNS = (
    "killmail_id", "time", "result", "ship_type_id", "ship", "solar_system_id", "system", "victim_id", "victim",
    "victim_corporation", "victim_alliance", "final_blow_id", "final_blow", "attackers", "damage_taken", "solo", "npc",
    "zkillboard",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def as_csv(viewer: User, chosen: killmails.Filter) -> Iterator[str]:
    """Comma-separated values with a header, one line a killmail, names as far as they are known."""
    yield _lines([COLUMNS])
    for chunk in _chunks(viewer, chosen, ROWS_AT_ONCE, EVERYTHING - {"attackers", "items"}):
        yield _lines([_row(killmail, viewer) for killmail in chunk])


def as_json(viewer: User, chosen: killmails.Filter) -> Iterator[str]:
    """A JSON array of whole killmails in ESI's form, one a line."""
    separator = "[\n"
    for chunk in _chunks(viewer, chosen, WHOLE_AT_ONCE, EVERYTHING - {"name"}):
        for killmail in chunk:
            yield separator + json.dumps(esi_form(killmail), separators=(",", ":"))
            separator = ",\n"
    yield "\n]\n" if separator == ",\n" else "[]\n"


def cell(value: object) -> object:
    """What a spreadsheet will not take for a formula. Numbers are ours, and stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _chunks(
    viewer: User, chosen: killmails.Filter, size: int, named_fields: frozenset[str]
) -> Iterator[Sequence[KillmailView]]:
    before_id = None
    while True:
        with db.connection_context():
            page = killmails.page_of(viewer, chosen, size, before_id, named_fields)
        yield page.nodes
        if not page.page_info.has_next_page:
            return
        before_id = page.nodes[-1].id


def _lines(rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue()


def _row(killmail: KillmailView, viewer: User) -> Sequence[object]:
    victim, final_blow = killmail.victim, killmail.final_blow
    return (
        killmail.id,
        f"{killmail.killmail_time:%Y-%m-%d %H:%M:%S}",
        "loss" if killmail.is_loss_of(viewer.character_id) else "kill",
        *_entity(victim.ship_type),
        *_entity(killmail.solar_system),
        *_entity(victim.character),
        *_entity(victim.corporation)[1:],
        *_entity(victim.alliance)[1:],
        *_entity(final_blow.character if final_blow else None),
        killmail.attacker_count,
        victim.damage_taken,
        "yes" if killmail.is_solo else "no",
        "yes" if killmail.is_npc else "no",
        killmail.zkillboard_url,
    )


def _entity(entity: Entity | None) -> tuple[int | str, str]:
    return ("", "") if entity is None else (entity.id, entity.name or "")
