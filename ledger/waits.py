"""Until when a class of requests may not be made, and why: one row per class, which those who show a sync read.

A closed gate concerns every sync of a class. It is written down once, when it closes or its time changes, and not in
each sync: 3,000 syncs that wait for ESI cost one row and one event. A wait of a sync's own (ESI's copy of its list, a
Retry-After, its own backoff) stays in its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from database import as_datetime, execute, placeholders, utcnow
from ledger.rules import MAX_ERROR_LENGTH

#: Names of the rows: the reading of lists; of lists whose pilot needs another access token first; killmails by class of
#: priority; and killmails that ESI is likely to refuse.
LISTS, REFRESHES, INTERACTIVE, BACKGROUND, DOUBTFUL = "lists", "refreshes", "interactive", "background", "doubtful"
#: A time that differs by less is no news: an allowance that fills up is estimated a little differently each time.
SAME_TIME = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing of the class is requested before `until` (naive UTC). `reason`: for the pilot."""

    until: datetime
    reason: str


def note(name: str, until: datetime, reason: str) -> bool:
    """The class waits until then. True if that is news."""
    rows = execute(
        """
        INSERT INTO waits (name, until, reason) VALUES (?, ?, ?)
        ON CONFLICT (name) DO UPDATE SET until = excluded.until, reason = excluded.reason
        WHERE waits.until IS NULL OR waits.until < ? OR waits.until > ? OR waits.reason <> excluded.reason
        """,
        (name, until, reason[:MAX_ERROR_LENGTH], until - SAME_TIME, until + SAME_TIME),
    )
    return bool(rows.rowcount > 0)


def end(names: list[str]) -> bool:
    """These classes wait no longer. True if one did. One statement that reads where none does."""
    if not names:
        return False
    now = utcnow()
    waiting = f"until > ? AND name IN ({placeholders(names)})"
    if execute(f"SELECT 1 FROM waits WHERE {waiting} LIMIT 1", (now, *names)).fetchone() is None:
        return False
    return bool(execute(f"UPDATE waits SET until = NULL WHERE {waiting}", (now, *names)).rowcount)


def current() -> dict[str, Wait]:
    """The classes that wait now."""
    rows = execute("SELECT name, until, reason FROM waits WHERE until > ?", (utcnow(),)).fetchall()
    return {name: Wait(as_datetime(until), reason) for name, until, reason in rows}
