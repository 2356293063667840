"""What a lost message or a dead process left: leases that ran out. Lost messages of syncs: `sync_window.py`.

Everything here is idempotent; running it twice, or in two processes at once, does nothing more.
"""

from __future__ import annotations

from datetime import timedelta

from database import db, execute, lock_clause, utcnow
from ledger.listing import fail_sync
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    FETCH_BACKOFF,
    LIST_BACKOFF,
    TURNS_LOST_BY_FAILURE,
)

#: Rows repaired in one go; the next tick goes on.
BATCH = 5000


def take_back_expired() -> int:
    """Rows whose message or worker is gone go back to pending; returns how many.

    A worker that died while fetching spends an attempt: a killmail that kills its workers is put off like any other.
    """
    now = utcnow()
    deadly = f"state = 'fetching' AND attempts + 1 >= {ATTEMPTS_BEFORE_DEFERRED}"
    rows = execute(
        f"""
        WITH expired AS MATERIALIZED (
            SELECT killmail_id FROM ledger
            WHERE state IN ('sent', 'fetching') AND (claimed_until IS NULL OR claimed_until < ?)
            ORDER BY claimed_until LIMIT {BATCH} {lock_clause(skip_locked=True)})
        UPDATE ledger SET
            not_before = CASE WHEN {deadly} THEN ? ELSE NULL END,
            last_error = CASE WHEN state = 'fetching' THEN 'the worker that held it went away' ELSE last_error END,
            attempts = attempts + CASE WHEN state = 'fetching' THEN 1 ELSE 0 END,
            turn = turn + CASE WHEN state = 'fetching' THEN {TURNS_LOST_BY_FAILURE} ELSE 0 END,
            state = CASE WHEN {deadly} THEN 'deferred' ELSE 'pending' END,
            claimed_until = NULL
        WHERE killmail_id IN (SELECT killmail_id FROM expired)
        RETURNING killmail_id
        """,
        (now, now + FETCH_BACKOFF[ATTEMPTS_BEFORE_DEFERRED - 1]),
    )
    return len(rows.fetchall())


def fail_abandoned(cooldown: timedelta = timedelta()) -> list[int]:
    """Fail the syncs whose workers went away again and again; returns their ids. `cooldown`: see `fail_sync`."""
    rows = execute(
        "SELECT id FROM syncs WHERE finished_at IS NULL AND state = 'LISTING' AND claimed_until < ? AND attempts >= ?",
        (utcnow(), len(LIST_BACKOFF)),
    ).fetchall()
    reason = "gave up: the worker reading the list went away again and again"
    return [sync_id for (sync_id,) in rows if fail_sync(sync_id, reason, cooldown=cooldown)]


def reset_unfinished() -> None:
    """For a process that knows it is alone (embedded mode at start): what was in somebody's hands is in nobody's."""
    with db.atomic():
        execute("UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE state IN ('sent', 'fetching')")
        execute("UPDATE syncs SET claimed_until = NULL, sent_at = NULL WHERE finished_at IS NULL")
        execute("UPDATE locks SET wake_at = NULL, next_share_at = NULL")
        execute("UPDATE users SET refresh_claimed_until = NULL")
        execute("UPDATE refresh_slots SET held_until = 0")
