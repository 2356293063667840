"""What the pictures count, on both engines, against counting by hand."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta

import pytest
from peewee import Database

from api import killmails, statistics
from api.statistics import Day, Hour, Ranked
from tests.web_app import link, make_killmail, make_user, name

ME = 96_000_000
NOON = datetime(2026, 11, 2, 12, 30)  # a Monday


@pytest.fixture(autouse=True)
def _database(any_db: Database) -> None:
    """Every test here runs on both engines."""


def test_days_tell_kills_from_losses() -> None:
    me = make_user(ME)
    make_killmail(1, me, killmail_time=NOON)
    make_killmail(2, me, killmail_time=NOON, victim_id=ME)
    make_killmail(3, me, killmail_time=NOON.replace(hour=23, minute=59, second=59), victim_id=None)
    make_killmail(4, me, killmail_time=NOON + timedelta(days=2), victim_id=ME)
    make_killmail(5, me, killmail_time=NOON - timedelta(days=1))
    make_killmail(6, make_user(), killmail_time=NOON)
    assert statistics.days(me, NOON.replace(hour=0, minute=0)) == [
        Day(date(2026, 11, 2), 2, 1),
        Day(date(2026, 11, 4), 0, 1),
    ]


def test_hours_are_those_of_the_calendar() -> None:
    # Given a killmail every seven hours for three weeks
    me = make_user(ME)
    times = [NOON + timedelta(hours=7 * number) for number in range(72)]
    for number, at in enumerate(times, 1):
        make_killmail(number, me, killmail_time=at)
    make_killmail(1000, make_user(), killmail_time=NOON)
    # Then each stands where Python's calendar has it
    expected = Counter((at.weekday(), at.hour) for at in times)
    assert {(each.weekday, each.hour): each.count for each in statistics.hours(me)} == expected
    assert Hour(0, 12, expected[0, 12]) in statistics.hours(me)


def test_the_most_comes_first_and_names_are_there_where_known() -> None:
    me, other = make_user(ME), make_user()
    for number, (ship, system) in enumerate([(587, 1), (587, 1), (670, 2), (670, 1), (24690, 2)], 1):
        make_killmail(number, me, victim_id=ME, ship_type_id=ship, solar_system_id=system)
    make_killmail(6, me, ship_type_id=24690, solar_system_id=2)
    make_killmail(7, other, victim_id=ME, ship_type_id=24690, solar_system_id=2)
    name(587, "Rifter")
    name(670, None)
    assert statistics.ships_lost(me) == [Ranked(587, "Rifter", 2), Ranked(670, None, 2), Ranked(24690, None, 1)]
    assert statistics.systems(me) == [Ranked(1, None, 3), Ranked(2, None, 3)]
    # In all six the first attacker is the viewer, in a Caracal; the seventh is in another's list
    assert statistics.ships_flown(me) == [Ranked(621, None, 6)]
    assert len(statistics.ships_lost(make_user(5))) == 0


def test_a_top_list_is_short() -> None:
    me = make_user(ME)
    for number in range(1, 21):
        make_killmail(number, me, solar_system_id=number)
    assert [each.id for each in statistics.systems(me)] == list(range(1, statistics.TOP + 1))


def test_what_leaving_deletes_is_counted() -> None:
    me, other = make_user(ME), make_user()
    make_killmail(1, me)
    make_killmail(2, me, other)
    make_killmail(3, other)
    link(me, 4)  # listed, not stored
    assert killmails.held_by(me) == {"alone": 1, "shared": 1}
    assert killmails.held_by(make_user(5)) == {"alone": 0, "shared": 0}
