"""Whose turn work is that is done now and then, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest

import periodic_runs
from database import execute
from deadlines import expire_implausible_deadlines

pytestmark = pytest.mark.usefixtures("any_db")

HOUR = timedelta(hours=1)


def _time_passes(by: timedelta) -> None:
    periodic_runs.put_off("work", -by)


def test_it_is_due_at_first_and_again_when_its_time_has_come() -> None:
    assert periodic_runs.begin("work", HOUR)
    assert not periodic_runs.begin("work", HOUR)
    _time_passes(timedelta(seconds=1))
    assert [periodic_runs.begin("work", HOUR) for _ in range(2)] == [True, False]


def test_each_kind_of_work_has_its_own_turn() -> None:
    assert periodic_runs.begin("work", HOUR)
    assert periodic_runs.begin("other work", HOUR)


def test_a_turn_that_a_wrong_clock_put_far_ahead_is_due() -> None:
    assert periodic_runs.begin("work", HOUR)
    periodic_runs.put_off("work", timedelta(days=60))
    expire_implausible_deadlines()
    assert periodic_runs.begin("work", HOUR)
    assert not periodic_runs.begin("work", HOUR)


def test_it_goes_on_where_it_was() -> None:
    assert periodic_runs.position("work") == 0
    periodic_runs.begin("work", HOUR)
    periodic_runs.move_to("work", 7)
    _time_passes(HOUR)
    periodic_runs.begin("work", HOUR)
    assert periodic_runs.position("work") == 7
    assert execute("SELECT COUNT(*) FROM periodic_runs").fetchone()[0] == 1
