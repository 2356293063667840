"""Which syncs get a message next: the backlog is the rows of `syncs`, and a window of messages is out at a time.

The invariants: one dispatcher chooses at a time (row 'syncs' of `locks`); at most a window of messages is out, counted
for each class of priority without what is below it; background always keeps a share. `sent_at IS NULL` means that no
message is out for a sync. Whether a gate is closed, and whether killmails go first, is decided by the caller.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from clock import CLOCKS_APART
from database import as_datetime, db, execute, lock_clause, placeholders, utcnow
from ledger import pending_syncs
from ledger.dispatching import has_pending
from ledger.pending_syncs import ACTIVE, PENDING, PendingSync
from ledger.rules import INTERACTIVE_PRIORITY, LIST_BACKOFF

#: Syncs whose wait or lease has ended, made pending in one go; the next look goes on.
BATCH = 1_000
#: The part of all messages, of all threads and of all requests that background keeps while interactive work goes first.
SHARE = 10
#: Seconds of share that may be saved up: what is not used is lost.
SHARE_SAVED = timedelta(seconds=1)

#: True for a sync whose message is out.
_SENT = f"{ACTIVE} AND sent_at IS NOT NULL AND claimed_until IS NULL AND waiting_until IS NULL"


@dataclass(frozen=True, slots=True)
class SyncRoom:
    """What may be sent now.

    `window`: messages that may be out. `lowest`: only syncs of this priority or a higher one. `probe`: one message,
    which finds out whether ESI is up again. `refreshes`: how many syncs may need another access token; None: all.
    `fetching`: interactive killmails go first, so that background gets its share only; so many of them are being
    fetched. None: none do. `share_interval`: the time between two background syncs in that case.
    """

    window: int
    lowest: int = 0
    probe: bool = False
    refreshes: int | None = None
    fetching: int | None = None
    share_interval: timedelta = SHARE_SAVED


@dataclass(frozen=True, slots=True)
class OutgoingSync:
    """A sync that was marked sent, and now has to be sent at this priority: a share goes with the interactive ones."""

    sync_id: int
    priority: int


@dataclass(frozen=True, slots=True)
class InteractiveFetches:
    """The killmails of pilots who wait for them: whether any is pending, and how many are sent and being fetched."""

    pending: bool
    sent: int
    fetching: int

    def __bool__(self) -> bool:
        return self.pending or self.sent > 0 or self.fetching > 0


def choose_syncs(room: SyncRoom) -> list[OutgoingSync]:
    """Mark syncs sent, highest priority first and the oldest of those first, and return them in that order."""
    now = utcnow()
    with db.atomic():
        # One dispatcher at a time: two would each see the same room in the window and fill it twice.
        [(share_at,)] = execute(f"SELECT next_share_at FROM locks WHERE name = 'syncs' {lock_clause()}").fetchall()
        _end_waits(now)
        _take_back_abandoned(now)
        out = dict(execute(f"SELECT priority, COUNT(*) FROM syncs WHERE {_SENT} GROUP BY priority").fetchall())
        background = sum(count for priority, count in out.items() if priority < INTERACTIVE_PRIORITY)
        total = sum(out.values())
        looked = None if room.refreshes is None else _look(room)
        if room.probe:
            return [] if total else _mark(_probe_of_esi(room, looked), now)
        chosen = _mark_sent(room, INTERACTIVE_PRIORITY, 10, room.window - (total - background), now, looked)
        left = room.window - total - len(chosen)
        if room.refreshes and looked and left > 0:
            chosen += _mark(_least_failed([sync for sync in looked if not sync.has_token]), now)
        if room.fetching is not None:
            return chosen + _beside_killmails(room, room.fetching, background, share_at, now, looked)
        highest = INTERACTIVE_PRIORITY - 1
        if left > 0:
            return chosen + _mark_sent(room, 0, highest, left - 1 if room.refreshes else left, now, looked)
        return chosen + _as_share(_mark_sent(room, 0, highest, _share_of(room.window) - background, now, looked))


def _look(room: SyncRoom) -> list[PendingSync]:
    """The pending syncs that may be chosen from while not all of them can be read. Bounded, however many there are."""
    return pending_syncs.first_pending(room.lowest) if room.lowest else pending_syncs.look()


def _probe_of_esi(room: SyncRoom, looked: list[PendingSync] | None) -> list[PendingSync]:
    """One sync, whose list finds out whether ESI is up again.

    Where none can be read without the login service, it finds out about that, too, if it may.
    """
    if looked is None:
        return _least_failed(pending_syncs.first_pending(room.lowest))
    readable = [sync for sync in looked if sync.has_token]
    return _least_failed(readable or (looked if room.refreshes else []))


def _least_failed(syncs: list[PendingSync]) -> list[PendingSync]:
    """One of those that failed least, if any: what always fails must not be every probe, or it would keep a gate closed
    for the others."""
    least = min((sync.failures for sync in syncs), default=None)
    fresh = [sync for sync in syncs if sync.failures == least]
    return [random.choice(fresh)] if fresh else []  # noqa: S311 - not a secret


def _beside_killmails(
    room: SyncRoom,
    fetching: int,
    background: int,
    share_at: datetime | str | None,
    now: datetime,
    looked: list[PendingSync] | None,
) -> list[OutgoingSync]:
    """Background's share while interactive killmails go first: paced, and few enough for the threads.

    Without a limit in threads, an ESI that answers slowly would fill them all with lists.
    """
    begins = _share_from(None if share_at is None else as_datetime(share_at), room.share_interval, now)
    paced = int((now - begins) / room.share_interval) + 1 if begins <= now else 0
    count = min(paced, _share_of(fetching) - background - _background_listing(now))
    chosen = _mark_sent(room, 0, INTERACTIVE_PRIORITY - 1, count, now, looked)
    if chosen:
        spent = begins + room.share_interval * len(chosen)
        execute("UPDATE locks SET next_share_at = ? WHERE name = 'syncs'", (spent,))
    return _as_share(chosen)


def _share_of(whole: int) -> int:
    return max(1, whole // SHARE)


def _as_share(chosen: list[OutgoingSync]) -> list[OutgoingSync]:
    """RabbitMQ hands out the highest priority first: below the interactive ones a share would never get its turn."""
    return [OutgoingSync(sync.sync_id, INTERACTIVE_PRIORITY) for sync in chosen]


def mark_unsent(sync_ids: list[int]) -> None:
    """No message is out for these syncs: it could not be sent, or it went back before anything was done."""
    if sync_ids:
        execute(
            f"""UPDATE syncs SET sent_at = NULL WHERE id IN (
                    SELECT id FROM syncs WHERE {_SENT} AND id IN ({placeholders(sync_ids)})
                    ORDER BY id {lock_clause()})""",
            sync_ids,
        )


def overdue_messages(before: datetime) -> tuple[int, int]:
    """How many sync messages are out, and how many of them were sent before that time."""
    row = execute(
        f"""SELECT COUNT(*), COALESCE(SUM(CASE WHEN sent_at < ? OR sent_at > ? THEN 1 ELSE 0 END), 0)
            FROM syncs WHERE {_SENT}""",
        (before, utcnow() + CLOCKS_APART),
    ).fetchone()
    return int(row[0]), int(row[1])


def take_back_lost(before: datetime, count: int) -> int:
    """The oldest `count` syncs that were sent before that time are pending again; returns how many there were."""
    rows = execute(
        f"""
        WITH lost AS MATERIALIZED (
            SELECT id FROM syncs WHERE {_SENT} AND (sent_at < ? OR sent_at > ?)
            ORDER BY sent_at, id LIMIT ? {lock_clause(skip_locked=True)})
        UPDATE syncs SET sent_at = NULL WHERE id IN (SELECT id FROM lost) RETURNING id
        """,
        # A time in the future means clock skew.
        (before, utcnow() + CLOCKS_APART, count),
    )
    return len(rows.fetchall())


def has_pending_sync(lowest: int = 0, highest: int = 10) -> bool:
    """Whether any sync of these priorities may be sent."""
    row = execute(f"SELECT 1 FROM syncs WHERE {PENDING} AND priority BETWEEN ? AND ? LIMIT 1", (lowest, highest))
    return row.fetchone() is not None


def any_sync_to_read() -> bool:
    """Whether any list may be read now, or a message for one is out."""
    return any(execute(f"SELECT 1 FROM syncs WHERE {which} LIMIT 1").fetchone() for which in (PENDING, _SENT))


def pending_background() -> int:
    """How many background syncs have not been sent yet."""
    return int(
        execute(f"SELECT COUNT(*) FROM syncs WHERE {PENDING} AND priority < ?", (INTERACTIVE_PRIORITY,)).fetchone()[0]
    )


def interactive_fetches() -> InteractiveFetches:
    """The killmails of pilots who wait for them, not stored yet and not put off.

    Those that ESI is likely to refuse go slowly, whoever makes room for them: pending, they do not count. None where no
    interactive sync is active: what a sync gave up keeps its interactive priority.
    """
    waits = f"SELECT 1 FROM syncs WHERE finished_at IS NULL AND priority >= {INTERACTIVE_PRIORITY} LIMIT 1"
    if execute(waits).fetchone() is None:
        return InteractiveFetches(pending=False, sent=0, fetching=0)
    [(sent, fetching)] = execute(
        f"""
        SELECT COALESCE(SUM(CASE WHEN state = 'sent' THEN 1 ELSE 0 END), 0),
               COALESCE(SUM(CASE WHEN state = 'fetching' THEN 1 ELSE 0 END), 0)
        FROM ledger WHERE state IN ('sent', 'fetching') AND priority >= {INTERACTIVE_PRIORITY}
        """
    ).fetchall()
    return InteractiveFetches(has_pending(interactive=True, doubtful=False), int(sent), int(fetching))


def next_sync_wait() -> datetime | None:
    """When the next sync's wait ends; None where none waits."""
    row = execute(f"SELECT MIN(waiting_until) FROM syncs WHERE {ACTIVE} AND waiting_until IS NOT NULL").fetchone()
    return None if row[0] is None else as_datetime(row[0])


def next_share() -> datetime:
    """When background's share allows the next sync."""
    row = execute("SELECT next_share_at FROM locks WHERE name = 'syncs'").fetchone()
    return utcnow() if row is None or row[0] is None else max(utcnow(), as_datetime(row[0]))


def set_sync_wake(at: datetime) -> bool:
    """Note that a dispatch of syncs will be sent for `at`. False: one is on its way already, for then or before."""
    rows = execute(
        "UPDATE locks SET wake_at = ? WHERE name = 'syncs' AND (wake_at IS NULL OR wake_at < ? OR wake_at > ?)",
        (at, utcnow(), at + timedelta(seconds=1)),
    )
    return bool(rows.rowcount)


def forget_sync_wake(at: datetime) -> None:
    """The dispatch that `set_sync_wake` noted was not sent."""
    execute("UPDATE locks SET wake_at = NULL WHERE name = 'syncs' AND wake_at = ?", (at,))


def _end_waits(now: datetime) -> None:
    execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM syncs
            WHERE {ACTIVE} AND waiting_until IS NOT NULL AND waiting_until <= ? AND claimed_until IS NULL
            LIMIT {BATCH} {lock_clause(skip_locked=True)})
        UPDATE syncs SET waiting_until = NULL, waiting_for = NULL, sent_at = NULL WHERE id IN (SELECT id FROM due)
        """,
        (now,),
    )


def _take_back_abandoned(now: datetime) -> None:
    """Syncs whose worker is gone. Those whose workers went away again and again are failed by the tick."""
    execute(
        f"""
        WITH abandoned AS MATERIALIZED (
            SELECT id FROM syncs
            WHERE {ACTIVE} AND claimed_until IS NOT NULL AND claimed_until < ? AND attempts < {len(LIST_BACKOFF)}
            LIMIT {BATCH} {lock_clause(skip_locked=True)})
        UPDATE syncs SET claimed_until = NULL, waiting_until = NULL, waiting_for = NULL, sent_at = NULL,
                         attempts = attempts + 1
        WHERE id IN (SELECT id FROM abandoned)
        """,
        (now,),
    )


def _background_listing(now: datetime) -> int:
    """Background syncs whose lists are being read."""
    row = execute(
        f"SELECT COUNT(*) FROM syncs WHERE {ACTIVE} AND claimed_until IS NOT NULL AND claimed_until >= ? "
        "AND priority < ?",
        (now, INTERACTIVE_PRIORITY),
    ).fetchone()
    return int(row[0])


def _share_from(next_share_at: datetime | None, interval: timedelta, now: datetime) -> datetime:
    """The time from which background's share has not been used: what is older than SHARE_SAVED is lost."""
    oldest = now - max(timedelta(0), SHARE_SAVED - interval)
    # Implausibly far ahead: clock skew.
    if next_share_at is None or next_share_at > now + interval + CLOCKS_APART:
        return oldest
    return max(oldest, next_share_at)


def _mark_sent(
    room: SyncRoom, lowest: int, highest: int, count: int, now: datetime, looked: list[PendingSync] | None
) -> list[OutgoingSync]:
    """`looked`: only these, and of them only those that can be read without another access token. None: any."""
    lowest = max(lowest, room.lowest)
    if count <= 0 or highest < lowest:
        return []
    if looked is not None:
        return _mark([sync for sync in looked if sync.has_token and lowest <= sync.priority <= highest][:count], now)
    # MATERIALIZED: as a plain sub-select PostgreSQL may run it again for every row, and so past its limit.
    rows = execute(
        f"""
        WITH picked AS MATERIALIZED (
            SELECT id FROM syncs WHERE {PENDING} AND priority BETWEEN ? AND ?
            ORDER BY priority DESC, id LIMIT ? {lock_clause(skip_locked=True)})
        UPDATE syncs SET sent_at = ? WHERE id IN (SELECT id FROM picked) RETURNING id, priority
        """,
        (lowest, highest, count, now),
    ).fetchall()
    return _in_order(rows)


def _mark(syncs: list[PendingSync], now: datetime) -> list[OutgoingSync]:
    """Those that are still pending, and that no other transaction holds."""
    if not syncs:
        return []
    ids = [sync.sync_id for sync in syncs]
    rows = execute(
        f"""
        UPDATE syncs SET sent_at = ? WHERE id IN (
            SELECT id FROM syncs WHERE {PENDING} AND id IN ({placeholders(ids)})
            ORDER BY id {lock_clause(skip_locked=True)}) RETURNING id, priority
        """,
        (now, *ids),
    ).fetchall()
    return _in_order(rows)


def _in_order(rows: Iterable[tuple[int, int]]) -> list[OutgoingSync]:
    return sorted((OutgoingSync(*row) for row in rows), key=lambda sync: (-sync.priority, sync.sync_id))
