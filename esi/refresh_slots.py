"""Slots for token refreshes: at most four are in progress at the SSO at any time, across all processes.

The SSO answers 500 to more than five at once. A refresh, and the exchange of a login's code, holds one of four rows
under a lease for as long as its request lasts; the last row is kept for logins and interactive syncs, so that a pilot
who waits never queues behind the background. Only a login does without when all four are held for seconds
(`sso_gate.login`): then the SSO is slow, and the fifth is what it still allows. Users who are known to fail while
others succeed have one of the other three, together: their requests may each last as long as a timeout. The invariant:
a row is taken by one conditional update, and given back only by its holder. No caller holds a slot while it sleeps.

A process that dies keeps its slot until the lease ends. The clock is the database's own, so that all machines agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import uniform

from database import execute, insert_rows, is_sqlite, lock_clause, placeholders

#: Refreshes and logins at once: one less than the SSO allows, for a login that cannot wait any longer.
SLOTS = 4
#: Of these, kept for logins and interactive syncs.
KEPT_FOR_INTERACTIVE = 1
FOR_BACKGROUND = SLOTS - KEPT_FOR_INTERACTIVE
#: The one for users who are known to fail. The others take it last.
FOR_FAILING = FOR_BACKGROUND
#: Seconds: longer than one request's timeouts (3 + 15 + 10 + 15, `esi/transport.py`), and as much again for the
#: metadata that may have to be fetched before it. A second request renews the lease.
LEASE_SECONDS = 90.0
#: SQLite's clock counts milliseconds. Less than one is added at random, so that no two leases of a slot are the same.
CLOCK_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that is held. `failures_noted`: how many failures the gate remembered when it was taken."""

    id: int
    held_until: float
    failures_noted: int = 0


def take(gate: str | None, failures_of: tuple[str, ...], *, interactive: bool, fails: bool = False) -> Slot | None:
    """Take a free slot; None if there is none, or if `gate` (where given) is not open.

    One statement, because every refresh runs it: it also counts what `failing_owners` holds for `failures_of`.
    """
    rows = execute(
        f"""
        UPDATE refresh_slots SET held_until = {_now()} + ?
        WHERE id = (SELECT id FROM refresh_slots WHERE {_free()} AND id BETWEEN ? AND ? ORDER BY id LIMIT 1
                    {lock_clause(skip_locked=True)})
          AND NOT EXISTS (SELECT 1 FROM gates WHERE name = ? AND failures > 0)
        RETURNING id, held_until, (SELECT COUNT(*) FROM failing_owners WHERE gate IN ({placeholders(failures_of)}))
        """,
        (_lease(), *_first_and_last(interactive=interactive, fails=fails), gate or "", *failures_of),
    ).fetchall()
    return Slot(*rows[0]) if rows else None


def renew(slot: Slot) -> Slot | None:
    """Start the lease again, for a second request; None if it ended and another caller may hold the slot."""
    rows = execute(
        f"UPDATE refresh_slots SET held_until = {_now()} + ? WHERE id = ? AND held_until = ? RETURNING held_until",
        (CLOCK_SECONDS + _lease(), slot.id, slot.held_until),
    ).fetchall()
    return replace(slot, held_until=rows[0][0]) if rows else None


def release(slot: Slot) -> None:
    """Give the slot back, if the lease has not ended and the slot gone to another caller."""
    execute("UPDATE refresh_slots SET held_until = 0 WHERE id = ? AND held_until = ?", (slot.id, slot.held_until))


def any_free(*, interactive: bool, fails: bool = False) -> bool:
    """Whether `take` would find a slot now."""
    return count_free(interactive=interactive, fails=fails) > 0


def count_free(*, interactive: bool, fails: bool = False) -> int:
    """How many slots `take` would find now."""
    first, last = _first_and_last(interactive=interactive, fails=fails)
    [(rows, free)] = execute(
        f"SELECT COUNT(*), SUM(CASE WHEN {_free()} AND id BETWEEN ? AND ? THEN 1 ELSE 0 END) FROM refresh_slots",
        (first, last),
    ).fetchall()
    if rows < SLOTS:
        insert_rows(
            "refresh_slots", ("id", "held_until"), [(n, 0.0) for n in range(1, SLOTS + 1)], "ON CONFLICT DO NOTHING"
        )
        return last - first + 1
    return int(free)


def _first_and_last(*, interactive: bool, fails: bool) -> tuple[int, int]:
    """The slots that such a user may take."""
    if fails:
        return FOR_FAILING, FOR_FAILING
    return 1, SLOTS if interactive else FOR_BACKGROUND


def _lease() -> float:
    return LEASE_SECONDS + uniform(0.0, CLOCK_SECONDS)  # noqa: S311 - not a secret


def _now() -> str:
    """Seconds since the epoch, by the database's clock."""
    return (
        "((julianday('now') - 2440587.5) * 86400.0)" if is_sqlite() else "extract(epoch FROM clock_timestamp())::float8"
    )


def _free() -> str:
    """A lease further ahead than any this code writes was dated by a wrong clock."""
    return f"(held_until <= {_now()} OR held_until > {_now()} + {2 * LEASE_SECONDS})"
