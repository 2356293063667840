"""Machines whose clocks differ: leases and due times are measured by the database's clock, whichever machine looks."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import clock
import database
import ledger
from database import execute, keep_connected, utcnow
from models import Sync, User
from tests.unit.ledger.world import listed, make_user, row_state, settle, taken

#: SQLite has no clock of its own, and no second machine.
pytestmark = pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)


class ShiftedTime:
    """Stands for the module `time` on a machine whose clock is wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def time(self) -> float:
        return time.time() + self.seconds

    def monotonic(self) -> float:
        return time.monotonic()


@pytest.fixture
def on_a_machine_ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """From now on this is a process of a machine whose clock is ahead; it begins a unit of work as a worker does."""

    def move(seconds: float) -> None:
        monkeypatch.setattr(clock, "time", ShiftedTime(seconds))
        database.clock.forget()
        keep_connected()

    return move


def databases_time() -> Any:
    return execute("SELECT clock_timestamp() AT TIME ZONE 'UTC'").fetchone()[0]


@pytest.mark.parametrize("seconds", [-100.0, 51.0, 100.0, 7200.0])
def test_now_is_the_databases_on_every_machine(on_a_machine_ahead: Callable[[float], None], seconds: float) -> None:
    on_a_machine_ahead(seconds)
    assert abs(utcnow() - databases_time()) < timedelta(seconds=1)


@pytest.mark.parametrize("seconds", [51.0, 100.0])
def test_a_tick_on_a_machine_that_is_ahead_revokes_no_live_lease(
    on_a_machine_ahead: Callable[[float], None], seconds: float
) -> None:
    """Given a killmail that a worker holds, When such a tick repairs, Then the body it received is stored."""
    listed(make_user(), [1])
    claim = taken(1)
    on_a_machine_ahead(seconds)

    assert ledger.take_back_expired() == 0

    assert (row_state(1), settle(claim).stored) == ("fetching", True)


@pytest.mark.parametrize("seconds", [-100.0, 51.0, 100.0])
def test_the_same_users_are_due_on_every_machine(on_a_machine_ahead: Callable[[float], None], seconds: float) -> None:
    due, later = make_user(), make_user()
    User.update(next_sync_at=databases_time() + timedelta(seconds=40)).where(User.id == later.id).execute()
    on_a_machine_ahead(seconds)

    ledger.open_due_syncs(10)

    assert [sync.user_id for sync in Sync.select()] == [due.id]
