"""What a lost message or a dead process left: leases that ran out. Lost messages of syncs: `sync_window.py`.

Everything here is idempotent; running it twice, or in two processes at once, does nothing more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import uniform

from database import db, execute, lock_clause, utcnow
from ledger.listing import fail_sync
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    DEATHS_APART,
    FETCH_BACKOFF,
    LIST_BACKOFF,
    TURN_AFTER_FAILURE,
    TURN_GIVEN_UP,
    backoff,
)
from models import FetchState

#: Rows repaired in one go; the next tick goes on.
BATCH = 5000


def take_back_expired() -> int:
    """Rows whose message or worker is gone are pending or deferred again; returns how many.

    A worker that died while fetching spends an attempt: a killmail that kills its workers is put off like one that ESI
    keeps failing.
    """
    now = utcnow()
    # Without a lease no worker holds it: written by hand, and no killmail's fault.
    lost = execute(
        f"""
        WITH lost AS MATERIALIZED (
            SELECT killmail_id FROM ledger
            WHERE state IN ('sent', 'fetching')
              AND ((state = 'sent' AND claimed_until < ?) OR claimed_until IS NULL)
            ORDER BY claimed_until LIMIT {BATCH} {lock_clause(skip_locked=True)})
        UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE killmail_id IN (SELECT killmail_id FROM lost)
        RETURNING killmail_id
        """,
        (now,),
    ).fetchall()
    return len(lost) + _take_from_dead_workers(now)


def _take_from_dead_workers(lease_before: datetime | None = None) -> int:
    """Put off the rows of workers that went away: all of them, or those whose lease ended before that time."""
    ended = "" if lease_before is None else "AND claimed_until < ?"
    with db.atomic():
        rows = execute(
            f"""SELECT killmail_id, attempts + 1 FROM ledger
                WHERE state IN ('sent', 'fetching') AND state = 'fetching' {ended}
                ORDER BY claimed_until LIMIT {BATCH} {lock_clause(skip_locked=True)}""",
            () if lease_before is None else (lease_before,),
        ).fetchall()
        # One by one: they were lost together, and each waits for a time of its own.
        for killmail_id, attempts in rows:
            _put_off(killmail_id, attempts)
    return len(rows)


def _put_off(killmail_id: int, attempts: int) -> None:
    wait = _wait_after_death(attempts)
    execute(
        f"""UPDATE ledger SET state = ?, not_before = ?, attempts = ?, claimed_until = NULL, last_error = ?,
                turn = {TURN_GIVEN_UP if attempts >= ATTEMPTS_BEFORE_DEFERRED else TURN_AFTER_FAILURE}
            WHERE killmail_id = ?""",
        (
            FetchState.DEFERRED if wait else FetchState.PENDING,
            utcnow() + wait if wait else None,
            attempts,
            "the worker that held it went away",
            killmail_id,
        ),
    )


def _wait_after_death(attempts: int) -> timedelta:
    """How long a row waits on top of its lease after so many failures, the last of them a worker's death."""
    if attempts >= ATTEMPTS_BEFORE_DEFERRED:
        return backoff(FETCH_BACKOFF, attempts)
    return DEATHS_APART * uniform(0.0, 1.0) if attempts > 1 else timedelta()  # noqa: S311 - not a secret


def fail_abandoned(cooldown: timedelta = timedelta()) -> list[int]:
    """Fail the syncs whose workers went away again and again; returns their ids. `cooldown`: see `fail_sync`."""
    rows = execute(
        "SELECT id FROM syncs WHERE finished_at IS NULL AND state = 'LISTING' AND claimed_until < ? AND attempts >= ?",
        (utcnow(), len(LIST_BACKOFF)),
    ).fetchall()
    reason = "gave up: the worker reading the list went away again and again"
    return [sync_id for (sync_id,) in rows if fail_sync(sync_id, reason, cooldown=cooldown)]


def reset_unfinished() -> None:
    """For a process that knows it is alone (embedded mode at start): what was in somebody's hands is in nobody's.

    A killmail that was being fetched spends an attempt here, too: the last process may have died of it.
    """
    with db.atomic():
        execute("UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE state = 'sent'")
        _take_from_dead_workers()
        execute("UPDATE syncs SET claimed_until = NULL, sent_at = NULL WHERE finished_at IS NULL")
        execute("UPDATE locks SET wake_at = NULL, next_share_at = NULL")
        execute("UPDATE users SET refresh_claimed_until = NULL")
        execute("UPDATE refresh_slots SET held_until = 0")
