"""When a sync is done, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from database import as_datetime, db, execute, lock_clause, placeholders, utcnow
from ledger.foreign_lists import describe
from ledger.forgetting import forget_ended
from ledger.listing import ClaimedSync
from ledger.rules import DOUBTFUL, UNSETTLED

#: True for a sync (alias s) that waits for nothing. The sub-select stops at the first row that is still to come: a plan
#: that first joined everything would make every stored killmail as dear as the whole sync. No join, a range, and the
#: primary key's order: believing that any row is this sync's, PostgreSQL would read everybody's, by the ledger or by
#: killmail_id, until it meets the first of them.
_COMPLETE = f"""
    s.state = 'FETCHING' AND (
        SELECT 1 FROM sync_items i
        WHERE i.sync_id BETWEEN s.id AND s.id
          AND (SELECT 1 FROM ledger l WHERE l.killmail_id = i.killmail_id AND {UNSETTLED}) IS NOT NULL
        ORDER BY i.sync_id, i.killmail_id LIMIT 1) IS NULL
"""


#: The newest killmail of a user's that is stored.
_LAST_KILLMAIL = """
    SELECT u.killmail_id FROM user_killmails u
    WHERE u.user_id = ? AND EXISTS (SELECT 1 FROM killmails k WHERE k.killmail_id = u.killmail_id)
    ORDER BY u.killmail_id DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """Live counts of a sync: of what was not stored when it was listed.

    `retrying`: of `pending`, those that failed and are tried again; the first of them not before `retry_at`.
    `doubtful`: of `pending`, those that could be sent now, but that ESI is likely to refuse.
    """

    saved: int
    failed: int
    pending: int
    retrying: int = 0
    retry_at: datetime | None = None
    doubtful: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A sync that ended well, for its one line in the log."""

    sync_id: int
    user_id: int
    found: int
    saved: int
    skipped: int
    failed: int
    last_killmail_id: int | None


def ready_to_finish(sync_ids: Sequence[int] | None = None) -> list[int]:
    """Which of these syncs (or of all) wait for nothing any more."""
    if sync_ids is None:
        rows = execute(f"SELECT s.id FROM syncs s WHERE s.finished_at IS NULL AND {_COMPLETE}")
    elif sync_ids:
        rows = execute(f"SELECT s.id FROM syncs s WHERE s.id IN ({placeholders(sync_ids)}) AND {_COMPLETE}", sync_ids)
    else:
        return []
    return [sync_id for (sync_id,) in rows.fetchall()]


def finalize(sync_id: int, cooldown: timedelta) -> Finished | None:
    """FETCHING -> FINISHED, counted, and the user's next sync set. None: not complete, or another call was first."""
    now = utcnow()
    with db.atomic():
        # Locked first: whoever changes what the sync waits for holds its row, and this waits for them and then looks.
        execute(f"SELECT id FROM syncs WHERE id = ? {lock_clause()}", (sync_id,))
        row = execute(
            f"""
            UPDATE syncs AS s SET state = 'FINISHED', finished_at = ?, waiting_until = NULL, waiting_for = NULL,
                failed = (SELECT COUNT(*) FROM sync_items i JOIN ledger l ON l.killmail_id = i.killmail_id
                          WHERE i.sync_id = s.id)
            WHERE s.id = ? AND {_COMPLETE}
            RETURNING user_id, found, skipped, failed, foreign_entries, error
            """,
            (now, sync_id),
        ).fetchone()
        if row is None:
            return None
        user_id, found, skipped, failed, foreign, error = row
        saved = found - skipped - failed
        told = "; ".join(filter(None, (error, describe(foreign)))) or None
        execute("UPDATE syncs SET saved = ?, error = ? WHERE id = ?", (saved, told, sync_id))
        last = _record(user_id, now, cooldown)
    forget_ended(user_id)
    return Finished(sync_id, user_id, found, saved, skipped, failed, last)


def sync_progress(sync_ids: Sequence[int]) -> dict[int, Progress]:
    """Live counts of active syncs. Those of an ended one are in its row."""
    if not sync_ids:
        return {}
    retrying = f"l.state = 'deferred' AND {UNSETTLED}"
    rows = execute(
        f"""
        SELECT s.id, s.found - s.skipped, COUNT(l.killmail_id),
               COALESCE(SUM(CASE WHEN {UNSETTLED} THEN 1 ELSE 0 END), 0),
               COALESCE(SUM(CASE WHEN {retrying} THEN 1 ELSE 0 END), 0),
               MIN(CASE WHEN {retrying} THEN l.not_before END),
               COALESCE(SUM(CASE WHEN l.state = 'pending' AND {UNSETTLED} AND {DOUBTFUL} THEN 1 ELSE 0 END), 0)
        FROM syncs s
        LEFT JOIN sync_items i ON i.sync_id = s.id
        LEFT JOIN ledger l ON l.killmail_id = i.killmail_id
        WHERE s.id IN ({placeholders(sync_ids)})
        GROUP BY s.id, s.found, s.skipped
        """,
        list(sync_ids),
    ).fetchall()
    # While a list is read again from its start, more may be remaining than has been counted again.
    return {
        sync_id: Progress(
            saved=max(0, wanted - remaining),
            failed=remaining - int(pending),
            pending=int(pending),
            retrying=int(retrying),
            retry_at=None if retry_at is None else as_datetime(retry_at),
            doubtful=int(doubtful),
        )
        for sync_id, wanted, remaining, pending, retrying, retry_at, doubtful in rows
    }


def waiting_for_retries(killmail_id: int) -> list[int]:
    """Of the syncs that want this killmail, those that have none left but killmails that failed and are tried again."""
    rows = execute(
        """
        SELECT s.id FROM sync_items i JOIN syncs s ON s.id = i.sync_id
        WHERE i.killmail_id = ? AND s.state = 'FETCHING'
          AND NOT EXISTS (SELECT 1 FROM sync_items o JOIN ledger l ON l.killmail_id = o.killmail_id
                          WHERE o.sync_id = s.id AND l.state IN ('pending', 'sent', 'fetching'))
        """,
        (killmail_id,),
    ).fetchall()
    return [sync_id for (sync_id,) in rows]


def finish_unchanged(sync: ClaimedSync, *, fresh_for: float, cooldown: timedelta) -> bool:
    """LISTING -> FINISHED at once, for a sync that found its list unchanged (304) and so wants nothing.

    `fresh_for`: see `add_page`. False, and nothing is written: the lease is lost, or the sync is not that simple: a
    full one was asked for meanwhile, somebody waits for it in person now, it has read pages before, or a killmail of
    an earlier list turned out not to name the pilot.
    """
    now = utcnow()
    with db.atomic():
        ended = execute(
            """
            UPDATE syncs SET state = 'FINISHED', finished_at = ?, claimed_until = NULL, waiting_until = NULL,
                             waiting_for = NULL, error = NULL, saved = 0, failed = 0
            WHERE id = ? AND state = 'LISTING' AND claimed_until = ? AND "full" = ? AND priority = ? AND next_page = 1
              AND NOT list_moved
              AND NOT EXISTS (SELECT 1 FROM sync_items WHERE sync_id = ?)
            """,
            (now, sync.sync_id, sync.lease, sync.full, sync.priority, sync.sync_id),
        )
        if not ended.rowcount:
            return False
        _record(sync.user_id, now, cooldown, unchanged_until=now + timedelta(seconds=fresh_for))
    forget_ended(sync.user_id)
    return True


def _record(user_id: int, now: datetime, cooldown: timedelta, *, unchanged_until: datetime | None = None) -> int | None:
    """What the user sees of it; returns the newest stored killmail. A user who may not be synced any more
    (`next_sync_at` null) stays so. `unchanged_until`: the list was found unchanged, and ESI's cache says so until then.
    """
    row = execute(
        f"""
        UPDATE users SET last_killmail_sync_at = ?, last_killmail_id = ({_LAST_KILLMAIL}), consecutive_failures = 0,
            next_sync_at = CASE WHEN next_sync_at IS NULL THEN NULL WHEN full_requested THEN ? ELSE ? END,
            list_fresh_until = COALESCE(?, list_fresh_until), last_sync_complete = last_sync_complete OR ?
        WHERE id = ? RETURNING last_killmail_id
        """,
        (now, user_id, now, now + cooldown, unchanged_until, unchanged_until is not None, user_id),
    ).fetchone()
    return row[0] if row else None
