"""ESI cannot be reached: it is found out before a slot is taken, spends nothing, and counts like any failed try."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

import prices
from actors.killmails import fetch_killmail
from actors.names import resolve_names
from actors.prices import refresh_prices
from database import execute, insert_rows, utcnow
from esi.roads import DOWN, DOWNTIME_FAILURES
from models import RateBucket, RateSlot, SyncState
from tests.actors.asking import ask, only_row, only_sync


@pytest.fixture
def unreachable(simulated, configure) -> Iterator[Callable[[], None]]:
    """From the call on nobody listens at ESI's address. The port is bound, so that nobody else takes it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield lambda: configure(ESI_URL=f"http://127.0.0.1:{bound.getsockname()[1]}", SSO_URL=simulated.url)


def _spent() -> tuple[object, ...]:
    slots = [row.next_at for row in RateSlot.select() if row.next_at]
    return slots, sorted((row.bucket, row.spends) for row in RateBucket.select())


def test_a_killmail_is_deferred_like_after_any_failure(simulated, unreachable, crew, post):
    pilot = simulated.pilot(1)
    post.lose("fetch_killmail", times=1)
    ask(pilot)
    crew.drain()
    unreachable()
    before = _spent()

    fetch_killmail.send(only_row().killmail_id)
    crew.drain()

    row = only_row()
    assert (row.state, row.attempts, row.claimed_until) == ("deferred", 1, None)
    assert "no connection" in row.last_error
    assert _spent() == before
    assert crew.dead == []


def test_a_sync_tries_its_list_again(simulated, unreachable, crew):
    pilot = simulated.pilot(1)
    unreachable()
    ask(pilot)
    crew.drain()

    row = only_sync()
    assert (row.state, row.attempts) == (SyncState.LISTING, 1)
    assert "ESI gave no usable answer" in row.waiting_for
    assert _spent() == ([], [])


def test_names_and_prices_wait(unreachable, crew):
    unreachable()
    insert_rows("names", ("id", "updated_at"), [(587, utcnow())])
    prices.ask()
    resolve_names.send()
    refresh_prices.send()
    crew.drain()

    assert execute("SELECT name FROM names").fetchall() == [(None,)]
    assert _spent() == ([], [])
    assert crew.dead == []


def test_on_a_closed_road_it_is_no_failure(simulated, unreachable, crew):
    """ESI is down, and its load balancer with it: a pause, and no attempt spent."""
    pilot = simulated.pilot(1)
    execute(
        "INSERT INTO gates (name, closed_until, reason, failures) VALUES ('downtime', ?, 'ESI is down', 5)",
        (time.time() + 30.0,),
    )
    unreachable()
    ask(pilot)
    crew.drain()

    row = only_sync()
    assert (row.state, row.attempts, row.sent_at) == (SyncState.QUEUED, 0, None)


def test_an_outage_pauses_a_backlog_and_costs_it_next_to_nothing(simulated, unreachable, crew, post, later, tick):
    """Hours without ESI: a handful of tries finds it out, the rest wait, and afterwards nothing has been given up."""
    pilot = simulated.pilot(40)
    post.refuse("fetch_killmail")
    ask(pilot)
    crew.drain()
    unreachable()
    post.mend()
    for _ in range(10):
        later(61)
        tick()

    attempts = execute("SELECT SUM(attempts) FROM ledger").fetchone()[0]
    assert 0 < attempts <= DOWNTIME_FAILURES
    gate = execute("SELECT failures, reason FROM gates WHERE name = 'downtime'").fetchone()
    assert gate[0] > DOWNTIME_FAILURES, "it is tried again now and then"
    assert gate[1] == DOWN
