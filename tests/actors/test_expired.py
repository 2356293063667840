"""Messages that are too old: skipped, and no dead letters. What they meant is in the database."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
import pytest
from dramatiq.common import current_millis
from dramatiq.middleware import SkipMessage

import actors
from actors.expired import SENT_AT, SkipExpired
from actors.schedule import tend_ledger
from actors.users import sync_user
from database import clock
from ledger.rules import SYNC_RESEND_AFTER
from models import Sync, SyncState
from tests.actors.asking import ask, only_sync, stored


def enqueue(message: dramatiq.Message[Any], seconds_ago: float) -> None:
    sent_at = int((time.time() - seconds_ago) * 1000)
    actors.broker.enqueue(message.copy(message_timestamp=sent_at, options={SENT_AT: sent_at}))


def test_after_hours_without_workers_nothing_is_dead_and_the_sync_runs(simulated, crew, post, later, tick):
    # Given a sync and a tick whose messages are hours old
    pilot = simulated.pilot(2)
    post.lose("sync_user")
    ask(pilot)
    enqueue(sync_user.message(only_sync().id), 3 * 3600)
    enqueue(tend_ledger.message(), 3 * 3600)
    # When workers are back
    crew.drain()
    # Then both were skipped, and the next tick sends the sync again
    assert crew.dead == []
    assert only_sync().state == SyncState.QUEUED
    later(SYNC_RESEND_AFTER.total_seconds() + 1)
    tick()
    assert stored() == simulated.list_of(pilot)
    assert Sync.select().where(Sync.state == SyncState.FINISHED).count() == 1


def test_a_sender_whose_clock_is_behind_the_readers_makes_no_message_too_old(simulated, crew, monkeypatch):
    pilot = simulated.pilot(2)
    monkeypatch.setattr("actors.expired.current_millis", lambda: current_millis() + 61 * 60_000)
    ask(pilot)
    crew.drain()
    assert stored() == simulated.list_of(pilot)
    assert only_sync().state == SyncState.FINISHED


@pytest.mark.parametrize("sent_at", [None, "yesterday", True])
def test_a_message_without_a_usable_date_is_dated_by_its_sender(simulated, crew, sent_at):
    """As messages of older versions are."""
    pilot = simulated.pilot(2)
    old = int((time.time() - 3 * 3600) * 1000)
    message = tend_ledger.message().copy(message_timestamp=old, options={SENT_AT: sent_at})
    proxy = dramatiq.MessageProxy(message)
    with pytest.raises(SkipMessage):
        SkipExpired().before_process_message(actors.broker, proxy)
    assert pilot.user.last_killmail_sync_at is None


def test_a_message_that_waited_first_keeps_its_date():
    message = tend_ledger.message().copy(options={SENT_AT: 7})
    SkipExpired().before_enqueue(actors.broker, message, 0)
    assert message.options[SENT_AT] == 7


def test_the_scheduler_dates_by_the_databases_clock(monkeypatch):
    """Its process runs no statement of its own: it looks at the database's clock before it sends."""
    looks: list[int] = []
    monkeypatch.setattr("actors.expired.keep_connected", lambda: looks.append(1))
    monkeypatch.setattr(clock, "now", lambda: 1_000.0)
    planned = tend_ledger.message_with_options(scheduled_at="2026-11-30T12:00:00+00:00")
    SkipExpired().before_enqueue(actors.broker, planned, 0)
    assert (looks, planned.options[SENT_AT]) == ([1], 1_000_000)


def test_a_message_of_another_shape_is_a_dead_letter_whatever_it_says_of_its_age(simulated, crew):
    enqueue(sync_user.message_with_options(args=("not", "an", "id")), 60)
    crew.drain()
    assert len(crew.dead) == 1
