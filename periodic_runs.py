"""Work that some process does now and then: whose turn it is, and how far it has got. One row for each kind of work.

The invariant: of any number of processes that find the work due at once, one does it, because its turn is a conditional
update. A process that dies in the middle leaves it to the next turn. What the work is, is left to the caller; a turn
that a wrong clock put far ahead is repaired by `deadlines.py`, which allows for a day.
"""

from __future__ import annotations

from datetime import timedelta

from database import execute, utcnow


def begin(name: str, every: timedelta) -> bool:
    """Whether the caller is to do the work now. It is due again after `every`."""
    now = utcnow()
    # Read first: a write takes SQLite's only lock, and the work is hardly ever due.
    if execute("SELECT 1 FROM periodic_runs WHERE name = ? AND due_at > ?", (name, now)).fetchone() is not None:
        return False
    begun = execute(
        "INSERT INTO periodic_runs (name, due_at) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at WHERE periodic_runs.due_at <= ?",
        (name, now + every, now),
    )
    return bool(begun.rowcount > 0)


def put_off(name: str, wait: timedelta) -> None:
    """The work is due again after `wait`, counted from now."""
    execute("UPDATE periodic_runs SET due_at = ? WHERE name = ?", (utcnow() + wait, name))


def position(name: str) -> int:
    """How far the work has got; 0 at first."""
    row = execute("SELECT position FROM periodic_runs WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def move_to(name: str, position: int) -> None:
    """The next turn goes on from there."""
    execute("UPDATE periodic_runs SET position = ? WHERE name = ?", (position, name))
