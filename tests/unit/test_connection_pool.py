"""How many connections a process holds, and that it holds none for long that it does not use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import peewee
import psycopg2
import pytest

import connection_pool
import database
from clock import OBSERVE_EVERY_SECONDS
from database import WEB_CONNECTIONS, add_connections, db, execute, is_sqlite, keep_connected

#: Seconds that anything here may take.
LIMIT = 20.0


@pytest.fixture
def pool(any_db_url: str) -> Iterator[Any]:
    """The pool of a process that has just connected: no connection is open."""
    made: Any = database.connect(any_db_url)
    yield made
    made.close_all()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def held(pool: Any) -> int:
    """Connections that the process has open."""
    return len(pool._connections) + len(pool._in_use)


def at_once(threads: int, work: Callable[[], None]) -> list[BaseException]:
    """Run the work in so many threads; returns what they raised."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except (peewee.PeeweeException, ValueError, threading.BrokenBarrierError) as error:
            failed.append(error)

    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return failed


def test_a_rush_waits_for_the_connections_there_are(pool: Any) -> None:
    """Given ten times as many callers as connections, Then each is served and no connection more was opened."""
    most: list[int] = []

    def work() -> None:
        with db.connection_context():
            execute("SELECT 1").fetchone()
            most.append(held(pool))

    assert at_once(10 * WEB_CONNECTIONS, work) == []
    assert max(most) <= WEB_CONNECTIONS


def test_a_worker_adds_a_connection_for_each_thread(any_db_url: str) -> None:
    pool: Any = database.connect(any_db_url, max_connections=database.OTHER_CONNECTIONS)
    add_connections(3)
    at_the_same_time = threading.Barrier(database.OTHER_CONNECTIONS + 3, timeout=LIMIT)

    def work() -> None:
        with db.connection_context():
            at_the_same_time.wait()

    assert at_once(database.OTHER_CONNECTIONS + 3, work) == []
    pool.close_all()


def test_connections_that_lie_idle_are_closed(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though no caller comes: peewee's own pool looks at them only then."""
    monkeypatch.setattr(connection_pool, "LIFETIME_SECONDS", 0.2)
    monkeypatch.setattr(connection_pool, "SWEEP_SECONDS", 0.05)
    for _ in range(2):  # the second time, what closes them has ended and starts again
        at_the_same_time = threading.Barrier(5, timeout=LIMIT)

        def work(barrier: threading.Barrier = at_the_same_time) -> None:
            with db.connection_context():
                barrier.wait()

        assert at_once(5, work) == []
        until(lambda: held(pool) == 0)
        until(lambda: not pool._sweeping)


def test_a_connection_in_use_is_not_closed_however_old(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_pool, "LIFETIME_SECONDS", 0.05)
    monkeypatch.setattr(connection_pool, "SWEEP_SECONDS", 0.02)
    with db.connection_context():
        threading.Thread(target=lambda: db.connect() and db.close()).start()
        until(lambda: len(pool._in_use) == 1 and not pool._connections and not pool._sweeping)
        assert execute("SELECT 1").fetchone()[0] == 1


def test_connections_are_closed_though_this_machines_clock_was_set_back(pool: Any) -> None:
    """By such a clock they would seem to be new for as long."""
    assert pool._is_stale(time.time() + 3600)
    assert not pool._is_stale(time.time() - 1)


def test_one_that_the_server_cut_while_it_lay_idle_is_not_handed_out(pool: Any, any_db_url: str) -> None:
    if is_sqlite():
        return  # there is no server
    with db.connection_context():
        [pid] = execute("SELECT pg_backend_pid()").fetchone()
    with closing(psycopg2.connect(any_db_url)) as other:
        other.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    with db.connection_context():
        assert execute("SELECT pg_backend_pid()").fetchone()[0] != pid


def test_a_thread_that_keeps_its_connection_observes_the_clock_now_and_then(
    pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one clock costs: none at a checkout, a statement every OBSERVE_EVERY_SECONDS where one is kept."""
    observed: list[float] = []
    monkeypatch.setattr(database.clock, "observe", lambda sent, epoch, received: observed.append(epoch))
    with db.connection_context():
        assert len(observed) == (0 if is_sqlite() else 1)
        database.clock._best = None if is_sqlite() else _observed_now()
        keep_connected()
        assert len(observed) == (0 if is_sqlite() else 1)
        database.clock._looked_at = time.monotonic() - OBSERVE_EVERY_SECONDS
        keep_connected()
        keep_connected()
        assert len(observed) == (0 if is_sqlite() else 2)


def _observed_now() -> Any:
    from clock import _Observation

    return _Observation(time.time() - time.monotonic(), 0.001, time.monotonic())
