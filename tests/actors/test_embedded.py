"""Embedded mode: one process is the whole system, and it goes on whatever it finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import dramatiq
import peewee
import pytest

import actors
import deadlines
import embedded
import ledger
import settings
from actors.queues import MAINTENANCE
from actors.requests import request_sync
from database import execute, utcnow
from models import Fetch, Sync, SyncState, Trigger, User
from tests.actors.asking import ask, only_sync, stored


def _until(condition: Callable[[], object], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def start(simulated, post):
    """Starts the system as `python app.py` does; what was started is stopped again."""
    running: list[embedded.EmbeddedSystem] = []

    def go() -> embedded.EmbeddedSystem:
        running.append(embedded.start(settings.current()))
        return running[-1]

    yield go
    for system in running:
        system.stop()


def test_it_syncs_who_is_due_without_being_asked(simulated, start):
    pilot = simulated.pilot(3)
    start()
    _until(lambda: Sync.select().where(Sync.state == SyncState.FINISHED).count() == 1)
    assert stored() == simulated.list_of(pilot)
    assert only_sync().trigger == Trigger.SCHEDULE


def test_it_takes_up_what_a_second_terminal_wrote(simulated, start):
    pilot = simulated.pilot(3)
    User.update(next_sync_at=utcnow().replace(year=2099)).execute()
    start()
    request_sync(pilot.user_id, Trigger.MANUAL, may_send=False)
    _until(lambda: only_sync().state == SyncState.FINISHED)
    assert stored() == simulated.list_of(pilot)


def test_it_looks_within_a_second_or_two(simulated, start):
    pilot = simulated.pilot(1)
    User.update(next_sync_at=utcnow().replace(year=2099)).execute()
    start()
    request_sync(pilot.user_id, Trigger.MANUAL, may_send=False)
    _until(lambda: only_sync().started_at is not None, 2.5)


def test_it_looks_for_due_users_as_often_as_the_setting_says(simulated, start, configure, monkeypatch):
    """A second stands for a minute."""
    configure(SCHEDULE_MINUTES="2")
    monkeypatch.setattr(embedded, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(embedded, "SECONDS_A_MINUTE", 0.1)
    ticks: list[None] = []
    looked: list[int] = []

    def tick(_cooldown: timedelta) -> dict[str, int]:
        ticks.append(None)
        return {}

    def look(limit: int) -> list[int]:
        looked.append(len(ticks))
        return []

    monkeypatch.setattr(deadlines, "expire_implausible_deadlines", tick)
    monkeypatch.setattr(ledger, "open_due_syncs", look)
    start()
    _until(lambda: len(looked) >= 4)
    # Ten ticks make two minutes here, however long they take; a worker looks a tick or two after it was told to.
    assert 8 <= (looked[3] - looked[0]) / 3 <= 12


def test_a_tick_that_fails_costs_nobody_a_turn(simulated, start, monkeypatch):
    """The scheduler looks in the second in which a tick fails, too: the next look is ten minutes away."""

    def fail(*_: object) -> dict[str, int]:
        raise peewee.OperationalError("database is locked")

    monkeypatch.setattr(deadlines, "expire_implausible_deadlines", fail)
    pilot = simulated.pilot(2)
    start()
    _until(lambda: stored() == simulated.list_of(pilot))


def test_a_login_overtakes_the_lists_that_wait(simulated, crew):
    pilots = [simulated.pilot(1) for _ in range(20)]
    for pilot in pilots:
        ask(pilot, Trigger.SCHEDULE)
    login = simulated.pilot(1)
    ask(login, Trigger.LOGIN)
    crew.drain(1)
    order = [entry.character_id for entry in simulated.asked("recent")]
    assert order.index(login.character_id) <= 1, "all but what a thread had in hand"


def test_a_second_system_on_the_same_database_is_refused_until_the_first_ends(simulated, start):
    first = start()
    with pytest.raises(embedded.AlreadyRunning):
        embedded.start(settings.current())
    first.stop()
    start()


def test_a_place_that_cannot_be_written_to_is_told_with_the_setting_that_names_it(configure, start):
    configure(DATABASE_URL="sqlite:////proc/nowhere/killmails.db")
    with pytest.raises(settings.SettingsError, match=r"^DATABASE_URL: /proc/nowhere cannot be written to: "):
        embedded.start(settings.current())


@pytest.mark.parametrize("state", ["sent", "fetching"])
def test_what_the_process_before_held_is_taken_back_at_start(simulated, crew, post, start, state):
    """Its leases have a minute to run; nobody waits for that."""
    pilot = simulated.pilot(4)
    post.lose("fetch_killmail", times=99)
    ask(pilot)
    crew.drain()
    post.mend()
    far = utcnow().replace(year=2099)
    Fetch.update(state=state, claimed_until=far).execute()
    execute("UPDATE locks SET wake_at = ?", (far,))
    start()
    _until(lambda: only_sync().state == SyncState.FINISHED)
    assert stored() == simulated.list_of(pilot)


def test_a_list_half_read_by_the_process_before_is_read_on_at_start(simulated, crew, post, start):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    post.die_at("fetch_killmail")
    ask(pilot)
    crew.drain()
    assert only_sync().state == SyncState.LISTING
    post.mend()
    User.update(refresh_claimed_until=utcnow().replace(year=2099)).execute()
    start()
    _until(lambda: only_sync().state == SyncState.FINISHED)
    assert simulated.pages_asked() == [1, 2]


def test_the_clock_survives_a_row_it_cannot_compute_with(simulated, start, caplog):
    """A poisoned row hurts only itself: when it is gone the clock ticks on, and repairs what was left."""
    pilot = simulated.pilot(2)
    User.update(next_sync_at=utcnow().replace(year=2099)).execute()
    execute("INSERT OR REPLACE INTO rate_slots (name, next_at) VALUES ('esi', 'soon')")
    system = start()
    time.sleep(1.3)  # one tick
    execute("DELETE FROM rate_slots")
    request_sync(pilot.user_id, Trigger.MANUAL, may_send=False)
    _until(lambda: stored() == simulated.list_of(pilot), seconds=5)
    assert system is not None


def test_an_actor_that_does_not_end_is_interrupted(simulated, start):
    """dramatiq starts the watch of its time limits for `dramatiq actors` only; here it has to be started by us."""
    ended: list[str] = []

    @dramatiq.actor(broker=actors.broker, queue_name=MAINTENANCE, time_limit=300, max_retries=0)
    def never_ends() -> None:
        try:
            deadline = time.monotonic() + 6
            while time.monotonic() < deadline:
                time.sleep(0.01)
            ended.append("by itself")
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    try:
        start()
        never_ends.send()
        _until(lambda: ended, seconds=10)
        assert ended == ["TimeLimitExceeded"]
    finally:
        del actors.broker.actors["never_ends"]


def test_stopping_gives_the_lock_back_and_ends_every_thread(simulated, start):
    before = {thread.name for thread in threading.enumerate()}
    system = start()
    system.stop()
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if name == "clock"]
    start()
