"""Asking for a sync: the one door for login, dashboard and scripts, and what it says."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

import runtime
from actors.requests import minutes, request_sync
from esi.rate_limit import CHAR_KILLMAIL
from models import Sync, SyncState, Trigger, User
from tests.actors.asking import ask, only_sync, stored


@pytest.mark.parametrize(
    ("trigger", "priority"), [(Trigger.LOGIN, 8), (Trigger.WEB, 8), (Trigger.MANUAL, 5), (Trigger.SCHEDULE, 3)]
)
def test_who_asks_decides_the_priority(simulated, post, trigger, priority):
    asked = request_sync(simulated.pilot().user_id, trigger)
    assert (asked.queued, asked.message) == (True, "Full sync queued.")
    [message] = post.messages
    assert (message.actor, message.args, message.priority) == ("sync_user", (asked.sync_id,), priority)


def test_a_later_one_is_no_full_sync(simulated, sync, post):
    pilot = simulated.pilot(1)
    sync(pilot)
    assert request_sync(pilot.user_id, Trigger.WEB, force=True).message == "Sync queued."


def test_asking_again_joins_and_sends_no_second_message(simulated, post):
    pilot = simulated.pilot()
    first = request_sync(pilot.user_id, Trigger.WEB)
    second = request_sync(pilot.user_id, Trigger.WEB)
    assert (second.sync_id, second.queued, second.message) == (first.sync_id, True, "A sync is already under way.")
    assert len(post.messages) == 1


def test_asking_more_urgently_sends_a_second_message_that_overtakes(simulated, crew, post):
    pilot = simulated.pilot(2)
    request_sync(pilot.user_id, Trigger.SCHEDULE)
    request_sync(pilot.user_id, Trigger.LOGIN)
    assert [message.priority for message in post.messages] == [3, 8]
    crew.drain(threads=2)
    assert len(simulated.asked("recent")) == 1, "the older message finds nothing to claim"


def test_a_login_does_not_wait_for_what_background_leaves_to_it(simulated, post, crew, configure):
    pilot = simulated.pilot(3)
    simulated.configure(page_size=1)
    buckets = runtime.limiter()
    for _ in range(11):
        buckets.acquire(CHAR_KILLMAIL, str(pilot.character_id), background=False).answered(200, {})
    request_sync(pilot.user_id, Trigger.SCHEDULE)
    crew.drain()
    assert only_sync().waiting_until is not None
    # When the pilot logs in
    request_sync(pilot.user_id, Trigger.LOGIN)
    crew.drain()
    # Then the list is read with what was left to people who wait
    assert stored() == simulated.list_of(pilot)


def test_what_a_login_raised_is_fetched_without_the_tick(simulated, post, crew):
    pilot = simulated.pilot(3)
    post.refuse("fetch_killmail")
    request_sync(pilot.user_id, Trigger.SCHEDULE)
    crew.drain()
    post.mend()
    assert only_sync().state == SyncState.FETCHING
    request_sync(pilot.user_id, Trigger.LOGIN)
    crew.drain()
    assert stored() == simulated.list_of(pilot)


def test_in_the_cool_down_it_says_when(simulated, sync, later):
    pilot = simulated.pilot(1)
    sync(pilot)
    later(3 * 60)
    asked = request_sync(pilot.user_id, Trigger.WEB)
    assert (asked.queued, asked.sync_id) == (False, None)
    pattern = r"Last synced 3 minutes ago\. The next sync is possible in 12 minutes, at \d\d:\d\d EVE time\."
    assert re.fullmatch(pattern, asked.message), asked.message
    assert request_sync(pilot.user_id, Trigger.WEB, force=True).queued


def test_a_user_who_has_to_log_in_is_told_so(simulated, post):
    pilot = simulated.pilot()
    User.update(next_sync_at=None).execute()
    asked = request_sync(pilot.user_id, Trigger.WEB, force=True)
    assert asked.queued is False
    assert "logs in again" in asked.message
    assert request_sync(987_654, Trigger.WEB).queued is False
    assert post.messages == []


def test_a_broker_that_is_away_fails_nothing(simulated, post, later, tick):
    pilot = simulated.pilot(2)
    post.refuse("sync_user")
    asked = ask(pilot)
    assert asked.queued
    post.mend()
    later(130)
    tick()
    assert stored() == simulated.list_of(pilot)


def test_what_the_broker_refused_is_sent_by_the_very_next_tick(simulated, post, tick):
    """The sender knows that nothing was sent: nobody has to wait until it counts as lost."""
    pilot = simulated.pilot(2)
    post.refuse("sync_user")
    ask(pilot)
    post.mend()
    tick()
    assert stored() == simulated.list_of(pilot)


def test_a_process_without_a_broker_leaves_the_sending_to_the_next_tick(simulated, post, tick):
    pilot = simulated.pilot(2)
    asked = request_sync(pilot.user_id, Trigger.MANUAL, may_send=False)
    assert asked.queued
    assert post.messages == []
    assert Sync.get_by_id(asked.sync_id).sent_at is None
    tick()
    assert stored() == simulated.list_of(pilot)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 minute"), (60, "1 minute"), (120, "2 minutes"), (900, "15 minutes"), (7200, "120 minutes")],
)
def test_minutes(seconds, words):
    assert minutes(timedelta(seconds=seconds)) == words
