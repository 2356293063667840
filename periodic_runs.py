"""Work that some process does now and then: whose turn it is, and how far it has got. One row for each kind of work.

The invariant: of any number of processes that find the work due at once, one does it, because its turn is a conditional
update. A process that dies in the middle leaves it to the next turn. What the work is, is left to the caller; a turn
that a wrong clock put far ahead is repaired by `deadlines.py`, which allows for a day.

What cannot be undone is not done by one look at the clock, which may be wrong for a moment: `wanted_for` says whether
it was wanted at each look for some hours.
"""

from __future__ import annotations

from datetime import UTC, timedelta

from database import execute, utcnow

#: Two looks further apart than this do not belong together. They come each minute: a longer gap is a clock that was set
#: ahead, or time in which nothing ran.
LOOKS_APART = timedelta(hours=1)
#: A look is written down if the last one written is older.
NOTE_EVERY = timedelta(minutes=10)


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


def wanted_for(name: str, wait: timedelta) -> bool:
    """Whether this work, which is wanted now, was wanted at each look for so long. To be asked at each look.

    It begins again when looks are too far apart, or the clock has gone back: a clock that jumps ahead and back never
    makes anything wanted for long. The row's `position` is the last look, `due_at` when the wait ends.
    """
    now = utcnow()
    seconds = int(now.replace(tzinfo=UTC).timestamp())
    row = execute("SELECT position, due_at <= ? FROM periodic_runs WHERE name = ?", (now, name)).fetchone()
    since = None if row is None else seconds - row[0]
    if since is None or not 0 <= since <= LOOKS_APART.total_seconds():
        execute(
            "INSERT INTO periodic_runs (name, due_at, position) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET due_at = excluded.due_at, position = excluded.position",
            (name, now + wait, seconds),
        )
        return False
    if since >= NOTE_EVERY.total_seconds():
        move_to(name, seconds)
    return bool(row[1])
