"""What is told of a sync as it goes on: at once by events, and by reading again where none may come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from peewee import Database

import events
from api import hub, subscriptions, syncs
from api.subscriptions import Reader
from database import utcnow
from events import KillmailStored, NamesResolved, SyncChanged, SyncFinished
from models import Sync, User
from tests.api.socket_client import Client
from tests.web_app import make_killmail, make_sync, make_user, wait_for_killmail

Connect = Callable[..., Client]
PROGRESS = "subscription($id: ID) { syncProgress(syncId: $id) { id state found saved pending } }"


@pytest.fixture
def viewer(sqlite_db: Database) -> User:
    return make_user()


def test_it_begins_with_the_state_now_and_ends_with_the_sync(connect: Connect, viewer: User) -> None:
    sync = make_sync(viewer.id)
    client = connect(viewer)
    client.subscribe(PROGRESS, id=str(sync.id))
    assert client.next()["syncProgress"] == {
        "id": str(sync.id),
        "state": "QUEUED",
        "found": 0,
        "saved": 0,
        "pending": 0,
    }
    Sync.update(state="FETCHING", found=1).execute()
    wait_for_killmail(sync, 5)
    events.publish(SyncChanged(sync.id))
    assert client.next()["syncProgress"]["pending"] == 1
    Sync.update(state="FINISHED", saved=1, finished_at=utcnow()).execute()
    events.publish(SyncFinished(sync.id))
    assert client.next()["syncProgress"]["state"] == "FINISHED"
    assert client.receive() == {"id": "1", "type": "complete"}


def test_a_sync_that_has_ended_is_told_and_completed(connect: Connect, viewer: User) -> None:
    sync = make_sync(viewer.id, state="FAILED", finished_at=utcnow(), error="no scope")
    client = connect(viewer)
    client.subscribe(PROGRESS, id=str(sync.id))
    assert client.next()["syncProgress"]["state"] == "FAILED"
    assert client.receive()["type"] == "complete"


def test_stored_killmails_move_it_a_few_times_a_second(connect: Connect, viewer: User) -> None:
    # Given a sync that waits for thirty killmails
    sync = make_sync(viewer.id, state="FETCHING", found=30)
    for killmail_id in range(1, 31):
        wait_for_killmail(sync, killmail_id)
    client = connect(viewer)
    client.subscribe(PROGRESS, id=str(sync.id))
    assert client.next()["syncProgress"]["pending"] == 30
    # When they are stored one after the other
    from models import Fetch, SyncItem

    for killmail_id in range(1, 31):
        Fetch.delete().where(Fetch.killmail_id == killmail_id).execute()
        SyncItem.delete().where(SyncItem.killmail_id == killmail_id).execute()
        make_killmail(killmail_id, viewer)
        events.publish(KillmailStored(killmail_id))
    # Then the counts move to the end, in far fewer steps
    steps = [client.next()["syncProgress"]["saved"]]
    while steps[-1] < 30:
        steps.append(client.next()["syncProgress"]["saved"])
    assert steps == sorted(set(steps))
    assert len(steps) < 15


def test_without_an_id_it_follows_the_next_sync(connect: Connect, viewer: User) -> None:
    client = connect(viewer)
    client.subscribe(PROGRESS)
    client.settle()
    first = make_sync(viewer.id)
    events.publish(SyncChanged(first.id))
    assert client.next()["syncProgress"]["id"] == str(first.id)
    Sync.update(state="FINISHED", finished_at=utcnow()).execute()
    events.publish(SyncFinished(first.id))
    assert client.next()["syncProgress"]["state"] == "FINISHED"
    second = make_sync(viewer.id)
    events.publish(SyncChanged(second.id))
    assert client.next()["syncProgress"]["id"] == str(second.id)


def test_others_syncs_are_neither_told_nor_found(connect: Connect, viewer: User) -> None:
    other = make_sync(make_user(90_000_002).id)
    client = connect(viewer)
    client.subscribe(PROGRESS, id=str(other.id))
    assert client.receive()["type"] == "error"
    client.subscribe(PROGRESS)
    client.settle()
    events.publish(SyncChanged(other.id))
    events.publish(NamesResolved())
    assert client.quiet()


def test_waiting_ends_by_itself(connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "SYNC_REREAD_SECONDS", 0.1)
    make_sync(viewer.id, state="FETCHING", waiting_until=utcnow() + timedelta(seconds=0.4), waiting_for="ESI")
    client = connect(viewer)
    client.subscribe(PROGRESS)
    assert client.next()["syncProgress"]["state"] == "WAITING"
    assert client.next()["syncProgress"]["state"] == "FETCHING"


def test_a_lost_event_is_made_up_for_soon_while_it_moves_and_later_once_it_has_ended(
    viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("api.subscriptions.time.monotonic", lambda: now)
    followed = subscriptions.SyncProgress(Reader(viewer, wake=lambda: None, overflow=lambda: None), None)
    # Given a sync that moves, of which nothing is told
    make_sync(viewer.id, state="FETCHING")
    assert [view.ended for view in followed.take()] == [False]
    Sync.update(state="FINISHED", finished_at=utcnow()).execute()
    now += 4.9
    assert followed.take() == []
    now += 0.2
    assert [view.ended for view in followed.take()] == [True]
    # and the next one
    make_sync(viewer.id)
    now += 59.8
    assert followed.take() == []
    assert followed.seconds_until_due() == pytest.approx(0.2)
    now += 0.3
    assert [view.ended for view in followed.take()] == [False]
    assert followed.seconds_until_due() == 5.0


def test_one_that_left_failures_is_looked_at_as_often_as_one_that_moves(
    viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sync(viewer.id, state="FINISHED", finished_at=utcnow())
    monkeypatch.setattr("api.subscriptions.time.monotonic", lambda: 1_000.0)
    followed = subscriptions.SyncProgress(Reader(viewer, wake=lambda: None, overflow=lambda: None), None)
    (view,) = followed.take()
    assert followed.seconds_until_due() == 60.0
    failing = replace(view, failures=(syncs.FailureView(1, "ESI answers 503", None),))
    followed.tell(failing)
    assert followed.take() == [failing]
    assert followed.seconds_until_due() == 5.0


def test_of_two_syncs_told_at_once_the_newer_is_what_is_seen(viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    followed = subscriptions.SyncProgress(Reader(viewer, wake=lambda: None, overflow=lambda: None), None)
    assert followed.take() == []
    old, new = make_sync(viewer.id, state="FINISHED", finished_at=utcnow()), make_sync(viewer.id)
    load = syncs.load
    monkeypatch.setattr(syncs, "load", lambda ids: dict(sorted(load(ids).items(), reverse=True)))
    telling = hub.Hub()
    telling.follow(followed)
    telling._handle([SyncFinished(old.id), SyncChanged(new.id)])
    assert [view.id for view in followed.take()] == [new.id]
