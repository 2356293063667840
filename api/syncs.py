"""A user's syncs as they are shown: stored state, live counts while one is under way, WAITING while it waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import ledger
from api.pages import Page, make_page
from database import execute, placeholders, utcnow
from ledger import waits
from ledger.rules import INTERACTIVE_PRIORITY, UNSETTLED
from ledger.waits import Wait
from models import Sync, SyncState, User

CURSOR = "sync"
WAITING = "WAITING"
#: How much of the bar the reading of the list is.
LISTING_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class FailureView:
    """So many killmails that a sync gave up and that are still not stored. `retry_at` None: for good."""

    count: int
    reason: str
    retry_at: datetime | None


@dataclass(frozen=True, slots=True)
class SyncView:
    """Times are naive UTC. `found` = `saved` + `skipped` + `failed` + `pending`.

    `phase` is `state` without regard to waiting. `pages_read` of `pages` is how far the list was read. What is in
    `failed` and not in `failures` was stored later.
    """

    id: int
    user_id: int
    trigger: str
    priority: int
    full: bool
    state: str
    phase: str
    pages: int | None
    pages_read: int
    found: int
    saved: int
    skipped: int
    failed: int
    pending: int
    waiting_until: datetime | None
    waiting_for: str | None
    error: str | None
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    failures: Sequence[FailureView] = ()

    @property
    def ended(self) -> bool:
        return self.finished_at is not None

    @property
    def wanted(self) -> int:
        """Of what was listed, what had to be fetched."""
        return self.found - self.skipped

    @property
    def done(self) -> int:
        return self.saved + self.failed

    @property
    def progress(self) -> float | None:
        """0 to 1, never falling from one phase to the next; None where nobody knows."""
        match self.phase:
            case SyncState.LISTING if self.pages:
                return LISTING_SHARE * self.pages_read / self.pages
            case SyncState.FETCHING:
                fetched = self.done / self.wanted if self.wanted else 1.0
                return LISTING_SHARE + (1 - LISTING_SHARE) * fetched
            case SyncState.FINISHED:
                return 1.0
            case _:
                return None

    @property
    def summary(self) -> str:
        """One line for the pilot: where it stands, or how it ended."""
        match self.phase:
            case SyncState.QUEUED:
                return "Queued: a worker takes it up in a moment"
            case SyncState.LISTING if self.pages:
                return f"Listing page {min(self.pages_read + 1, self.pages)} of {self.pages}"
            case SyncState.LISTING:
                return "Listing: asking ESI for your killmails"
            case SyncState.FETCHING:
                return f"Fetching {self.done:,} of {self.wanted:,}"
            case SyncState.FAILED:
                return "Stopped before the end of your list"
            case _:
                return _how_it_ended(self)


def load(sync_ids: Iterable[int]) -> dict[int, SyncView]:
    """Those that exist, whoever they belong to: the caller has checked, or will (`user_id`)."""
    return {view.id: view for view in _views(Sync.select().where(Sync.id.in_(list(sync_ids))))}


def one_of(viewer: User, sync_id: int) -> SyncView | None:
    """One of the viewer's syncs, or None."""
    views = _views(Sync.select().where((Sync.id == sync_id) & (Sync.user == viewer.id)))
    return views[0] if views else None


def active_of(user_ids: Iterable[int]) -> dict[int, SyncView]:
    """User id to the sync that is under way; at most one a user."""
    query = Sync.select().where(Sync.user.in_(list(user_ids)) & Sync.finished_at.is_null())
    return {view.user_id: view for view in _views(query)}


def latest_of(user_id: int) -> SyncView | None:
    """The sync under way, else the last one."""
    views = _views(Sync.select().where(Sync.user == user_id).order_by(Sync.id.desc()).limit(1))
    return views[0] if views else None


def cool_down_ends_at(user: User, cooldown_minutes: int) -> datetime | None:
    """When asking for a sync will queue one again. None: it does now, or it never will without a login."""
    if user.next_sync_at is None or user.last_killmail_sync_at is None:
        return None
    ends_at: datetime = user.last_killmail_sync_at + timedelta(minutes=cooldown_minutes)
    return ends_at if ends_at > utcnow() else None


def count_of(viewer: User) -> int:
    """How many syncs of the viewer are kept."""
    return int(Sync.select().where(Sync.user == viewer.id).count())


def page_of(viewer: User, first: int, before_id: int | None, after: str | None) -> Page[SyncView]:
    """The viewer's newest `first` syncs, or those below `before_id`."""
    query = Sync.select().where(Sync.user == viewer.id)
    if before_id is not None:
        query = query.where(Sync.id < before_id)
    rows = list(query.order_by(Sync.id.desc()).limit(first + 1))
    views = _views(rows[:first])
    return make_page(CURSOR, [(view.id, view) for view in views], len(rows) > first, after)


def _how_it_ended(sync: SyncView) -> str:
    if sync.failed:
        return f"Done: {sync.saved:,} new, {sync.failed:,} could not be had yet"
    if sync.saved:
        return f"Done: {sync.saved:,} new"
    if sync.found:
        return f"Done: nothing new among {sync.found:,} killmail{'' if sync.found == 1 else 's'}"
    return "Done: nothing new"


def _views(rows: Iterable[Any]) -> list[SyncView]:
    rows = list(rows)
    now = utcnow()
    active = [row.id for row in rows if row.finished_at is None]
    progress = ledger.sync_progress(active)
    gates = waits.current() if active else {}
    list_waits = _list_waits(active, gates)
    views = [
        _view(row, progress.get(row.id), _wait_of(row, progress.get(row.id), list_waits.get(row.id), gates, now))
        for row in rows
    ]
    failures = _failures([view.id for view in views if view.failed])
    return [replace(view, failures=failures[view.id]) if view.id in failures else view for view in views]


def _list_waits(sync_ids: list[int], gates: dict[str, Wait]) -> dict[int, Wait]:
    """Sync id to what keeps its list from being read, where anything does."""
    if waits.LISTS in gates:
        return dict.fromkeys(sync_ids, gates[waits.LISTS])
    if waits.REFRESHES in gates:
        return dict.fromkeys(ledger.needing_refresh(sync_ids), gates[waits.REFRESHES])
    return {}


def _failures(sync_ids: list[int]) -> dict[int, list[FailureView]]:
    """Sync id to what it gave up, the most first. The reason is the last killmail's where there are several."""
    if not sync_ids:
        return {}
    rows = execute(
        f"""
        SELECT i.sync_id, COUNT(*), MAX(l.last_error), MIN(l.not_before)
        FROM sync_items i JOIN ledger l ON l.killmail_id = i.killmail_id
        WHERE i.sync_id IN ({placeholders(sync_ids)}) AND NOT ({UNSETTLED})
        GROUP BY i.sync_id, l.state = 'rejected' ORDER BY COUNT(*) DESC
        """,
        sync_ids,
    ).fetchall()
    failures: dict[int, list[FailureView]] = {}
    for sync_id, count, reason, retry_at in rows:
        at = datetime.fromisoformat(retry_at) if isinstance(retry_at, str) else retry_at
        failures.setdefault(sync_id, []).append(FailureView(count, reason or "no reason is known", at))
    return failures


def _wait_of(
    row: Any, progress: ledger.Progress | None, list_wait: Wait | None, gates: dict[str, Wait], now: datetime
) -> Wait | None:
    """What an active sync waits for: what is its own, then its killmails' next try, then the gate of its class.

    `list_wait`: what keeps the sync's list from being read, if it has not been.
    """
    if row.finished_at is not None:
        return None
    if row.waiting_until is not None and row.waiting_until > now:
        return Wait(row.waiting_until, row.waiting_for)
    if row.state != SyncState.FETCHING:
        return list_wait if row.claimed_until is None else None
    if progress is None or not progress.pending:
        return None
    if progress.retrying == progress.pending and progress.retry_at is not None and progress.retry_at > now:
        killmails = "killmail" if progress.retrying == 1 else "killmails"
        return Wait(progress.retry_at, f"ESI did not give {progress.retrying:,} {killmails}; trying again")
    if progress.doubtful and progress.doubtful + progress.retrying == progress.pending and waits.DOUBTFUL in gates:
        return gates[waits.DOUBTFUL]
    return gates.get(waits.INTERACTIVE if row.priority >= INTERACTIVE_PRIORITY else waits.BACKGROUND)


def _view(row: Any, progress: ledger.Progress | None, wait: Wait | None) -> SyncView:
    return SyncView(
        id=row.id,
        user_id=row.user_id,
        trigger=row.trigger,
        priority=row.priority,
        full=row.full,
        state=WAITING if wait else row.state,
        phase=row.state,
        pages=row.pages,
        pages_read=_pages_read(row),
        found=row.found,
        saved=progress.saved if progress else row.saved,
        skipped=row.skipped,
        failed=progress.failed if progress else row.failed,
        pending=progress.pending if progress else 0,
        waiting_until=wait.until if wait else None,
        waiting_for=wait.reason if wait else None,
        error=row.error,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _pages_read(row: Any) -> int:
    """`next_page` stands one behind the last page read; it may be beyond the end of a list that shrank."""
    read: int = min(row.next_page - 1, row.pages or 0)
    return read
