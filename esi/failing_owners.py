"""How many different owners failed at a gate since anybody last succeeded there.

An answer that concerns one pilot must not stop the others. A failure therefore says something about the remote service
only when several owners (users or characters) had one, in a row: any success in between proves that the service works
and forgets them all. The state is one row per gate and owner, shared by every process; it stays small, because a gate
closes after a few of them and old rows are deleted with each new one.

What a failure is, how many are enough, and closing the gate is left to the caller. Times are seconds since the epoch,
by the database's clock.
"""

from __future__ import annotations

import math

from database import execute
from esi.rate_store import transaction

#: Seconds after which a failure no longer counts as one of those in a row.
REMEMBERED_SECONDS = 600.0


def add(gate: str, owner: int, now: float, *, remembered: float = REMEMBERED_SECONDS) -> int:
    """Count a failure of this owner; returns how many different owners have failed since the last success.

    `remembered`: seconds after which a failure no longer counts.
    """
    with transaction():
        execute(
            "INSERT INTO failing_owners (gate, owner, failed_at) VALUES (?, ?, ?) "
            "ON CONFLICT (gate, owner) DO UPDATE SET failed_at = excluded.failed_at",
            (gate, owner, now),
        )
        # A row from the future was written while a clock was wrong.
        execute(
            "DELETE FROM failing_owners WHERE gate = ? AND (failed_at < ? OR failed_at > ?)",
            (gate, now - remembered, now + remembered),
        )
    return count(gate)


def count(gate: str) -> int:
    """How many different owners have failed since the last success."""
    return int(execute("SELECT COUNT(*) FROM failing_owners WHERE gate = ?", (gate,)).fetchone()[0])


def includes(gate: str, owner: int, *, since: float = 0.0, before: float = math.inf) -> bool:
    """Whether this owner has failed since the last success; its last failure since that time, and before that one."""
    rows = execute(
        "SELECT 1 FROM failing_owners WHERE gate = ? AND owner = ? AND failed_at >= ? AND failed_at < ?",
        (gate, owner, since, before),
    )
    return bool(rows.fetchall())


def owners(gate: str, limit: int = 100, *, since: float = 0.0) -> list[int]:
    """Those who have failed since the last success, and since that time: the last `limit` of them."""
    rows = execute(
        "SELECT owner FROM failing_owners WHERE gate = ? AND failed_at >= ? ORDER BY failed_at DESC LIMIT ?",
        (gate, since, limit),
    )
    return [int(owner) for (owner,) in rows.fetchall()]


def forget(gate: str) -> None:
    """Somebody succeeded: the failures so far were their owners' own."""
    execute("DELETE FROM failing_owners WHERE gate = ?", (gate,))
