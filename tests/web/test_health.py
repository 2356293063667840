"""What monitors ask: alive, able to work, and how much there is to do."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database

import database
from actors.counts import BrokerUnreachable, PublishingBlocked, QueueRefused
from models import User
from tests.web_app import FakeBackend, make_killmail, make_sync, make_user, name, wait_for_killmail


def test_healthz_needs_nothing(client: FlaskClient, backend: FakeBackend) -> None:
    backend.broker_error = ConnectionError("down")
    assert client.get("/healthz").json == {"status": "ok"}


def test_readyz(client: FlaskClient) -> None:
    response = client.get("/readyz")
    assert (response.status_code, response.json) == (200, {"status": "ok", "database": "ok", "broker": "ok"})


def test_readyz_names_the_broker(client: FlaskClient, backend: FakeBackend) -> None:
    backend.broker_error = RuntimeError("amqp://user:password@host does not answer")
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json == {"status": "unavailable", "database": "ok", "broker": "unreachable"}


@pytest.mark.parametrize("error", [PublishingBlocked(), QueueRefused("esi_names_queue")])
def test_readyz_says_what_to_do_about_a_broker_that_is_of_no_use(
    client: FlaskClient, backend: FakeBackend, error: BrokerUnreachable
) -> None:
    backend.broker_error = error
    response = client.get("/readyz")
    assert response.status_code == 503
    expected = {"status": "unavailable", "database": "ok", "broker": error.state, "advice": str(error)}
    assert response.json == expected


def test_readyz_looks_once_in_a_while_however_many_ask(
    client: FlaskClient, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.broker_error = RuntimeError("down")
    assert {client.get("/readyz").status_code for _ in range(20)} == {503}
    assert backend.checked <= 2  # a second may have passed
    assert caplog.text.count("not ready: broker") == backend.checked


def test_readyz_names_the_database(client: FlaskClient, sqlite_db: Database, tmp_path: Path) -> None:
    database.connect(f"sqlite:///{tmp_path / 'empty.db'}")  # no schema in it
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json == {"status": "unavailable", "database": "unreachable", "broker": "ok"}


@pytest.fixture
def exhausted(sqlite_db: Any) -> Iterator[None]:
    """Every connection of the pool is taken by somebody else, and nobody waits for one."""
    sqlite_db._max_connections, sqlite_db._wait_timeout = 1, None
    with ThreadPoolExecutor(1) as other:
        other.submit(sqlite_db.connect).result()
        yield
        other.submit(sqlite_db.close).result()


def test_a_pool_that_is_exhausted_is_no_fault_of_the_page(client: FlaskClient, sign_in: Any, exhausted: None) -> None:
    sign_in(User(id=1, session_epoch=5))
    response = client.get("/killmails")
    assert response.status_code == 503
    assert "try again" in response.text
    assert client.get("/readyz").json == {"status": "unavailable", "database": "unreachable", "broker": "ok"}
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("error", database.UNAVAILABLE_ERRORS)
def test_a_database_that_goes_away_meanwhile_is_no_fault_of_the_page(app: Flask, error: type[Exception]) -> None:
    def broken() -> str:
        raise error("gone")

    app.add_url_rule("/broken", view_func=broken)
    response = app.test_client().get("/broken")
    assert response.status_code == 503
    assert "try again" in response.text


def test_metrics_count_and_name_nobody(client: FlaskClient, app: Flask) -> None:
    user = make_user(character_name="Somebody")
    make_user(90_000_002, needs_login_reason="refused", next_sync_at=None)
    make_user(90_000_003, refresh_token=None, next_sync_at=None)  # granted no lasting access
    make_user(90_000_004, scopes="publicData", next_sync_at=None)
    make_killmail(4242, user)
    sync = make_sync(user.id, state="FETCHING")
    wait_for_killmail(sync, 777_777)
    name(1234, "Nobody")
    text = client.get("/metrics").text
    assert "killmail_sync_killmails_stored 1.0" in text
    assert 'killmail_sync_ledger_rows{state="pending"} 1.0' in text
    assert 'killmail_sync_syncs_active{state="FETCHING"} 1.0' in text
    assert 'killmail_sync_users{token_state="ok"} 1.0' in text
    assert 'killmail_sync_users{token_state="needs_login"} 2.0' in text
    assert 'killmail_sync_users{token_state="missing_scope"} 1.0' in text
    assert 'killmail_sync_queue_messages{kind="ready",queue="esi_killmail_details_queue"} 7.0' in text
    assert not any(secret in text for secret in ("Somebody", "4242", "777777", "90000001", "Nobody"))


def test_metrics_go_on_without_the_broker(client: FlaskClient, backend: FakeBackend) -> None:
    backend.broker_error = ConnectionError("down")
    text = client.get("/metrics").text
    assert "killmail_sync_killmails_stored 0.0" in text
    assert 'killmail_sync_ledger_rows{state="rejected"} 0.0' in text, "a series that is 0 does not vanish"
    assert "queue_messages" not in text


def test_metrics_count_once_in_a_while(client: FlaskClient, backend: FakeBackend) -> None:
    client.get("/metrics")
    client.get("/metrics")
    assert backend.counted == 1
