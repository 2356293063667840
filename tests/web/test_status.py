"""The operator's page: open to anybody, and about nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import system
from database import from_epoch
from esi.limiter import RoadState
from esi.rate_limit import Bucket
from models import RateBucket, User
from tests.web_app import FakeBackend, make_killmail, make_sync, make_user, name, wait_for_killmail


@pytest.fixture
def roads(app: Flask) -> Iterator[list[RoadState]]:
    """What the limiter says; to be added to before the page is asked for."""
    states: list[RoadState] = []
    app.extensions[system.EXTENSION] = replace(app.extensions[system.EXTENSION], roads=lambda: states)
    return iter([states])


@pytest.fixture
def road_states(roads: Iterator[list[RoadState]]) -> list[RoadState]:
    return next(roads)


def test_it_tells_how_much_there_is_to_do_and_of_nobody(client: FlaskClient) -> None:
    user = make_user(character_name="Somebody")
    make_user(90_000_002, needs_login_reason="refused", next_sync_at=None, character_name="Nobody Else")
    make_killmail(4_242_421, user)
    sync = make_sync(user.id, state="FETCHING")
    wait_for_killmail(sync, 777_777)
    name(96_000_000, "A Stranger")
    text = client.get("/status").text
    for figure in ("<dt>Pending</dt><dd>1</dd>", "<dt>Fetching</dt><dd>1</dd>", "<dt>Needs login</dt><dd>1</dd>"):
        assert figure in text
    assert "esi_killmail_details_queue" in text
    assert "1 are stored" in text
    for secret in ("Somebody", "Nobody Else", "A Stranger", "4242421", "4,242,421", "777777", "777,777", "90000001"):
        assert secret not in text


def test_it_looks_the_same_to_who_is_signed_in(client: FlaskClient, sign_in: Callable[[User], None]) -> None:
    sign_in(make_user(character_name="Somebody"))
    assert "<dt>Ok</dt><dd>1</dd>" in client.get("/status").text


def test_a_broker_that_is_away_is_told(client: FlaskClient, backend: FakeBackend) -> None:
    backend.broker_error = ConnectionError("amqp://user:secret@host")
    response = client.get("/status")
    assert response.status_code == 200
    assert "The broker does not answer" in response.text
    assert "secret" not in response.text


def test_budgets_and_when_they_are_full_again(client: FlaskClient, road_states: list[RoadState]) -> None:
    now = time.time()
    bucket = Bucket(3600, 900).spend(now, 600)
    key = "killmail:ip-of-somebody"
    RateBucket.create(bucket=key, allowance=3600, window_seconds=900, spends=bucket.pack(), force_insert=True)
    road_states.append(RoadState("killmail", 3600, 3000, None, None))
    text = client.get("/status").text
    assert "3,000" in text
    assert "15 min after use" in text
    full_at = bucket.reopens_at(now, 3600)
    assert full_at > now + 800
    assert f"{from_epoch(full_at):%H:%M}" in text
    assert "ip-of-somebody" not in text
    assert "Every road to ESI is open" in text


def test_closed_gates_are_told(client: FlaskClient, road_states: list[RoadState]) -> None:
    until = time.time() + 600
    road_states.append(RoadState("downtime", None, None, until, "ESI is down"))
    text = client.get("/status").text
    assert f"{from_epoch(until):%H:%M}" in text
    assert "ESI is down" in text
    assert "Every road to ESI is open" not in text


def test_it_is_counted_once_in_a_while(client: FlaskClient, backend: FakeBackend) -> None:
    for _ in range(3):
        client.get("/status")
    assert backend.counted == 1


def test_a_budget_that_is_used_up_is_no_open_road(client: FlaskClient, road_states: list[RoadState]) -> None:
    road_states.append(RoadState("killmail", 3600, 0, time.time() + 300, "ESI's allowance is used up"))
    text = client.get("/status").text
    assert "an allowance is used up" in text
    assert "Every road to ESI is open" not in text
