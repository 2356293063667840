"""graphql-transport-ws, state by state, as its protocol page has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import websocket
from flask import Flask
from peewee import OperationalError

from api import hub, killmails, transport_ws
from api.hub import Hub
from models import User
from tests.api.socket_client import Client
from tests.web_app import make_killmail, make_user

Connect = Callable[..., Client]
WATCH = "subscription { newKillmail { id } }"


@pytest.mark.parametrize("header", [[], ["Sec-WebSocket-Protocol: graphql-ws"]])
def test_another_subprotocol_is_not_acceptable(connect: Connect, header: list[str]) -> None:
    assert connect(init=False, subprotocols=[], header=header).close_code() == 4406


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a_foreign_page_gets_no_socket(connect: Connect, origin: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(make_user(), origin=origin)
    assert refused.value.status_code == 403


def test_a_program_without_an_origin_gets_one(connect: Connect) -> None:
    connect(suppress_origin=True)


def test_subscribing_before_the_handshake_is_unauthorized(connect: Connect) -> None:
    client = connect(init=False)
    client.subscribe(WATCH)
    assert client.close_code() == 4401


def test_a_second_handshake_is_too_many(connect: Connect) -> None:
    client = connect()
    client.send({"type": "connection_init"})
    assert client.close_code() == 4429


def test_a_client_that_says_nothing_is_closed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_ws, "INIT_SECONDS", 0.05)
    assert connect(init=False).close_code() == 4408


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[]",
        "5",
        json.dumps({"type": "nonsense"}),
        json.dumps({"type": ["subscribe"]}),
        json.dumps({"id": "1", "type": "next", "payload": {}}),
        json.dumps({"type": "subscribe", "payload": {"query": WATCH}}),
        json.dumps({"id": "", "type": "subscribe", "payload": {"query": WATCH}}),
        json.dumps({"id": 5, "type": "subscribe", "payload": {"query": WATCH}}),
        json.dumps({"id": "x" * 200, "type": "subscribe", "payload": {"query": WATCH}}),
        json.dumps({"id": "1", "type": "subscribe"}),
        json.dumps({"id": "1", "type": "subscribe", "payload": {"query": 5}}),
        json.dumps({"type": "complete"}),
        "[" * 60_000,
    ],
)
def test_a_malformed_message_closes(connect: Connect, message: str) -> None:
    client = connect()
    client.send(message)
    assert client.close_code() == 4400


def test_binary_messages_close(connect: Connect) -> None:
    client = connect()
    client.ws.send_binary(b'{"type": "ping"}')
    assert client.close_code() == 4400


def test_a_message_that_is_too_long_closes(connect: Connect) -> None:
    client = connect()
    client.send(" " * 70_000)
    assert client.close_code() == 1009


def test_an_id_in_use_is_taken_and_free_again_once_complete(connect: Connect) -> None:
    client = connect(make_user())
    client.subscribe(WATCH)
    client.send({"id": "1", "type": "complete"})
    client.subscribe(WATCH)
    client.settle()
    client.subscribe(WATCH)
    assert client.close_code() == 4409


def test_ping_is_answered_at_any_time(connect: Connect) -> None:
    client = connect(init=False)
    client.settle()
    client.send({"type": "ping"})
    assert client.receive() == {"type": "pong"}
    client.send({"type": "pong"})
    client.settle()


def test_completing_what_does_not_run_is_nothing(connect: Connect) -> None:
    client = connect()
    client.send({"id": "77", "type": "complete"})
    client.settle()


def test_queries_are_served(connect: Connect) -> None:
    user = make_user()
    make_killmail(3, user)
    client = connect(user)
    client.subscribe("query($first: Int) { killmails(first: $first) { nodes { id } } }", first=1)
    assert client.next() == {"killmails": {"nodes": [{"id": "3"}]}}
    assert client.receive() == {"id": "1", "type": "complete"}


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("subscription { nonsense }", {}, "BAD_USER_INPUT"),
        ("subscription { unclosed", {}, "BAD_USER_INPUT"),
        ("mutation { logout }", {}, "BAD_USER_INPUT"),
        ("subscription { newKillmail { id } workerStatusUpdates { queueName } }", {}, "BAD_USER_INPUT"),
        ("subscription { ...A } fragment A on Subscription { newKillmail { id } }", {}, "BAD_USER_INPUT"),
        ("subscription { __typename }", {}, "BAD_USER_INPUT"),
        ('subscription { newKillmail(after: "1 OR 1=1") { id } }', {}, "BAD_USER_INPUT"),
        ('subscription { newKillmail(after: "12345") { id } }', {}, "BAD_USER_INPUT"),
        ('subscription { syncProgress(syncId: "12345") { id } }', {}, "BAD_USER_INPUT"),
        ("subscription($s: Int!) { workerStatusUpdates(intervalSeconds: $s) { queueName } }", {}, "BAD_USER_INPUT"),
        ("subscription { workerStatusUpdates(intervalSeconds: 0) { queueName } }", {}, "BAD_USER_INPUT"),
        ("subscription { workerStatusUpdates(intervalSeconds: null) { queueName } }", {}, "BAD_USER_INPUT"),
        ("query A { me { id } } query B { me { id } }", {}, "BAD_USER_INPUT"),
    ],
)
def test_what_cannot_be_executed_is_an_error_and_the_socket_goes_on(
    connect: Connect, query: str, variables: dict[str, Any], code: str
) -> None:
    client = connect(make_user())
    client.subscribe(query, **variables)
    message = client.receive()
    assert (message["type"], message["id"]) == ("error", "1")
    assert message["payload"][0]["extensions"]["code"] == code
    # and the id is free again
    client.subscribe("{ me { characterId } }")
    assert client.next() == {"me": {"characterId": "90000001"}}


@pytest.mark.parametrize(
    "query",
    [WATCH, "subscription { syncProgress { id } }", "subscription { workerStatusUpdates { queueName } }"],
)
def test_signed_out_gets_no_subscription(connect: Connect, query: str) -> None:
    client = connect()
    client.subscribe(query)
    assert client.receive()["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"


def test_the_number_of_subscriptions_is_limited(connect: Connect) -> None:
    client = connect(make_user())
    for number in range(transport_ws.MAX_SUBSCRIPTIONS + 1):
        client.subscribe(WATCH, str(number))
    message = client.receive()
    assert message["id"] == str(transport_ws.MAX_SUBSCRIPTIONS)
    assert message["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


def test_the_number_of_sockets_is_limited(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_SOCKETS_EACH", 2)
    user = make_user()
    clients = [connect(user), connect(user)]
    assert connect(user, init=False).close_code() == 1013
    connect(make_user(90_000_002))
    # One that goes makes room
    clients[0].ws.close()
    clients[1].settle()
    connect(user)


def test_a_socket_too_many_is_told_to_try_later(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_SOCKETS", 2)
    first, _ = [connect(make_user(90_000_000 + number)) for number in (1, 2)]
    assert connect(make_user(90_000_003), init=False).close_code() == 1013
    first.settle()


def test_a_stopping_server_says_goodbye(connect: Connect, app: Flask) -> None:
    client = connect(make_user())
    client.subscribe(WATCH)
    client.settle()
    stopping: Hub = app.extensions[transport_ws.EXTENSION]
    stopping.close_all()
    assert client.close_code() == 1001


def test_a_database_that_is_away_asks_to_come_back_later(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """graphql-ws, the usual client, takes 1011 for fatal and never connects again."""
    client = connect(make_user())

    def fail(*_: Any) -> Any:
        raise OperationalError("terminating connection due to administrator command")

    monkeypatch.setattr(killmails, "reached_since", fail)
    client.subscribe(WATCH)
    assert client.close_code() == 1012


def test_a_defect_says_so(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(make_user())

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(killmails, "reached_since", fail)
    client.subscribe(WATCH)
    assert client.close_code() == 1011


def test_a_session_that_ended_closes_the_socket(connect: Connect) -> None:
    user = make_user()
    client = connect(user)
    User.update(session_epoch=77).execute()
    client.subscribe("{ me { id } }")
    assert client.close_code() == 4403
