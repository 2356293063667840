"""Names that may have changed: which are asked for again, and what the answer changes.

Characters, corporations and alliances are renamed now and then; types, systems and factions are not. A name is asked
for again when it is older than 30 days and still shown: the name of a pilot who logged in here, or one on a killmail
among the last that were stored. The invariants: a turn looks at a bounded number of rows and asks for 1,000 ids at
most, so that killmails never wait for it; a name that is known is replaced, never deleted, whatever ESI says. The
request itself is left to `actors/name_refresh.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

import periodic_runs
from clock import CLOCKS_APART
from database import db, execute, placeholders, utcnow

#: A name is believed for so long. A rename is rare, and costs its pilot money.
FRESH = timedelta(days=30)
#: Time between two batches: at 1,000 names each, 720,000 a month.
INTERVAL = timedelta(hours=1)
#: The most ids that /universe/names takes at once; and how many of them pilots' own names may be.
BATCH, OWN = 1000, 500
#: Pilots looked at in a turn; the next turn goes on behind them.
PILOTS_LOOKED_AT = 5000
#: The killmails stored last, whose names are looked at in a turn.
KILLMAILS_LOOKED_AT = 1000

_TURN = "stale names"
_RENAMED = "('character', 'corporation', 'alliance')"


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids to ask for. `position`: the pilots up to this id were looked at."""

    ids: frozenset[int]
    position: int


def is_due() -> bool:
    """Whether the caller is to send the hourly request. Takes the turn.

    Where the turn finds no stale name there is nothing to ask, and the next one goes on behind the pilots looked at.
    """
    if not periodic_runs.begin(_TURN, INTERVAL):
        return False
    found = batch()
    if not found.ids:
        periodic_runs.move_to(_TURN, found.position)
    return bool(found.ids)


def batch() -> Batch:
    """What to ask for now: pilots' own names first, then those on the killmails that were stored last."""
    position, own = _own_names(periodic_runs.position(_TURN))
    return Batch(frozenset([*own, *_shown_names(BATCH - len(own))]), position)


def save(asked: Batch, names: Mapping[int, str], unknown: Collection[int]) -> bool:
    """Store what ESI said; returns whether any name changed. What ESI does not know keeps its name."""
    now = utcnow()
    before = _current(names)
    with db.atomic():
        for id_ in sorted({*names, *unknown}):
            execute(
                "UPDATE names SET name = COALESCE(?, name), updated_at = ? WHERE id = ? AND name IS NOT NULL",
                (names.get(id_), now, id_),
            )
        for id_ in sorted(set(asked.ids) - before.keys()):  # pilots who are on no killmail
            if id_ in names:
                execute(
                    "INSERT INTO names (id, name, category, updated_at) VALUES (?, ?, 'character', ?) "
                    "ON CONFLICT (id) DO NOTHING",
                    (id_, names[id_], now),
                )
    periodic_runs.move_to(_TURN, asked.position)
    changed = {id_ for id_, name in before.items() if names[id_] != name}
    return _rename_pilots(names) or bool(changed)


def _current(ids: Collection[int]) -> dict[int, str | None]:
    ordered = sorted(ids)
    if not ordered:
        return {}
    return dict(execute(f"SELECT id, name FROM names WHERE id IN ({placeholders(ordered)})", ordered).fetchall())


def _rename_pilots(names: Mapping[int, str]) -> bool:
    """A pilot's own name, as their pages show it, follows. Outside the transaction: users are locked before names."""
    ordered = sorted(names)
    if not ordered:
        return False
    rows = execute(
        f"SELECT character_id, character_name FROM users WHERE character_id IN ({placeholders(ordered)})", ordered
    ).fetchall()
    renamed = [character_id for character_id, name in rows if names[character_id] != name]
    for character_id in renamed:
        execute("UPDATE users SET character_name = ? WHERE character_id = ?", (names[character_id], character_id))
    return bool(renamed)


def _own_names(behind: int) -> tuple[int, list[int]]:
    """The next pilots whose own name is stale, and the id of the last one looked at; 0 at the end."""
    now = utcnow()
    rows = execute(
        f"""
        SELECT pilots.id, pilots.character_id,
               COALESCE(names.updated_at, pilots.created_at) < ? OR COALESCE(names.updated_at, pilots.created_at) > ?
        FROM (SELECT id, character_id, created_at FROM users WHERE id > ? ORDER BY id LIMIT {PILOTS_LOOKED_AT})
             AS pilots
             LEFT JOIN names ON names.id = pilots.character_id
        ORDER BY pilots.id
        """,
        (now - FRESH, now + CLOCKS_APART, behind),
    ).fetchall()
    own: list[int] = []
    for id_, character_id, is_stale in rows:
        if is_stale:
            own.append(character_id)
        if len(own) == OWN:
            return id_, own
    return (rows[-1][0] if len(rows) == PILOTS_LOOKED_AT else 0), own


def _shown_names(limit: int) -> list[int]:
    now = utcnow()
    parties = " UNION ".join(
        f"SELECT {party}_id AS id FROM {table} WHERE killmail_id IN (SELECT killmail_id FROM recent)"
        for table in ("victims", "attackers")
        for party in ("character", "corporation", "alliance")
    )
    rows = execute(
        f"""
        WITH recent AS (SELECT killmail_id FROM killmails ORDER BY created_at DESC LIMIT {KILLMAILS_LOOKED_AT}),
             shown AS ({parties})
        SELECT names.id FROM names JOIN shown ON shown.id = names.id
        WHERE names.name IS NOT NULL AND names.category IN {_RENAMED}
              AND (names.updated_at < ? OR names.updated_at > ?)
        ORDER BY names.updated_at LIMIT ?
        """,
        (now - FRESH, now + CLOCKS_APART, limit),
    ).fetchall()
    return [id_ for (id_,) in rows]
