"""The stored security statuses, on both engines: what is wanted, that one worker asks, and when it is tried again."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from peewee import Database

import solar_systems
from api import killmails
from database import db, utcnow
from models import SolarSystem
from tests.web_app import make_killmail, make_user

JITA, TAMA, OISIO = 30_000_142, 30_002_813, 30_002_799


@pytest.fixture(autouse=True)
def _database(any_db: Database) -> None:
    """Every test here runs on both engines."""


def pass_time(minutes: float) -> None:
    """Every wait is so much nearer to its end."""
    for row in SolarSystem.select().where(SolarSystem.retry_at.is_null(False)):
        row.retry_at -= timedelta(minutes=minutes)
        row.save()


def test_what_was_never_entered_is_not_wanted() -> None:
    solar_systems.enter([])
    assert not solar_systems.wanted()
    assert solar_systems.claim() is None


def test_an_entered_one_is_claimed_by_one_and_kept_for_good() -> None:
    solar_systems.enter([JITA, JITA])
    assert solar_systems.wanted()
    assert [solar_systems.claim(), solar_systems.claim()] == [JITA, None]
    assert not solar_systems.wanted()
    solar_systems.save(JITA, 0.9459131360054016)
    solar_systems.enter([JITA])
    pass_time(minutes=60 * 24 * 365)
    assert not solar_systems.wanted()
    assert solar_systems.security_statuses([JITA, TAMA]) == {JITA: 0.9459131360054016}


def test_what_a_dead_worker_had_claimed_is_due_two_minutes_later() -> None:
    solar_systems.enter([JITA])
    solar_systems.claim()
    pass_time(minutes=1.9)
    assert solar_systems.claim() is None
    pass_time(minutes=0.2)
    assert solar_systems.claim() == JITA


def test_what_is_put_off_is_due_then_and_the_others_are_not_touched() -> None:
    solar_systems.enter([JITA, TAMA])
    first = solar_systems.claim()
    assert first is not None
    solar_systems.put_off(first, utcnow() + timedelta(minutes=15))
    assert solar_systems.claim() == {JITA: TAMA, TAMA: JITA}[first]
    solar_systems.put_off(first, utcnow())
    assert solar_systems.claim() == first


def test_putting_off_all_brings_nobody_forward_and_nobody_back() -> None:
    solar_systems.enter([JITA, TAMA, OISIO])
    solar_systems.save(JITA, 0.9)
    solar_systems.put_off(TAMA, utcnow() + timedelta(minutes=15))
    solar_systems.put_off_all(utcnow() + timedelta(minutes=2))
    assert solar_systems.claim() is None
    pass_time(minutes=2.1)
    assert [solar_systems.claim(), solar_systems.claim()] == [OISIO, None]
    assert solar_systems.security_statuses([JITA, TAMA, OISIO]) == {JITA: 0.9}
    pass_time(minutes=13)
    assert {solar_systems.claim(), solar_systems.claim()} == {OISIO, TAMA}


def test_of_many_at_once_each_gets_another() -> None:
    ids = list(range(JITA, JITA + 40))
    solar_systems.enter(ids)
    claimed: list[int | None] = []
    together = threading.Barrier(4)

    def work() -> None:
        with db.connection_context():
            together.wait(10)
            for _ in range(10):
                claimed.append(solar_systems.claim())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(each for each in claimed if each is not None) == ids


def test_killmails_are_read_with_what_is_known_of_their_systems() -> None:
    viewer = make_user()
    solar_systems.enter([JITA, TAMA])
    solar_systems.save(JITA, 0.945913)
    for killmail_id, system_id in enumerate((JITA, TAMA, OISIO, JITA), start=1):
        make_killmail(killmail_id, viewer, solar_system_id=system_id)
    page = killmails.page_of(viewer, killmails.Filter(), 10, None, frozenset())
    assert [view.security_status for view in page.nodes] == [0.9, None, None, 0.9]
    assert [view.security_status for view in killmails.load([1, 2], frozenset())] == [0.9, None]
    assert killmails.count_of(viewer, killmails.Filter()) == 4
