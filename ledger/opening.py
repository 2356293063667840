"""Open a sync: at most one active a user, whoever asks and however often."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from clock import CLOCKS_APART
from database import db, execute, lock_clause, placeholders, utcnow
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    ESI_ASKS_TO_WAIT,
    FRESH_TRY,
    FULL_WALK_EVERY,
    INTERACTIVE_PRIORITY,
    PRIORITY_OF_TRIGGER,
)
from models import Sync, SyncState, Trigger, User


class Outcome(StrEnum):
    """What came of asking for a sync."""

    CREATED = "created"
    JOINED = "joined"  # one was active: it was raised to this priority where that is higher
    COOLDOWN = "cooldown"
    NOT_ELIGIBLE = "not eligible"  # no such user, or nothing that ESI would accept


@dataclass(frozen=True, slots=True)
class Opened:
    """The sync, and whether it may be sent now that the transaction is over."""

    outcome: Outcome
    sync_id: int | None = None
    send: bool = False
    dispatch: bool = False  # killmails of an active sync were raised: some of them may go at once
    priority: int = 0
    full: bool = False
    first: bool = False
    last_synced_at: datetime | None = None
    cooldown_ends_at: datetime | None = None


def open_sync(
    user_id: int, trigger: Trigger, *, cooldown: timedelta, full: bool = False, force: bool = False
) -> Opened:
    """Make the user's sync, or join the active one. `force` ignores the cool-down and nothing else.

    Writes rows only: the dispatcher of syncs sends what is pending.
    """
    while True:
        opened = _try_to_open(user_id, PRIORITY_OF_TRIGGER[trigger], trigger, cooldown, full=full, force=force)
        if opened is not None:
            return opened


def _try_to_open(
    user_id: int, priority: int, trigger: Trigger, cooldown: timedelta, *, full: bool, force: bool
) -> Opened | None:
    """None, and nothing is written: another caller opened a sync after this one looked. It is locked before the user,
    and so only in a new transaction: two callers that hold one of the two would wait for each other."""
    now = utcnow()
    with db.atomic():
        # Order of locks, here as everywhere: sync, user, ledger rows by id.
        held = execute(
            f"SELECT id FROM syncs WHERE user_id = ? AND finished_at IS NULL {lock_clause()}", (user_id,)
        ).fetchall()
        user = _locked_user(user_id)
        if user is None or user.next_sync_at is None:
            return Opened(Outcome.NOT_ELIGIBLE)
        active = Sync.get_or_none((Sync.user == user_id) & Sync.finished_at.is_null())
        if active is not None:
            return _join(active, user, priority, full=full, now=now) if (active.id,) in held else None
        last = user.last_killmail_sync_at
        # One that lies ahead was written by a clock that has been set back since; a little is only another machine's.
        if not force and last and last - CLOCKS_APART <= now < last + cooldown:
            return Opened(Outcome.COOLDOWN, last_synced_at=last, cooldown_ends_at=last + cooldown)
        walk_due = user.last_full_sync_at is None or user.last_full_sync_at < now - FULL_WALK_EVERY
        first = user.last_full_sync_at is None and user.last_killmail_sync_at is None
        whole = full or user.full_requested or walk_due
        sync_id = Sync.insert(user=user_id, trigger=trigger, priority=priority, full=whole, queued_at=now).execute()
        if user.full_requested:
            User.update(full_requested=False).where(User.id == user_id).execute()
        return Opened(
            Outcome.CREATED,
            sync_id,
            send=True,
            priority=priority,
            full=whole,
            first=first,
            last_synced_at=user.last_killmail_sync_at,
        )


def open_due_syncs(limit: int) -> list[int]:
    """Open a sync for up to `limit` users who are due and have none active; returns the ids of the syncs."""
    now = utcnow()
    with db.atomic():
        # Users first, locked, as everywhere; one that is being logged in or unlinked is left for the next look.
        # No anti-join: knowing of few syncs, PostgreSQL compares every user who is due with every active one.
        rows = execute(
            f"""
            WITH due AS MATERIALIZED (
                SELECT u.id, u.full_requested OR u.last_full_sync_at IS NULL OR u.last_full_sync_at < ? AS whole
                FROM users u
                WHERE u.next_sync_at <= ?
                  AND (SELECT 1 FROM syncs s WHERE s.user_id = u.id AND s.finished_at IS NULL LIMIT 1) IS NULL
                ORDER BY u.next_sync_at, u.id LIMIT ? {lock_clause(skip_locked=True)})
            INSERT INTO syncs (user_id, trigger, priority, "full", state, queued_at,
                               next_page, found, skipped, saved, failed, attempts)
            SELECT id, 'SCHEDULE', ?, whole, 'QUEUED', ?, 1, 0, 0, 0, 0, 0 FROM due WHERE TRUE
            ON CONFLICT DO NOTHING
            RETURNING id, user_id, "full"
            """,
            (now - FULL_WALK_EVERY, now, limit, PRIORITY_OF_TRIGGER[Trigger.SCHEDULE], now),
        ).fetchall()
        users = [user_id for _, user_id, whole in rows if whole]
        if users:
            execute(
                f"UPDATE users SET full_requested = FALSE WHERE full_requested AND id IN ({placeholders(users)})", users
            )
    return [sync_id for sync_id, _, _ in rows]


def _locked_user(user_id: int) -> User | None:
    """The user, locked until the transaction ends: what is decided about their syncs is decided one at a time."""
    execute(f"SELECT id FROM users WHERE id = ? {lock_clause()}", (user_id,))
    return User.get_or_none(User.id == user_id)


def _join(active: Sync, user: User, priority: int, *, full: bool, now: datetime) -> Opened:
    raised = priority > active.priority
    changes: dict[str, object] = {}
    if raised:
        changes["priority"] = priority
        _raise_fetches(active.id, priority)
    if full and active.state == SyncState.FETCHING:
        User.update(full_requested=True).where(User.id == active.user_id).execute()
    elif full and not active.full:
        # A list half read is read again from the start.
        changes |= {"full": True, "next_page": 1}
    resend = active.state == SyncState.QUEUED and (raised or active.sent_at is None)
    if raised and priority >= INTERACTIVE_PRIORITY and _may_stop_waiting(active, user, now):
        # Most waits are background's, or for what a login has just mended. Whoever still has to wait is told anew.
        changes |= {"waiting_until": None, "waiting_for": None}
        resend = resend or active.state == SyncState.LISTING
    if resend:
        changes["sent_at"] = None
    if changes:
        Sync.update(**changes).where(Sync.id == active.id).execute()
    return Opened(
        Outcome.JOINED,
        active.id,
        send=resend,
        dispatch=raised and active.state == SyncState.FETCHING,
        priority=max(priority, active.priority),
        full=active.full or full,
    )


def _may_stop_waiting(active: Sync, user: User, now: datetime) -> bool:
    """Whether the sync waits, in nobody's hands, and not for what ESI asks of everybody: its cache, its Retry-After."""
    if active.state == SyncState.FETCHING:
        return True
    if active.waiting_until is None or active.claimed_until is not None:
        return False
    cached = active.next_page == 1 and user.list_fresh_until is not None and user.list_fresh_until > now
    return not cached and not active.waiting_for.startswith(ESI_ASKS_TO_WAIT)


def retry_given_up(user_id: int, priority: int) -> int:
    """Give every deferred killmail of a user's lists a fresh try now; returns how many there were.

    What ESI refused gets one try, and stays behind everything else: see FRESH_TRY.
    """
    mine = f"""
        SELECT l.killmail_id FROM ledger l JOIN user_killmails u ON u.killmail_id = l.killmail_id
        WHERE u.user_id = ? AND l.state = 'deferred' ORDER BY l.killmail_id {lock_clause(of="l")}
    """
    rows = execute(
        f"""UPDATE ledger SET state = 'pending', {FRESH_TRY},
                   priority = CASE WHEN priority < ? THEN ? ELSE priority END
            WHERE killmail_id IN ({mine})""",
        (priority, priority, user_id),
    )
    return int(rows.rowcount)


def _raise_fetches(sync_id: int, priority: int) -> None:
    """Raise what the sync waits for. A pilot who asks in person also gets a fresh try of what was given up."""
    mine = f"""
        SELECT l.killmail_id FROM ledger l JOIN sync_items i ON i.killmail_id = l.killmail_id
        WHERE i.sync_id = ? ORDER BY l.killmail_id {lock_clause(of="l")}
    """
    # Rows are locked in the order of their ids, as everywhere, so that two transactions cannot wait for each other.
    execute(
        f"UPDATE ledger SET priority = ? WHERE priority < ? AND killmail_id IN ({mine})", (priority, priority, sync_id)
    )
    if priority >= INTERACTIVE_PRIORITY:
        execute(
            f"""UPDATE ledger SET {FRESH_TRY},
                    state = CASE WHEN state = 'deferred' THEN 'pending' ELSE state END
                WHERE (state = 'deferred' OR attempts >= ?) AND state <> 'rejected' AND killmail_id IN ({mine})""",
            (ATTEMPTS_BEFORE_DEFERRED, sync_id),
        )
