"""Syncs become messages through a window, as killmails do: what is sent, what is held back, and what brings it back."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

import events
from actors.dispatching import EMBEDDED_THREADS
from actors.queues import SYNCS
from actors.schedule import queue_due_users, tend
from actors.sync_dispatching import dispatch_syncs, dispatch_syncs_now, lists_until
from actors.users import sync_user
from database import execute, utcnow
from esi.roads import CROWDED
from ledger import pending_syncs
from models import Gate, Lock, RateSlot, Sync, SyncState, Trigger, User
from tests.actors.asking import ask, stored
from tests.actors.post import fresh_queues


def close_gate(name: str, seconds: float = 30.0, failures: int = 5) -> None:
    Gate.insert(name=name, closed_until=time.time() + seconds, reason="down", failures=failures).execute()


def sent_to_sync_user(post) -> list[int]:
    return [message.args[0] for message in post.to("sync_user")]


def states() -> set[str]:
    return {str(sync.state) for sync in Sync.select()}


def test_due_users_beyond_the_window_wait_in_the_database(simulated, post, crew, later):
    for _ in range(20):
        simulated.pilot(1)
    queue_due_users()
    assert len(sent_to_sync_user(post)) == EMBEDDED_THREADS
    later(600)  # so long that their messages may be lost; but the queue holds them
    tend()
    queue_due_users()
    dispatch_syncs()
    assert len(sent_to_sync_user(post)) == EMBEDDED_THREADS
    crew.drain(4)
    assert states() == {"FINISHED"}
    assert len(sent_to_sync_user(post)) == 20, "half a window drained sends more, each sync once"


def test_a_login_is_sent_at_once_and_nothing_else_with_it(simulated, post):
    for _ in range(20):
        simulated.pilot()
    queue_due_users()
    login = ask(simulated.pilot(), Trigger.LOGIN)
    assert post.to("sync_user")[-1].args == (login.sync_id,)
    assert post.to("sync_user")[-1].priority == 8
    assert len(sent_to_sync_user(post)) == EMBEDDED_THREADS + 1


def test_messages_that_are_lost_are_sent_again(simulated, post, crew, later):
    simulated.pilot(1)
    queue_due_users()
    fresh_queues(crew.broker, post)  # the broker was reset
    tend()
    assert len(sent_to_sync_user(post)) == 1, "it was sent a moment ago"
    later(130)
    tend()
    assert len(sent_to_sync_user(post)) == 2
    crew.drain()
    assert states() == {"FINISHED"}


def test_as_many_users_are_opened_as_can_be_read_until_the_next_look(simulated, configure):
    """Those due longest come first, and the syncs that still wait count."""
    configure(ESI_REQUESTS_PER_SECOND="1", SCHEDULE_MINUTES="1")
    assert lists_until(60) == 57
    first = simulated.pilot().user
    columns = {name: getattr(first, name) for name in ("owner_hash", "scopes", "character_name")}
    for number in range(100):
        due = utcnow() - timedelta(hours=3) + timedelta(minutes=number)
        User.create(character_id=number + 1, next_sync_at=due, **columns)
    User.update(next_sync_at=utcnow() + timedelta(hours=1)).where(User.id == first.id).execute()
    queue_due_users()
    assert sorted(sync.user.character_id for sync in Sync.select()) == list(range(1, 58))
    queue_due_users()
    # One more for each that was sent: it waits no longer.
    assert Sync.select().count() == 57 + 1


@pytest.mark.parametrize("gate", ["downtime", "error-limit", "char-killmail"])
def test_while_a_gate_is_closed_nothing_is_sent_and_one_wake_up_is_planned(simulated, post, crew, later, gate):
    close_gate(gate)
    for _ in range(3):
        ask(simulated.pilot(1), Trigger.SCHEDULE)
        tend()
    assert sent_to_sync_user(post) == []
    [wake] = post.to("dispatch_syncs")
    assert 29_000 < wake.delay < 31_000
    later(31)
    dispatch_syncs_now()
    crew.drain()
    dispatch_syncs_now()
    crew.drain()
    assert states() == {"FINISHED"}


def test_messages_that_meet_a_closed_gate_go_back_without_a_token_or_a_line_and_tell_once(
    simulated, post, crew, caplog
):
    caplog.set_level(logging.INFO)
    pilots = [simulated.pilot(1) for _ in range(3)]
    User.update(access_token=None, expires_at=None).execute()
    for pilot in pilots:
        ask(pilot, Trigger.SCHEDULE)
    told: list[object] = []
    events.subscribe(told.append)
    close_gate("downtime")
    caplog.clear()
    crew.drain()
    assert [(sync.state, sync.sent_at, sync.attempts) for sync in Sync.select()] == [("QUEUED", None, 0)] * 3
    assert [entry for entry in simulated.asked("token") if entry.grant_type == "refresh_token"] == []
    assert told == [events.WaitsChanged()], "one event for all of them"
    assert [record for record in caplog.records if record.name.startswith("actors")] == []
    assert len(post.to("dispatch_syncs")) == 1


def test_with_the_login_service_closed_only_valid_access_tokens_are_used(simulated, post, crew, later):
    valid, expired = simulated.pilot(1), simulated.pilot(1)
    User.update(access_token=None, expires_at=None).where(User.id == expired.user_id).execute()
    close_gate("login service", failures=1)
    ask(expired, Trigger.WEB)
    first = ask(valid, Trigger.SCHEDULE)
    assert sent_to_sync_user(post) == [first.sync_id]
    assert [message.delay > 29_000 for message in post.to("dispatch_syncs")] == [True]
    crew.drain()
    later(31)
    tend()
    crew.drain()
    assert states() == {"FINISHED"}


def test_with_the_login_service_closed_the_next_syncs_are_looked_at_in_a_second(simulated, post, monkeypatch):
    """Given more syncs that need another token than one look sees, Then one behind them that needs none is read."""
    monkeypatch.setattr(pending_syncs, "LOOK", 2)
    close_gate("login service", failures=1)
    *expired, valid = [simulated.pilot(1) for _ in range(6)]
    User.update(access_token=None, expires_at=None).where(User.id != valid.user_id).execute()
    for pilot in (*expired, valid):
        Sync.create(user=pilot.user_id, trigger=Trigger.SCHEDULE, priority=3)
    dispatch_syncs_now()
    assert sent_to_sync_user(post) == []
    assert [message.delay < 2_000 for message in post.to("dispatch_syncs")] == [True]
    dispatch_syncs_now()
    assert sent_to_sync_user(post) == [Sync.get(Sync.user == valid.user_id).id]


def test_messages_that_meet_the_closed_login_service_go_back_where_they_need_it(simulated, post, crew, caplog):
    caplog.set_level(logging.INFO)
    expired = [simulated.pilot(1) for _ in range(3)]
    valid = simulated.pilot(1)
    for pilot in (*expired, valid):
        ask(pilot, Trigger.SCHEDULE)
    User.update(access_token=None, expires_at=None).where(User.id != valid.user_id).execute()
    told: list[object] = []
    events.subscribe(told.append)
    close_gate("login service", failures=1)
    caplog.clear()
    crew.drain()
    events.close()
    held = [Sync.get(Sync.user == pilot.user_id) for pilot in expired]
    assert [(sync.state, sync.sent_at, sync.attempts) for sync in held] == [("QUEUED", None, 0)] * 3
    assert Sync.get(Sync.user == valid.user_id).state == SyncState.FINISHED
    assert User.select().where(User.refresh_claimed_until.is_null(False)).count() == 0
    assert [entry for entry in simulated.asked("token") if entry.grant_type == "refresh_token"] == []
    assert told.count(events.WaitsChanged()) == 1, "one event for all of them"
    assert {event.sync_id for event in told if isinstance(event, events.SyncChanged)}.isdisjoint(
        sync.id for sync in held
    )
    assert [record.message for record in caplog.records if " waits until " in record.message] == []


def test_background_lists_make_room_for_a_logins_killmails(simulated, post, crew):
    login = simulated.pilot(3)
    background = [simulated.pilot() for _ in range(5)]
    for pilot in background:
        ask(pilot, Trigger.SCHEDULE)
    post.refuse("fetch_killmail")
    ask(login, Trigger.LOGIN)
    crew.drain()
    # No message below a login's priority was let through: as background's share they go one by one, beside it.
    assert simulated.asked("recent")[0].character_id == login.character_id
    assert [message.priority for message in post.to("sync_user")][:6] == [3, 3, 3, 3, 3, 8]
    shares = post.to("sync_user")[6:]
    assert {message.priority for message in shares} == {8}
    assert len(simulated.asked("recent")) == 1 + len(shares)
    assert [message.delay for message in post.to("dispatch_syncs")] != [], "one look is planned"


def test_while_all_killmails_wait_for_tokens_lists_are_read_at_full_speed(simulated, post, crew):
    login, background = simulated.pilot(3), [simulated.pilot() for _ in range(5)]
    post.refuse("fetch_killmail")
    ask(login, Trigger.LOGIN)
    crew.drain()
    execute("UPDATE rate_buckets SET closed_until = ? WHERE bucket = 'killmail:ip'", (time.time() + 60,))
    execute(
        """INSERT INTO rate_buckets (bucket, allowance, window_seconds, spends, closed_until)
           VALUES ('killmail:ip', 3600, 900, '', ?) ON CONFLICT DO NOTHING""",
        (time.time() + 60,),
    )
    for pilot in background:
        ask(pilot, Trigger.SCHEDULE)
    assert len(sent_to_sync_user(post)) == 6
    assert {message.priority for message in post.to("sync_user")[1:]} == {3}


def test_a_broker_that_is_away_leaves_them_pending(simulated, post):
    post.refuse("sync_user")
    ask(simulated.pilot())
    assert Sync.get().sent_at is None
    post.mend()
    tend()
    assert len(sent_to_sync_user(post)) == 1


def test_a_wake_up_that_could_not_be_sent_is_planned_again(simulated, post):
    close_gate("downtime")
    post.refuse("dispatch_syncs")
    ask(simulated.pilot())
    assert Lock.get_by_id("syncs").wake_at is None
    post.mend()
    tend()
    assert len(post.to("dispatch_syncs")) == 1


def test_in_a_downtime_one_list_finds_out_whether_esi_is_up(simulated, post, crew, later):
    close_gate("downtime", seconds=0.0, failures=8)  # the fourth look: it is not the status page's turn
    pilots = [simulated.pilot(1) for _ in range(4)]
    simulated.fault("recent", "status:503")
    for pilot in pilots:
        ask(pilot, Trigger.SCHEDULE)
    crew.drain()
    assert len(sent_to_sync_user(post)) == 1
    assert len(simulated.asked("recent")) == 1
    simulated.mend()
    for _ in range(4):
        later(61)
        tend()
        crew.drain()
    assert states() == {"FINISHED"}
    assert len(stored()) == 4


def test_a_message_of_another_shape_is_the_actors_to_refuse(simulated, crew):
    crew.broker.enqueue(sync_user.message_with_options(args=("not", "an", "id")))
    crew.drain()
    assert len(crew.dead) == 1
    assert sync_user.queue_name == SYNCS


@pytest.mark.parametrize("gate", ["downtime", "login service"])
@pytest.mark.parametrize(("trigger", "event_count"), [(Trigger.SCHEDULE, 1), (Trigger.LOGIN, 2)])
def test_a_claimed_sync_that_meets_a_closed_gate_adds_no_line_to_the_gates_own(
    simulated, caplog, trigger, event_count, gate
):
    """The gate closed after the message was let through. A pilot who waits for the list is told, and no other."""
    caplog.set_level(logging.INFO)
    sync_id = ask(simulated.pilot(1), trigger).sync_id or 0
    User.update(access_token=None, expires_at=None).execute()
    close_gate(gate)
    told: list[object] = []
    events.subscribe(told.append)
    caplog.clear()
    sync_user.fn(sync_id)
    events.close()
    sync = Sync.get_by_id(sync_id)
    assert (sync.state, sync.claimed_until, sync.attempts, sync.waiting_for) == (SyncState.LISTING, None, 0, "down")
    assert [record.message for record in caplog.records if record.name.startswith("actors")] == []
    assert told == [events.SyncChanged(sync_id)] * event_count, "the first says that its list was begun"


@pytest.mark.parametrize(("trigger", "event_count"), [(Trigger.SCHEDULE, 1), (Trigger.LOGIN, 2)])
def test_a_list_that_lets_other_requests_go_first_waits_for_seconds_without_a_line(
    simulated, crew, caplog, later, tick, trigger, event_count
):
    caplog.set_level(logging.INFO)
    sync_id = ask(simulated.pilot(1), trigger).sync_id or 0
    RateSlot.update(next_at=time.time() + 6).execute()
    told: list[object] = []
    events.subscribe(told.append)
    caplog.clear()
    sync_user.fn(sync_id)
    events.close()
    sync = Sync.get_by_id(sync_id)
    assert (sync.claimed_until, sync.attempts, sync.waiting_for) == (None, 0, CROWDED)
    assert utcnow() < sync.waiting_until < utcnow() + timedelta(seconds=6)
    assert [record.message for record in caplog.records if record.name.startswith("actors")] == []
    assert told == [events.SyncChanged(sync_id)] * event_count
    later(7)
    tick()
    assert states() == {"FINISHED"}


def test_a_claimed_sync_that_waits_for_its_own_list_says_so(simulated, sync, caplog):
    simulated.configure(cache_seconds=300)
    pilot = simulated.pilot(1)
    sync(pilot)
    caplog.set_level(logging.INFO)
    waiting = sync(pilot)
    assert [record.message for record in caplog.records if f"sync {waiting.id} waits until" in record.message] != []
