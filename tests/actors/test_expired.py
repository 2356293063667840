"""Messages that are too old: skipped, and no dead letters. What they meant is in the database."""

from __future__ import annotations

import time
from typing import Any

import dramatiq

import actors
from actors.schedule import tend_ledger
from actors.users import sync_user
from ledger.rules import SYNC_RESEND_AFTER
from models import Sync, SyncState
from tests.actors.asking import ask, only_sync, stored


def enqueue(message: dramatiq.Message[Any], seconds_ago: float) -> None:
    actors.broker.enqueue(message._replace(message_timestamp=int((time.time() - seconds_ago) * 1000)))


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


def test_a_message_of_another_shape_is_a_dead_letter_whatever_it_says_of_its_age(simulated, crew):
    enqueue(sync_user.message_with_options(args=("not", "an", "id")), 60)
    crew.drain()
    assert len(crew.dead) == 1
