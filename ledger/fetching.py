"""Ledger rows on their way: dispatched into messages, claimed by one worker, and settled, given back or put off."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from database import as_datetime, db, execute, lock_clause, placeholders, utcnow
from killmails import Killmail
from ledger.links import withdraw_foreign
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    FETCH_BACKOFF,
    FETCH_LEASE,
    INTERACTIVE_PRIORITY,
    MAX_ERROR_LENGTH,
    SENT_LEASE,
    backoff,
)
from ledger.storing import store

log = logging.getLogger(__name__)

#: Further ahead than this, the tick is soon enough.
SOON = timedelta(seconds=90)


#: True for a row whose message is out. The first term is the index's own, word for word: SQLite takes a partial index
#: for nothing less.
_SENT = "state IN ('sent', 'fetching') AND state = 'sent'"
#: True for the row of a claim whose lease still stands (parameters: killmail_id, lease).
_HELD = "killmail_id = ? AND state = 'fetching' AND claimed_until = ?"


@dataclass(frozen=True, slots=True)
class Allowed:
    """How many requests may be made now: by anyone, and by background work. From the limiter, at one moment.

    `probe`: one request, which finds out whether ESI is up again.
    """

    interactive: int
    background: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row that was marked sent, and now has to be sent."""

    killmail_id: int
    priority: int


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's lease of a row. The hash is a secret of those whose lists the killmail stood in."""

    killmail_id: int
    killmail_hash: str
    priority: int
    attempts: int
    refusals: int  # how often in a row ESI said that there is no such killmail
    lease: datetime  # what tells this claim from another worker's, once it has run out

    def __repr__(self) -> str:
        return f"Claim(killmail_id={self.killmail_id})"


@dataclass(frozen=True, slots=True)
class Settled:
    """`stored` is false where somebody was faster or the killmail is no longer wanted; then nothing was written."""

    stored: bool
    sync_ids: tuple[int, ...] = ()


def dispatch(allowed: Allowed, window: int) -> list[Outgoing]:
    """Mark rows sent, highest priority first and newest first, and return them in that order.

    At most `window` messages are out at a time, counting for each priority only those that are not below it: a
    login's killmails never wait for a window full of background work. A probe goes first to what has failed least: a
    killmail that always fails must not keep ESI closed for the others.
    """
    with db.atomic():
        # One dispatcher at a time: two would each see the same room in the window and fill it twice.
        execute(f"SELECT name FROM locks WHERE name = 'dispatch' {lock_clause()}")
        _promote_due()
        out = dict(execute(f"SELECT priority, COUNT(*) FROM ledger WHERE {_SENT} GROUP BY priority").fetchall())
        urgent = sum(count for priority, count in out.items() if priority >= INTERACTIVE_PRIORITY)
        room = window - sum(out.values())
        if allowed.probe:
            lowest = 0 if min(allowed.background, room) > 0 else INTERACTIVE_PRIORITY
            rows = _mark_sent(lowest, 10, min(allowed.interactive, window - urgent), least_failed=True)
        else:
            rows = _mark_sent(INTERACTIVE_PRIORITY, 10, min(allowed.interactive, window - urgent))
            rows += _mark_sent(0, INTERACTIVE_PRIORITY - 1, min(allowed.background, room) - len(rows))
    rows.sort(key=lambda row: (-row.priority, -row.killmail_id))
    return rows


def upcoming() -> int:
    """Messages that are out: requests that will be made, and are not counted by the limiter yet."""
    return int(execute(f"SELECT COUNT(*) FROM ledger WHERE {_SENT}").fetchone()[0])


def has_pending(*, interactive: bool) -> bool:
    """Whether anything may go now, of this class."""
    low, high = (INTERACTIVE_PRIORITY, 10) if interactive else (0, INTERACTIVE_PRIORITY - 1)
    row = execute(
        "SELECT 1 FROM ledger WHERE state = 'pending' AND priority BETWEEN ? AND ? LIMIT 1", (low, high)
    ).fetchone()
    return row is not None


def next_due() -> datetime | None:
    """When the next deferred row becomes pending, if that is soon enough not to be left to the tick."""
    soon = utcnow() + SOON
    row = execute(
        "SELECT not_before FROM ledger WHERE state = 'deferred' AND not_before <= ? ORDER BY not_before LIMIT 1",
        (soon,),
    ).fetchone()
    return None if row is None else as_datetime(row[0])


def set_wake(at: datetime) -> bool:
    """Note that a dispatch will be sent for `at`. False: one is on its way already, for then or before."""
    now = utcnow()
    rows = execute(
        "UPDATE locks SET wake_at = ? WHERE name = 'dispatch' AND (wake_at IS NULL OR wake_at < ? OR wake_at > ?)",
        (at, now, at + timedelta(seconds=1)),
    )
    return bool(rows.rowcount)


def forget_wake(at: datetime) -> None:
    """The dispatch that `set_wake` noted was not sent."""
    execute("UPDATE locks SET wake_at = NULL WHERE name = 'dispatch' AND wake_at = ?", (at,))


def show_waiting(until: datetime, reason: str, *, interactive: bool) -> list[int]:
    """Tell the syncs whose killmails wait for a closed road until when; returns the ids of those it is news to."""
    low, high = (INTERACTIVE_PRIORITY, 10) if interactive else (0, INTERACTIVE_PRIORITY - 1)
    rows = execute(
        """
        UPDATE syncs SET waiting_until = ?, waiting_for = ?
        WHERE finished_at IS NULL AND state = 'FETCHING' AND priority BETWEEN ? AND ?
               AND (waiting_until IS NULL OR waiting_until <> ?) RETURNING id
        """,
        (until, reason[:MAX_ERROR_LENGTH], low, high, until),
    ).fetchall()
    return [sync_id for (sync_id,) in rows]


def claim(killmail_id: int) -> Claim | None:
    """sent -> fetching. None: no row, or not sent: a doubled, late or stale message ends here, at no cost."""
    lease = utcnow() + FETCH_LEASE
    row = execute(
        """
        UPDATE ledger SET state = 'fetching', claimed_until = ? WHERE killmail_id = ? AND state = 'sent'
        RETURNING killmail_hash, priority, attempts, refusals
        """,
        (lease, killmail_id),
    ).fetchone()
    if row is None:
        return None
    killmail_hash, priority, attempts, refusals = row
    return Claim(killmail_id, killmail_hash, priority, attempts, refusals, lease)


def lease_ends(killmail_id: int) -> datetime | None:
    """When the row that somebody is fetching may be taken back; None where nobody is."""
    row = execute(
        "SELECT claimed_until FROM ledger WHERE killmail_id = ? AND state = 'fetching'", (killmail_id,)
    ).fetchone()
    return None if row is None else as_datetime(row[0])


def release(claim: Claim) -> None:
    """fetching -> pending: nothing was asked of ESI, or ESI asked us to wait. No attempt is spent."""
    execute(
        f"UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE {_HELD}", (claim.killmail_id, claim.lease)
    )


def give_back(killmail_ids: list[int]) -> None:
    """sent -> pending, for messages that could not be sent."""
    if killmail_ids:
        execute(
            f"""UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE killmail_id IN (
                    SELECT killmail_id FROM ledger
                    WHERE state = 'sent' AND killmail_id IN ({placeholders(killmail_ids)})
                    ORDER BY killmail_id {lock_clause()})""",
            killmail_ids,
        )


def settle(claim: Claim, killmail: Killmail) -> Settled:
    """Store the killmail and strike it off the ledger, in one transaction.

    A worker whose lease ran out may still settle: what it brings is as good, whoever holds the row now.

    The links of pilots whom the body does not name are deleted in the same transaction.

    Returns the syncs that waited for it; whether one of them is complete is asked after the commit, in a statement
    of its own: inside this transaction two last workers would not see each other.
    """
    killmail_id = claim.killmail_id
    if killmail.killmail_id != killmail_id:
        raise ValueError(f"claimed killmail {killmail_id}, got the body of {killmail.killmail_id}")
    with db.atomic():
        mine = execute("DELETE FROM ledger WHERE killmail_id = ? AND state = 'fetching'", (killmail_id,))
        if not mine.rowcount or not store(killmail, claim.killmail_hash):
            return Settled(stored=False)
        rows = execute("DELETE FROM sync_items WHERE killmail_id = ? RETURNING sync_id", (killmail_id,)).fetchall()
        foreign = withdraw_foreign(killmail)
    for user_id in foreign:
        log.warning("killmail %s: it does not name user %s, whose list had it; hidden from them", killmail_id, user_id)
    return Settled(stored=True, sync_ids=tuple(sync_id for (sync_id,) in rows))


def defer(claim: Claim, error: str, *, refused: bool = False, retry_after: float | None = None) -> tuple[int, ...]:
    """fetching -> deferred after a failure; returns the syncs that this may have completed.

    The first failures are tried again within a minute or two. After ATTEMPTS_BEFORE_DEFERRED the syncs count the
    killmail as failed and end without it, and the ledger goes on by itself. `refused`: ESI said that there is no such
    killmail, which it is not believed at once. `retry_after`: seconds that ESI asked to wait; not tried again before.
    """
    attempts = claim.attempts + 1
    row = execute(
        f"""UPDATE ledger SET state = 'deferred', attempts = attempts + 1, not_before = ?, claimed_until = NULL,
            last_error = ?, refusals = ? WHERE {_HELD} RETURNING attempts""",
        (
            utcnow() + max(backoff(FETCH_BACKOFF, attempts), timedelta(seconds=retry_after or 0.0)),
            error[:MAX_ERROR_LENGTH],
            claim.refusals + 1 if refused else 0,
            claim.killmail_id,
            claim.lease,
        ),
    ).fetchone()
    return _wanting(claim.killmail_id) if row and row[0] >= ATTEMPTS_BEFORE_DEFERRED else ()


def reject(claim: Claim, error: str) -> tuple[int, ...]:
    """fetching -> rejected: ESI says there is no such killmail. Returns the syncs that this may have completed."""
    execute(
        f"""UPDATE ledger SET state = 'rejected', attempts = attempts + 1, claimed_until = NULL, last_error = ?
            WHERE {_HELD}""",
        (error[:MAX_ERROR_LENGTH], claim.killmail_id, claim.lease),
    )
    return _wanting(claim.killmail_id)


def _wanting(killmail_id: int) -> tuple[int, ...]:
    rows = execute("SELECT sync_id FROM sync_items WHERE killmail_id = ?", (killmail_id,)).fetchall()
    return tuple(sync_id for (sync_id,) in rows)


def _promote_due() -> None:
    """deferred -> pending where the time has come. Rows in other hands are left for the next look."""
    execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT killmail_id FROM ledger
            WHERE state = 'deferred' AND (not_before IS NULL OR not_before <= ?) LIMIT 1000
            {lock_clause(skip_locked=True)})
        UPDATE ledger SET state = 'pending', not_before = NULL WHERE killmail_id IN (SELECT killmail_id FROM due)
        """,
        (utcnow(),),
    )


def _mark_sent(lowest: int, highest: int, count: int, *, least_failed: bool = False) -> list[Outgoing]:
    if count <= 0:
        return []
    # Attempts stand in no index: all that is pending is sorted, once for each probe.
    order = "attempts, priority DESC, killmail_id DESC" if least_failed else "priority DESC, killmail_id DESC"
    # MATERIALIZED: as a plain sub-select PostgreSQL may run it again for every row, and so past its limit.
    rows: Any = execute(
        f"""
        WITH picked AS MATERIALIZED (
            SELECT killmail_id FROM ledger WHERE state = 'pending' AND priority BETWEEN ? AND ?
            ORDER BY {order} LIMIT ? {lock_clause(skip_locked=True)})
        UPDATE ledger SET state = 'sent', claimed_until = ? WHERE killmail_id IN (SELECT killmail_id FROM picked)
        RETURNING killmail_id, priority
        """,
        (lowest, highest, count, utcnow() + SENT_LEASE),
    ).fetchall()
    return [Outgoing(*row) for row in rows]
