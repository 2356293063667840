"""How many killmails are out at a time, who wakes up the dispatcher, and who goes first."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, timedelta

import pytest

import events
import ledger
from actors.dispatching import EMBEDDED_THREADS, dispatch, dispatch_now, wake_for, window
from actors.schedule import tend
from api import syncs
from database import execute, insert_rows, utcnow
from models import Fetch, Sync, SyncState, Trigger
from tests.actors.asking import age_leases, ask, only_sync, rows, stored, wake
from tests.actors.simulated import Pilot


def _states() -> list[str]:
    return sorted(row.state for row in rows().values())


@pytest.fixture
def listed(simulated, crew, post) -> Callable[..., Pilot]:
    """Pilots whose lists are read; every row is pending and no message is out."""

    def make(killmails: int, trigger: Trigger = Trigger.WEB) -> Pilot:
        pilot: Pilot = simulated.pilot(killmails)
        post.refuse("fetch_killmail")
        ask(pilot, trigger)
        crew.drain()
        post.mend()
        assert set(_states()) <= {"pending"}
        post.messages.clear()
        return pilot

    return make


def test_a_long_backlog_drains_through_a_small_window_without_the_tick(simulated, sync, post):
    pilot = simulated.pilot(5 * EMBEDDED_THREADS)
    done = sync(pilot, threads=2)
    assert (done.state, done.saved) == (SyncState.FINISHED, 40)
    assert len(post.to("fetch_killmail")) == 40, "each was sent once"


def test_no_more_is_out_than_the_window_holds(listed, simulated):
    listed(30)
    assert dispatch_now() == window() == EMBEDDED_THREADS
    assert dispatch_now() == 0
    assert _states() == ["pending"] * 22 + ["sent"] * 8


def test_one_message_of_a_batch_carries_the_refill_marker(listed, post):
    listed(30)
    dispatch_now()
    marked = [n for n, message in enumerate(post.to("fetch_killmail")) if message.options.get("refill")]
    assert marked == [4]


def test_when_the_marker_is_lost_the_tick_goes_on(listed, simulated, crew, tick):
    pilot = listed(20)
    dispatch_now()
    for queue in crew.broker.queues.values():
        while not queue.empty():
            queue.get_nowait()
            queue.task_done()
    tick()
    assert stored() == [], "the window is taken up by messages that nobody has, until their leases run out"
    age_leases()
    tick()
    assert stored() == simulated.list_of(pilot)


def test_what_the_broker_refuses_goes_back_and_stays_in_order(listed, simulated, post, crew, tick):
    pilot = listed(5)
    post.refuse("fetch_killmail")
    assert dispatch_now() == 0
    assert _states() == ["pending"] * 5
    post.mend()
    tick()
    assert stored() == simulated.list_of(pilot)


def test_a_broker_that_goes_away_in_the_middle_of_a_batch(listed, simulated, post):
    pilot = listed(5)
    ids = simulated.list_of(pilot)
    post.refuse("fetch_killmail", times=1)
    # Two go through, the third is refused, and the rest is not even tried.
    real = post.before_enqueue
    sent = []

    def third_is_refused(broker, message, delay):
        sent.append(message.args)
        if len(sent) == 3:
            real(broker, message, delay)

    post.before_enqueue = third_is_refused
    assert dispatch_now() == 2
    del post.before_enqueue
    assert [args for (args,) in sent] == ids[:3]
    assert {id_: row.state for id_, row in rows().items()} == dict.fromkeys(ids[:2], "sent") | dict.fromkeys(
        ids[2:], "pending"
    )


def test_highest_priority_first_and_newest_first(listed, simulated, post):
    scheduled = listed(3, Trigger.SCHEDULE)
    urgent = listed(3, Trigger.LOGIN)
    execute("UPDATE locks SET sent = 0")  # none of these is the oldest's share
    dispatch_now()
    sent = [(message.args[0], message.priority) for message in post.to("fetch_killmail")]
    assert sent == [(id_, 8) for id_ in simulated.list_of(urgent)] + [(id_, 3) for id_ in simulated.list_of(scheduled)]


def test_a_login_is_not_kept_waiting_by_a_window_full_of_background_work(listed, simulated, post):
    listed(20, Trigger.SCHEDULE)
    of_login = simulated.list_of(listed(3, Trigger.LOGIN))
    Fetch.update(priority=3).where(Fetch.killmail_id.not_in(of_login)).execute()  # no row goes as a login's
    Fetch.update(state="rejected").where(Fetch.killmail_id.in_(of_login)).execute()
    assert dispatch_now() == 8
    Fetch.update(state="pending").where(Fetch.killmail_id.in_(of_login)).execute()
    execute("UPDATE locks SET sent = 0")  # none of these is the oldest's share
    post.messages.clear()
    assert dispatch_now() == 3
    assert [message.priority for message in post.to("fetch_killmail")] == [8, 8, 8]


def test_a_joined_sync_overtakes(listed, simulated, post):
    pilot = listed(3, Trigger.SCHEDULE)
    ask(pilot, Trigger.WEB)
    dispatch_now()
    assert {message.priority for message in post.to("fetch_killmail")} == {8}


def test_background_stops_at_a_quarter_and_its_pilots_see_it(listed, simulated, sync, post):
    """240 tokens: 60 are kept for logins. What is over the reserve goes, and no request is made of the rest."""
    execute("INSERT INTO rate_buckets (bucket, allowance, window_seconds, spends, closed_until) "
            "VALUES ('killmail:ip', 240, 60, ?, 0)", (f"{int(time.time() / (60 / 128))} 180",))  # fmt: skip
    listed(4, Trigger.SCHEDULE)
    assert dispatch_now() == 0
    waiting = syncs.load([only_sync().id])[only_sync().id]
    assert (waiting.state, waiting.phase) == (syncs.WAITING, SyncState.FETCHING)
    assert waiting.waiting_until is not None
    assert timedelta(0) < waiting.waiting_until - utcnow() < timedelta(seconds=65)
    assert "allowance" in str(waiting.waiting_for)
    assert wake() is not None

    listed(4, Trigger.LOGIN)
    assert dispatch_now() == 4, "the reserve is theirs"


def test_a_wake_up_is_planned_once(post, simulated):
    at = utcnow() + timedelta(seconds=30)
    for _ in range(5):
        wake_for(at)
    wake_for(at + timedelta(seconds=5))
    [message] = post.to("dispatch")
    assert 28_000 < message.delay <= 30_100
    wake_for(at - timedelta(seconds=10))
    assert len(post.to("dispatch")) == 2, "an earlier one is news"


def test_a_wake_up_the_broker_refused_is_not_taken_for_planned(post, simulated):
    at = utcnow() + timedelta(seconds=30)
    post.refuse("dispatch")
    wake_for(at)
    assert wake() is None
    post.mend()
    wake_for(at)
    assert len(post.to("dispatch")) == 1


def test_a_wake_up_never_arrives_before_its_time(post, simulated, later):
    """One that comes a moment too early finds the road closed still, and plans no other: "one is on its way"."""
    for number in range(25):
        at = utcnow() + timedelta(seconds=2, microseconds=number * 137)
        wake_for(at)
        arrives = post.to("dispatch")[-1].options["eta"] / 1000
        assert arrives >= at.replace(tzinfo=UTC).timestamp()
        later(10)


def test_a_wake_up_too_far_ahead_is_left_to_the_tick(post, simulated):
    wake_for(utcnow() + timedelta(minutes=21))
    assert (post.to("dispatch"), wake()) == ([], None)


def test_a_wake_up_in_the_past_is_one_for_now(post, simulated):
    wake_for(utcnow() - timedelta(minutes=5))
    [message] = post.to("dispatch")
    assert 0 <= message.delay <= 110


def test_after_a_wake_up_has_passed_the_next_one_can_be_planned(post, simulated, later):
    wake_for(utcnow() + timedelta(seconds=30))
    later(60)
    wake_for(utcnow() + timedelta(seconds=30))
    assert len(post.to("dispatch")) == 2


def test_the_delayed_dispatch_arrives_by_itself(listed, simulated, crew):
    """A gate that opens in a second: nothing but the wake-up starts the work again."""
    pilot = listed(2)
    execute("INSERT INTO gates (name, closed_until, reason, failures) VALUES ('killmail', ?, 'wait', 1)",
            (time.time() + 1.0,))  # fmt: skip
    assert dispatch_now() == 0
    crew.until(lambda: stored() == simulated.list_of(pilot), seconds=8)
    crew.drain()
    assert only_sync().state == SyncState.FINISHED


def test_a_failed_row_is_woken_for_without_the_tick(simulated, crew):
    """The first try again comes after about five seconds; here it is due at once."""
    pilot = simulated.pilot(1)
    simulated.fault("killmail", "status:500", count=1)
    ask(pilot)
    crew.drain()
    Fetch.update(not_before=utcnow() + timedelta(seconds=0.3)).execute()
    execute("UPDATE locks SET wake_at = NULL")
    wake_for(ledger.next_due())
    crew.until(lambda: stored() == simulated.list_of(pilot), seconds=8)


def test_dispatch_as_an_actor_does_the_same(listed, simulated, crew):
    pilot = listed(3)
    dispatch.send()
    crew.drain()
    assert stored() == simulated.list_of(pilot)


def test_nothing_to_do_sends_nothing(simulated, post):
    assert dispatch_now() == 0
    tend()
    assert post.messages == []


def test_a_gate_that_closes_costs_the_same_for_three_thousand_syncs_as_for_one(listed, simulated, statements):
    """One row and one event: a write and an event for each would overflow what events may wait."""
    told: list[object] = []
    events.subscribe(told.append)

    def close(seconds: float) -> tuple[int, int]:
        gate = "INSERT INTO gates (name, closed_until, reason, failures) VALUES ('killmail', ?, 'wait', 1)"
        later = "ON CONFLICT (name) DO UPDATE SET closed_until = excluded.closed_until"
        execute(f"{gate} {later}", (time.time() + seconds,))
        told.clear()
        statements.clear()
        assert dispatch_now() == 0
        made = len(statements)
        limit = time.monotonic() + 5
        while not told and time.monotonic() < limit:
            time.sleep(0.005)
        return made, len(told)

    listed(2, Trigger.SCHEDULE)
    one = close(60)
    now = utcnow()
    insert_rows(
        "users",
        ("id", "character_id", "character_name", "owner_hash", "scopes", "token_version", "session_epoch",
         "last_sync_complete", "full_requested", "consecutive_failures", "created_at"),
        [(n, n, "Pilot", "o", "", 0, 0, False, False, 0, now) for n in range(1_000, 4_000)],
    )  # fmt: skip
    insert_rows(
        "syncs",
        ("user_id", "trigger", "priority", "full", "state", "next_page", "found", "skipped", "saved", "failed",
         "attempts", "queued_at"),
        [(n, "SCHEDULE", 3, False, "FETCHING", 2, 9, 0, 0, 0, 0, now) for n in range(1_000, 4_000)],
    )  # fmt: skip
    assert close(120) == one
    assert one[1] == 1
    assert Sync.select().where(Sync.waiting_until.is_null(False)).count() == 0
