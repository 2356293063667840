"""The clock: who is due, and that looking twice does nothing twice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from dramatiq.middleware import TimeLimitExceeded
from peewee import OperationalError

import accounts
import actors
import deadlines
import events
import ledger
import row_counts
import settings
import stale_names
import tokens
from actors.downtime import ask_whether_up
from actors.schedule import TickFailed, queue_due_users, tend, tend_ledger
from actors.syncs import finalize_sync
from database import db, utcnow
from ledger import recent_unlinks
from ledger.rules import LIST_BACKOFF
from models import Fetch, RateBucket, Sync, SyncState, Trigger, User
from tests.actors.asking import ask, rows, stored
from tests.actors.simulated import Simulated


def test_due_users_are_queued_once_at_the_schedules_priority(simulated, crew, post):
    pilots = [simulated.pilot(1) for _ in range(3)]
    queue_due_users()
    queue_due_users()
    assert sorted(message.args[0] for message in post.to("sync_user")) == [row.id for row in Sync.select()]
    assert {(message.priority, message.delay) for message in post.to("sync_user")} == {(3, None)}
    assert {row.trigger for row in Sync.select()} == {Trigger.SCHEDULE}
    crew.drain()
    assert Sync.select().where(Sync.state == SyncState.FINISHED).count() == len(pilots)


def test_users_who_are_not_due_are_left_alone(simulated, post):
    fresh, refused, due = simulated.pilot(1), simulated.pilot(1), simulated.pilot(1)
    User.update(next_sync_at=utcnow() + timedelta(minutes=5)).where(User.id == fresh.user_id).execute()
    User.update(next_sync_at=None).where(User.id == refused.user_id).execute()
    queue_due_users()
    assert [row.user_id for row in Sync.select()] == [due.user_id]


@pytest.mark.parametrize("seconds", [51, 200, 31 * 60])
def test_a_worker_whose_clock_is_ahead_of_the_schedulers_does_what_is_due(simulated, crew, seconds):
    """By its clock each message is that old when it arrives: Dramatiq and periodiq date what they send by their own."""
    pilot = simulated.pilot(2)
    sent = time.time() - seconds
    for actor in (queue_due_users, tend_ledger, ask_whether_up):
        message = actor.message_with_options(scheduled_at=datetime.fromtimestamp(sent, UTC).isoformat())
        actors.broker.enqueue(message._replace(message_timestamp=int(sent * 1000)))
    crew.drain()
    assert stored() == simulated.list_of(pilot)
    assert crew.dead == []


def test_firing_twice_at_once_is_harmless(simulated, crew, post):
    pilot = simulated.pilot(4)
    for _ in range(3):
        queue_due_users.send()
        tend_ledger.send()
    crew.drain(threads=4)
    assert Sync.select().count() == 1
    assert stored() == simulated.list_of(pilot)
    assert len(simulated.asked("recent")) == 1
    assert len(simulated.asked("killmail")) == 4
    assert crew.dead == []


def test_a_broker_that_is_away_leaves_the_syncs_to_the_tick(simulated, post, later, tick):
    pilot = simulated.pilot(2)
    post.refuse("sync_user")
    queue_due_users()
    post.mend()
    later(130)
    tick()
    assert stored() == simulated.list_of(pilot)


def test_tend_is_idempotent_while_everything_is_in_hand(simulated, sync, post):
    sync(simulated.pilot(3))
    post.messages.clear()
    for _ in range(3):
        tend()
    assert post.messages == []


def test_tend_does_not_resend_what_is_on_its_way(simulated, post):
    ask(simulated.pilot(3))
    tend()
    tend()
    assert len(post.to("sync_user")) == 1


def test_a_cooled_down_user_is_due_again(simulated, sync, later, crew, post):
    pilot = simulated.pilot(1)
    sync(pilot)
    queue_due_users()
    assert Sync.select().count() == 1
    later(16 * 60)
    queue_due_users()
    assert Sync.select().count() == 2


def test_of_any_number_of_finalize_messages_one_ends_the_sync(simulated, sync, crew, post):
    done = sync(simulated.pilot(2))
    names = len(post.to("resolve_names"))
    for _ in range(4):
        finalize_sync.send(done.id)
    crew.drain(threads=4)
    assert Sync.get_by_id(done.id).finished_at == done.finished_at
    assert len(post.to("resolve_names")) == names


def test_messages_without_a_priority_get_their_queues(simulated, post):
    """periodiq sends none."""
    tend_ledger.send()
    queue_due_users.send()
    assert [message.priority for message in post.messages] == [3, 3]


def test_a_sync_whose_workers_keep_going_away_fails_and_is_told_of(simulated, crew, post, later):
    told: list[object] = []
    events.subscribe(told.append)
    pilot = simulated.pilot(1)
    asked = ask(pilot)
    Sync.update(state="LISTING", claimed_until=utcnow() - timedelta(minutes=5), attempts=4).execute()
    tend()
    events.close()
    assert Sync.get_by_id(asked.sync_id).state == SyncState.FAILED
    assert told[-1:] == [events.SyncFinished(asked.sync_id or 0)]


def test_a_sync_that_fails_is_told_of_as_finished(simulated, sync, later, tick):
    """events.SyncFinished: "A sync ended, well or not"."""
    told: list[object] = []
    events.subscribe(told.append)
    simulated.fault("recent", "status:403")
    failed = sync(simulated.pilot(1))
    for _ in LIST_BACKOFF:
        later(400)
        tick()
    events.close()
    assert events.SyncFinished(failed.id) in told


def test_the_bucket_of_a_pilot_who_left_is_forgotten(simulated, sync, later, tick):
    pilot = simulated.pilot(1)
    sync(pilot)
    ledger.unlink(pilot.user_id)
    tick()
    key = f"char-killmail:{pilot.character_id}"
    assert RateBucket.get_or_none(RateBucket.bucket == key) is not None, "ESI still counts what was spent"
    later(1000)
    tick()
    assert RateBucket.get_or_none(RateBucket.bucket == key) is None


def test_the_clock_of_periodiq_is_the_settings():
    """Given `SCHEDULE_MINUTES`, Then periodiq looks for due users that often; and for what was left behind, each
    minute."""
    schedules = {name: str(actor.options["periodic"]) for name, actor in actors.broker.actors.items()
                 if "periodic" in actor.options}  # fmt: skip
    minutes = settings.current().schedule_minutes
    assert schedules == {"queue_due_users": f"*/{minutes} * * * *", "tend_ledger": "* * * * *"}


def test_in_a_downtime_the_status_is_asked_before_a_killmail_pays(simulated, sync, later, tick):
    pilot = simulated.pilot(9)
    simulated.fault("killmail", "status:503")
    simulated.fault("status", "status:503")
    sync(pilot)
    spent = sum(row.attempts for row in rows().values())
    asked = len(simulated.asked("status"))
    for _ in range(4):
        later(61)
        tick()

    assert len(simulated.asked("status")) - asked == 3, "one look of four is a killmail's: /status may fail by itself"
    assert sum(row.attempts for row in rows().values()) == spent, "no killmail pays while /status is away"

    simulated.mend()
    later(61)
    tick()
    assert stored() == simulated.list_of(pilot)


def expired_row(simulated: Simulated) -> None:
    """A killmail whose worker went away, of a sync that waits for it."""
    asked = ask(simulated.pilot(1))
    assert asked.sync_id is not None
    sync = ledger.claim_sync(asked.sync_id)
    assert sync is not None
    ledger.add_page(sync, [(7, "a" * 40)], reading=ledger.reading.NOTHING_READ, etag=None, seen=set())
    ledger.end_listing(sync, etag=None, complete=True)
    Fetch.update(state="fetching", claimed_until=utcnow() - timedelta(minutes=5)).execute()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (accounts, "forget_former_owners"),
        (deadlines, "expire_implausible_deadlines"),
        (tokens, "start_due_rechecks"),
        (recent_unlinks, "sweep"),
        (row_counts, "recount_if_due"),
        (ledger, "fail_abandoned"),
        (stale_names, "is_due"),
    ],
)
@pytest.mark.parametrize("error", [OperationalError("canceling statement due to lock timeout\nDETAIL"), KeyError("x")])
def test_a_step_that_fails_keeps_no_other_from_running(simulated, post, monkeypatch, caplog, module, name, error):
    """Given an expired killmail and a refusal that is to be checked again, When one step of each tick fails, Then both
    are repaired, and the failure is told with its name."""
    expired_row(simulated)
    waiting = simulated.pilot(1)
    User.update(next_sync_at=None, recheck_at=utcnow() - timedelta(minutes=1), needs_login_reason="refused").where(
        User.id == waiting.user_id
    ).execute()

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(module, name, fail)
    for _ in range(2):
        with pytest.raises(TickFailed):
            tend()

    assert (Fetch.get().state, Fetch.get().attempts) == ("sent", 1)
    assert (User.get_by_id(waiting.user_id).next_sync_at is not None) == (name != "start_due_rechecks")
    failures = [record for record in caplog.records if "the tick failed at " in record.message]
    assert len(failures) == 2
    assert "DETAIL" not in failures[0].message


def test_a_tick_that_fails_is_a_dead_letter_and_not_tried_again(simulated, crew, post, monkeypatch):
    """check_queue.py counts it."""

    def fail():
        raise OperationalError("canceling statement due to lock timeout")

    monkeypatch.setattr(accounts, "forget_former_owners", fail)
    tend_ledger.send()
    crew.drain()
    [dead] = crew.dead
    assert dead.startswith("tend_ledger: ")
    assert "former owners: canceling" in dead


def test_a_connection_that_breaks_during_a_tick_is_not_that_of_the_next_one(simulated, post, monkeypatch):
    def lose_connection(*_: object) -> None:
        db.connection().close()
        raise OperationalError("server closed the connection unexpectedly")

    def two_ticks() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(ledger, "fail_abandoned", lose_connection)
            with pytest.raises(TickFailed, match="abandoned syncs: server closed"):
                tend_ledger()
        tend_ledger()
        db.close()

    with ThreadPoolExecutor(1) as worker:
        worker.submit(two_ticks).result()


def test_a_time_limit_that_ends_the_tick_comes_after_the_repair(simulated, post, monkeypatch):
    """Given a deletion of a former owner that takes too long, Then what syncs wait for was repaired before it."""
    expired_row(simulated)

    def takes_too_long():
        raise TimeLimitExceeded

    monkeypatch.setattr(accounts, "forget_former_owners", takes_too_long)
    with pytest.raises(TimeLimitExceeded):
        tend()
    assert Fetch.get().state == "sent"
