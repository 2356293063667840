"""Old syncs are forgotten when another ends: all but the last ten, a month after their end."""

from __future__ import annotations

from datetime import timedelta

import ledger
from database import utcnow
from ledger.forgetting import BATCH
from models import Sync, SyncState, User
from tests.unit.ledger.world import failed, finished, items, listed, opened, row_state

DAY = timedelta(days=1)


def ended(user: User, count: int, age: timedelta) -> list[int]:
    """So many syncs that ended so long ago; returns their ids, oldest first."""
    at = utcnow() - age
    columns = {"user": user.id, "trigger": "SCHEDULE", "priority": 3, "state": SyncState.FINISHED, "finished_at": at}
    return [Sync.insert(**columns).execute() for _ in range(count)]


def of(user: User) -> list[int]:
    return [sync.id for sync in Sync.select().where(Sync.user == user.id).order_by(Sync.id)]


def end_one(user: User) -> int:
    sync_id = listed(user, [], force=True)
    finished(sync_id)
    return sync_id


def test_the_last_ten_are_kept_however_old(user, other):
    old = ended(user, 12, 31 * DAY)
    others = ended(other, 12, 31 * DAY)
    last = end_one(user)
    assert of(user) == [*old[3:], last]
    assert of(other) == others


def test_what_ended_within_a_month_is_kept(user):
    recent = ended(user, 15, 29 * DAY)
    last = end_one(user)
    assert of(user) == [*recent, last]


def test_a_sync_that_fails_ends_like_any_other(user):
    old = ended(user, 12, 31 * DAY)
    sync_id = opened(user)
    assert ledger.fail_sync(sync_id, "ESI answered 500")
    assert of(user) == [*old[3:], sync_id]


def test_a_long_history_goes_a_batch_at_a_time(user):
    ended(user, 2 * BATCH + 10, 31 * DAY)
    for _ in range(3):
        end_one(user)
    assert len(of(user)) == 10


def test_what_a_forgotten_sync_could_not_get_is_still_tried(user):
    first = listed(user, [1])
    failed(1, times=4)
    finished(first)
    Sync.update(finished_at=utcnow() - 31 * DAY).execute()
    ended(user, 10, 31 * DAY)
    end_one(user)
    assert first not in of(user)
    assert items(first) == set()
    assert row_state(1) == "deferred"
