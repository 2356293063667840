"""The HTTP door of the API: who may post what, and what comes back when something is wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from peewee import InterfaceError, OperationalError
from playhouse.pool import MaxConnectionsExceeded

import accounts
from api.limits import MAX_FIELDS
from tests.web_app import FakeBackend, make_killmail, make_user


def ask(client: FlaskClient, query: str, variables: dict[str, Any] | None = None, **options: Any) -> Any:
    return client.post("/graphql", json={"query": query, "variables": variables}, **options)


def code_of(response: Any) -> str:
    return str(response.get_json()["errors"][0]["extensions"]["code"])


def test_signed_out_gets_null_for_me_and_unauthenticated_for_the_rest(client: FlaskClient) -> None:
    assert ask(client, "{ me { id } }").json == {"data": {"me": None}}
    for query in (
        "{ killmails { nodes { id } } }",
        '{ killmail(id: "1") { id } }',
        "{ syncs { nodes { id } } }",
        "mutation { syncMyKillmails { queued } }",
        "mutation { unlinkCharacter { unlinked } }",
        "mutation { logout }",
    ):
        assert code_of(ask(client, query)) == "UNAUTHENTICATED", query


def test_a_changed_session_epoch_signs_out(client: FlaskClient, sign_in: Callable[..., None], app: Flask) -> None:
    user = make_user()
    sign_in(user)
    assert ask(client, "{ me { characterId } }").get_json()["data"]["me"] == {"characterId": "90000001"}
    user.session_epoch += 1
    user.save()
    assert ask(client, "{ me { characterId } }").get_json()["data"]["me"] is None


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"query": "{ me { id } }"}', "text/plain", 415),
        (b"query={me{id}}", "application/x-www-form-urlencoded", 415),
        (b'[{"query": "{ me { id } }"}]', "application/json", 400),
        (b"not json", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b'{"query": 5}', "application/json", 400),
        (b'{"query": "{ me { id } }", "variables": []}', "application/json", 400),
        (b'{"query": "{ nonsense }"}', "application/json", 400),
        (b'{"query": "{ unclosed"}', "application/json", 400),
        (b'{"query": "query A { me { id } } query B { me { id } }"}', "application/json", 400),
        (b'{"query": "subscription { newKillmail { id } }"}', "application/json", 400),
        (b'{"query": "' + b" " * 70_000 + b'"}', "application/json", 413),
    ],
)
def test_what_is_not_one_operation_is_refused(client: FlaskClient, body: bytes, content_type: str, status: int) -> None:
    response = client.post("/graphql", data=body, content_type=content_type)
    assert response.status_code == status
    assert code_of(response) == "BAD_USER_INPUT"


def test_get_is_refused_unless_the_explorer_is_on(
    client: FlaskClient, make_settings: Callable[..., Any], backend: FakeBackend
) -> None:
    response = client.get("/graphql")
    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"

    from app import create_app

    settings = make_settings(graphql_explorer=True)
    explorer = create_app(settings, backend.system(settings)).test_client().get("/graphql")
    assert explorer.status_code == 200
    assert "'unsafe-inline'" in explorer.headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in client.get("/").headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://localhost:1"]
)
def test_a_foreign_page_is_refused(client: FlaskClient, origin: str) -> None:
    response = ask(client, "{ me { id } }", headers={"Origin": origin})
    assert response.status_code == 403
    assert code_of(response) == "FORBIDDEN"


@pytest.mark.parametrize("origin", ["http://localhost", "http://127.0.0.1:8000"])
def test_our_own_page_is_not(client: FlaskClient, origin: str) -> None:
    assert ask(client, "{ me { id } }", headers={"Origin": origin}).status_code == 200


def nested(levels: int) -> str:
    return "{ killmails { nodes { items " + "{ items " * levels + "{ flag }" + " }" * levels + " } } }"


@pytest.mark.parametrize(
    "query",
    [
        nested(14),
        "{ " + "me { id } " * (MAX_FIELDS // 2 + 1) + "}",
        "{ " + " ".join(f"a{n}: me {{ id }}" for n in range(11)) + " }",
        "{ " + " ".join(f"a{n}: killmails {{ nodes {{ id }} }}" for n in range(4)) + " }",
        "{ me { ...A } } fragment A on User { ...A }",
        # each fragment spreads the one before ten times
        "{ me { ...F9 } } fragment F0 on User { id } "
        + " ".join(f"fragment F{n} on User {{ {f'...F{n - 1} ' * 10} }}" for n in range(1, 10)),
        # the same, with nothing at the end of it that could be counted
        "{ me { ...F6 } } fragment F0 on User { } "
        + " ".join(f"fragment F{n} on User {{ {f'...F{n - 1} ' * 10} }}" for n in range(1, 7)),
        "{ me { id " + "id " * 2100 + "} }",
        "{" * 3000,
    ],
    ids=["deep", "wide", "aliases", "pages", "cycle", "bomb", "hollow bomb", "long", "braces"],
)
def test_a_document_that_asks_for_too_much_is_refused(client: FlaskClient, query: str) -> None:
    response = ask(client, query)
    assert response.status_code == 400
    assert code_of(response) == "BAD_USER_INPUT"


def test_introspection_works(client: FlaskClient) -> None:
    from graphql import get_introspection_query

    response = ask(client, get_introspection_query())
    assert response.status_code == 200
    assert "errors" not in response.json


def test_an_internal_error_is_masked_and_logged(
    client: FlaskClient, sign_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("a secret detail")

    # Given a resolver with a bug
    sign_in(make_user())
    monkeypatch.setattr(accounts, "token_state", fail)
    # When it is asked
    with caplog.at_level(logging.ERROR):
        response = ask(client, "{ me { tokenState } }")
    # Then the client learns a reference, and the log the rest
    message = response.get_json()["errors"][0]["message"]
    assert code_of(response) == "INTERNAL"
    assert "secret" not in message
    assert message.split()[-1].rstrip(".") in caplog.text
    assert "a secret detail" in caplog.text


@pytest.mark.parametrize("trouble", [OperationalError, InterfaceError, MaxConnectionsExceeded])
def test_a_database_that_is_away_is_unavailable(
    client: FlaskClient, sign_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
) -> None:
    def fail(*_: Any) -> None:
        raise trouble("connection refused at 10.0.0.7")

    sign_in(make_user())
    monkeypatch.setattr(accounts, "token_state", fail)
    response = ask(client, "{ me { tokenState } }")
    assert code_of(response) == "UNAVAILABLE"
    assert "10.0.0.7" not in response.text


def test_mutations_are_limited_per_user(client: FlaskClient, sign_in: Callable[..., None]) -> None:
    sign_in(make_user())
    answers = [ask(client, "mutation { syncMyKillmails { queued } }") for _ in range(61)]
    assert all("errors" not in answer.json for answer in answers[:60])
    assert code_of(answers[60]) == "RATE_LIMITED"
    # Reading goes on
    assert "errors" not in ask(client, "{ me { id } }").json


def test_queries_are_limited_per_address(client: FlaskClient) -> None:
    codes = {ask(client, "{ me { id } }").status_code for _ in range(600)}
    assert codes == {200}
    limited = ask(client, "{ me { id } }")
    assert limited.status_code == 429
    assert code_of(limited) == "RATE_LIMITED"


def test_worker_status_is_open_and_says_when_the_broker_is_away(client: FlaskClient, backend: FakeBackend) -> None:
    query = "{ workerStatus { queueName messageCount consumerCount delayedCount deadCount } }"
    assert ask(client, query).get_json()["data"]["workerStatus"][0]["messageCount"] == 7
    backend.broker_error = ConnectionError("amqp://user:password@host")
    response = ask(client, query)
    assert code_of(response) == "UNAVAILABLE"
    assert "password" not in response.text


def test_other_fields_survive_an_error(client: FlaskClient, sign_in: Callable[..., None]) -> None:
    user = make_user()
    make_killmail(1, user)
    sign_in(user)
    response = ask(client, '{ killmail(id: "1") { id } me { id } bad: killmails(first: 0) { nodes { id } } }')
    assert response.status_code == 200
    assert code_of(response) == "BAD_USER_INPUT"
