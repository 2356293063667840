"""How safe solar systems are: what is known, what is wanted, and who asks for it.

Invariants: a status, once known, is kept for good, because they change a few times in the game's history; of any number
of workers one asks for a system, because the claim is a conditional update. A system is wanted from the moment its name
is known. The request itself is left to `actors/solar_systems.py`, what is shown of a status to `api/security.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from database import MAX_PARAMETERS, execute, insert_rows, lock_clause, placeholders, utcnow

#: A system in somebody's hands is left alone for so long.
CLAIM = timedelta(minutes=2)

_WANTED = "security_status IS NULL AND (retry_at IS NULL OR retry_at <= ?)"


def enter(solar_system_ids: Collection[int]) -> None:
    """Want the status of these; those that are here already stay as they are."""
    rows = [(each,) for each in sorted(set(solar_system_ids))]
    insert_rows("solar_systems", ("id",), rows, "ON CONFLICT (id) DO NOTHING")


def wanted() -> bool:
    """Whether any is due to be asked for."""
    return execute(f"SELECT 1 FROM solar_systems WHERE {_WANTED} LIMIT 1", (utcnow(),)).fetchone() is not None


def claim() -> int | None:
    """One that is due, and is nobody else's for as long as CLAIM; None where there is none."""
    now = utcnow()
    row = execute(
        f"""
        UPDATE solar_systems SET retry_at = ? WHERE id = (
            SELECT id FROM solar_systems WHERE {_WANTED} LIMIT 1 {lock_clause(skip_locked=True)})
        RETURNING id
        """,
        (now + CLAIM, now),
    ).fetchone()
    return None if row is None else int(row[0])


def save(solar_system_id: int, security_status: float) -> None:
    """It is known from now on."""
    execute(
        "UPDATE solar_systems SET security_status = ?, retry_at = NULL WHERE id = ?", (security_status, solar_system_id)
    )


def put_off(solar_system_id: int, until: datetime) -> None:
    """Let go of a claimed one, which is due then."""
    execute("UPDATE solar_systems SET retry_at = ? WHERE id = ?", (until, solar_system_id))


def put_off_all(until: datetime) -> None:
    """No wanted one is due before: what kept one from being known would keep the others, too."""
    execute(
        f"""
        UPDATE solar_systems SET retry_at = ? WHERE id IN (
            SELECT id FROM solar_systems WHERE {_WANTED} {lock_clause(skip_locked=True)})
        """,
        (until, until),
    )


def security_statuses(solar_system_ids: Collection[int]) -> dict[int, float]:
    """Id to status, 1.0 to -1.0 and exact, of those that are known."""
    found: dict[int, float] = {}
    ordered = sorted(set(solar_system_ids))
    for start in range(0, len(ordered), MAX_PARAMETERS):
        chunk = ordered[start : start + MAX_PARAMETERS]
        rows = execute(
            f"SELECT id, security_status FROM solar_systems WHERE security_status IS NOT NULL"
            f" AND id IN ({placeholders(chunk)})",
            chunk,
        )
        found.update(rows.fetchall())
    return found
