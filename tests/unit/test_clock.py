"""The database's clock on a table of observations, and what is said when this machine's differs."""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass

import pytest

import clock as clock_module
from clock import OBSERVE_EVERY_SECONDS, DatabaseClock


@dataclass
class FakeTime:
    """Stands for the module `time`: both clocks of this machine."""

    wall: float = 1_760_000_000.0
    steady: float = 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr(clock_module, "time", fake)
    return fake


def test_before_anything_is_known_it_is_this_machines():
    assert abs(DatabaseClock().now() - time.time()) < 1


def test_the_quickest_statement_decides():
    # Given a statement that told the time within a millisecond, an hour ahead of this machine
    clock, now = DatabaseClock(), time.monotonic()
    clock.observe(now, time.time() + 3600, now + 0.001)
    # When another, which hung for five seconds, seems to tell another time
    clock.observe(now, time.time() + 3600, now + 5)
    # Then that is not believed
    assert abs(clock.now() - time.time() - 3600) < 1


def test_a_clock_that_was_set_is_followed():
    clock, now = DatabaseClock(), time.monotonic()
    clock.observe(now - 20, time.time() + 3600, now - 20)
    clock.observe(now - 0.1, time.time(), now)
    assert abs(clock.now() - time.time()) < 1


def test_a_clock_that_was_set_is_followed_by_the_next_statement(machine):
    """Given an exact observation, When a slower one contradicts it a second later, Then a clock was set."""
    clock = DatabaseClock()
    clock.observe(machine.steady, machine.wall, machine.steady + 0.001)
    machine.passes(1.0)
    clock.observe(machine.steady - 0.2, machine.wall - 60, machine.steady)
    assert abs(clock.now() - (machine.wall - 60)) < 0.2


def test_a_slow_statement_that_contradicts_nothing_changes_nothing(machine):
    """However old the exact one is: clocks drift by less than a busy machine adds."""
    clock = DatabaseClock()
    clock.observe(machine.steady, machine.wall, machine.steady + 0.001)
    machine.passes(60.0)
    clock.observe(machine.steady - 2.0, machine.wall - 1.9, machine.steady)
    assert abs(clock.now() - machine.wall) < 0.001


def test_one_thread_observes_now_and_then_and_each_before_the_first_time(machine):
    clock = DatabaseClock()
    assert [clock.should_observe(), clock.should_observe()] == [True, True]
    clock.observe(machine.steady, machine.wall, machine.steady)
    machine.passes(OBSERVE_EVERY_SECONDS - 0.1)
    assert not clock.should_observe()
    machine.passes(0.2)
    assert [clock.should_observe(), clock.should_observe()] == [True, False]


def test_a_machine_that_was_suspended_looks_at_once(machine):
    """Its steady clock stood still: by it, the last observation is a moment old."""
    clock = DatabaseClock()
    clock.observe(machine.steady, machine.wall, machine.steady)
    machine.wall += 3600
    assert [clock.should_observe(), clock.should_observe()] == [True, False]


@pytest.mark.parametrize(("skew", "said"), [(100.0, "100.0 s ahead of"), (-51.0, "51.0 s behind")])
def test_a_machine_whose_clock_is_wrong_is_named_once(machine, caplog, skew, said):
    clock = DatabaseClock()
    caplog.set_level(logging.WARNING, logger="clock")
    for wrong in (skew, skew, 0.0, skew):
        machine.passes(20.0)
        clock.observe(machine.steady, machine.wall - wrong, machine.steady)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # the second one after it was right again
    assert f"machine {socket.gethostname()} is {said} the database's" in lines[0]
    assert "NTP" in lines[0]


def test_a_slow_statement_is_no_reason_to_warn(machine, caplog):
    clock = DatabaseClock()
    clock.observe(machine.steady - 5.0, machine.wall - 4.9, machine.steady)
    assert caplog.records == []


def test_threads_share_it():
    clock, threads = DatabaseClock(), []
    for number in range(4):
        now = time.monotonic()
        threads.append(threading.Thread(target=clock.observe, args=(now, time.time() + 3600, now + number * 0.001)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert abs(clock.now() - time.time() - 3600) < 1
