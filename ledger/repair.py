"""What a lost message or a dead process left: leases that ran out, syncs that nobody was told of.

Everything here is idempotent; running it twice, or in two processes at once, does nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from database import db, execute, lock_clause, utcnow
from ledger.listing import fail_sync
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    FETCH_BACKOFF,
    LIST_BACKOFF,
    SYNC_RESEND_AFTER,
    TURNS_LOST_BY_FAILURE,
)

#: Rows repaired in one go; the next tick goes on.
BATCH = 5000


@dataclass(frozen=True, slots=True)
class SyncToSend:
    """A sync that no message is on its way for."""

    sync_id: int
    priority: int


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


def syncs_to_send(resend_after: timedelta = SYNC_RESEND_AFTER) -> list[SyncToSend]:
    """Syncs that no message is on its way for, marked sent: never sent, sent too long ago, or left by their worker."""
    now = utcnow()
    lost = now - resend_after
    with db.atomic():
        rows = execute(
            f"""
            SELECT id, priority, claimed_until IS NOT NULL FROM syncs
            WHERE finished_at IS NULL AND (
                (state = 'QUEUED' AND (sent_at IS NULL OR sent_at < ?))
                OR (state = 'LISTING' AND claimed_until < ?)
                OR (state = 'LISTING' AND claimed_until IS NULL AND (sent_at IS NULL OR sent_at < ?)
                    AND (waiting_until IS NULL OR waiting_until <= ?)))
            ORDER BY priority DESC, id LIMIT {BATCH} {lock_clause(skip_locked=True)}
            """,
            (lost, now, lost, now),
        ).fetchall()
        for sync_id, _, abandoned in rows:
            execute(
                "UPDATE syncs SET sent_at = ?, claimed_until = NULL, attempts = attempts + ? WHERE id = ?",
                (now, int(abandoned), sync_id),
            )
    return [SyncToSend(sync_id, priority) for sync_id, priority, _ in rows]


def mark_unsent(sync_id: int) -> None:
    """The message could not be sent: the next tick sends it, and does not wait to see whether it was lost."""
    execute(
        "UPDATE syncs SET sent_at = NULL WHERE id = ? AND finished_at IS NULL AND claimed_until IS NULL", (sync_id,)
    )


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
        execute("UPDATE locks SET wake_at = NULL")
        execute("UPDATE users SET refresh_claimed_until = NULL")
        execute("UPDATE refresh_slots SET held_until = 0")
