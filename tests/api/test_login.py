"""Logging in: begun here, used once, by the browser that began it. Pages and mutations share the flow."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

import accounts
from api import login
from database import db, utcnow
from esi import refresh_slots, sso_gate
from esi.errors import SsoConfiguration, SsoUnavailable
from models import RefreshSlot, Sync, Trigger, User
from tests.web_app import FakeBackend, make_user


def begin(client: FlaskClient) -> str:
    """Press the button; the state that EVE SSO gets."""
    response = client.get("/login")
    assert response.status_code == 302
    return parse_qs(urlsplit(response.headers["Location"]).query)["state"][0]


def come_back(client: FlaskClient, state: str, code: str = "code-90000001") -> Any:
    return client.get("/auth/callback", query_string={"code": code, "state": state})


def me(client: FlaskClient) -> Any:
    return client.post("/graphql", json={"query": "{ me { characterName tokenState } }"}).get_json()["data"]["me"]


def test_a_login_ends_on_the_dashboard_with_a_sync(client: FlaskClient, backend: FakeBackend) -> None:
    response = come_back(client, begin(client))
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert me(client) == {"characterName": "Pilot 90000001", "tokenState": "OK"}
    assert backend.requests == [(User.get().id, Trigger.LOGIN, False)]


def test_a_login_within_the_cool_down_says_when_the_last_sync_was(client: FlaskClient, backend: FakeBackend) -> None:
    backend.cooldown = True
    come_back(client, begin(client))
    assert "Last synced 1 minute ago." in client.get("/").text
    assert "Last synced" not in client.get("/").text, "it is said once"


def test_a_pilot_who_unlinked_and_is_back_is_told_why_the_sync_waits(client: FlaskClient, backend: FakeBackend) -> None:
    """Unlinking shortens neither the cooldown nor ESI's cache time, and the page says so, kindly."""
    come_back(client, begin(client))
    last = utcnow() - timedelta(minutes=1)
    User.update(last_killmail_sync_at=last, list_fresh_until=last + timedelta(minutes=5)).execute()
    client.post("/graphql", json={"query": "mutation { unlinkCharacter { unlinked } }"})
    backend.cooldown = True
    come_back(client, begin(client), "code-again-90000001")
    assert (User.get().last_killmail_sync_at, User.get().list_fresh_until) == (last, last + timedelta(minutes=5))
    text = client.get("/").text
    assert "Welcome back. This character was unlinked here a short time ago." in text
    assert "Last synced 1 minute ago." in text


def test_a_code_is_exchanged_in_a_slot_so_that_refreshes_and_logins_are_four_at_most(
    client: FlaskClient, backend: FakeBackend
) -> None:
    """Given that the background holds all of its slots."""
    while refresh_slots.take(None, ("",), interactive=False):
        pass
    seen: list[tuple[bool, bool]] = []

    def look() -> None:
        idle = db.is_closed()
        seen.append((idle, refresh_slots.any_free(interactive=True)))

    backend.sso.meanwhile = look
    come_back(client, begin(client))
    assert seen == [(True, False)], "the login holds the last one, and no connection to the database"
    assert refresh_slots.any_free(interactive=True), "and gave it back"


def test_a_login_that_finds_no_slot_waits_for_it_and_then_does_without(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code is good for one use and five minutes: no pilot is sent away for slots that are all taken."""
    monkeypatch.setattr(sso_gate, "LOGIN_WAIT_SECONDS", 0.2)
    while refresh_slots.take(None, ("",), interactive=True):
        pass
    began = time.monotonic()
    assert come_back(client, begin(client)).status_code == 302
    assert time.monotonic() - began >= 0.2
    assert not refresh_slots.any_free(interactive=True), "what others hold is left alone"


def test_a_login_whose_exchange_fails_gives_its_slot_back(client: FlaskClient, backend: FakeBackend) -> None:
    state = begin(client)
    backend.sso.down = SsoUnavailable("login: no answer")
    assert come_back(client, state).status_code != 302
    assert all(slot.held_until == 0 for slot in RefreshSlot.select())


def test_tokens_are_not_stored_as_they_are_nor_put_into_the_cookie(client: FlaskClient) -> None:
    response = come_back(client, begin(client))
    user = User.get()
    assert "refresh-code" not in user.refresh_token
    assert "access-code" not in user.access_token
    assert "refresh-code" not in response.headers["Set-Cookie"]


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(client: FlaskClient) -> None:
    begun = client.get("/login")
    assert "HttpOnly" in begun.headers["Set-Cookie"]
    assert "SameSite=Lax" in begun.headers["Set-Cookie"]


def test_with_https_the_cookie_is_secure(make_settings: Callable[..., Any], backend: FakeBackend, app: Flask) -> None:
    from app import create_app

    settings = make_settings(eve_callback_url="https://killmails.example/auth/callback")
    response = create_app(settings, backend.system(settings)).test_client().get("/login")
    assert "Secure" in response.headers["Set-Cookie"]
    assert "Strict-Transport-Security" in response.headers


@pytest.mark.parametrize("state", ["", "wrong", "state-0-yyyyyyyyyyyyyyyyyyyy", "ключ"])
def test_a_state_of_nobodys_is_refused(client: FlaskClient, state: str) -> None:
    begin(client)
    response = come_back(client, state)
    assert response.status_code == 400
    assert "log in again" in response.text
    assert me(client) is None
    assert User.select().count() == 0


def test_another_browsers_state_is_refused(client: FlaskClient, app: Flask) -> None:
    """Who lures a pilot to a callback of their own must not sign the pilot in to their account."""
    state = begin(app.test_client())
    assert come_back(client, state).status_code == 400
    assert me(client) is None


def test_a_login_is_good_once(client: FlaskClient, backend: FakeBackend) -> None:
    state = begin(client)
    come_back(client, state)
    assert come_back(client, state, "code-90000002").status_code == 400
    assert User.select().count() == 1


def test_a_used_code_is_refused_and_changes_nothing(client: FlaskClient, app: Flask) -> None:
    come_back(client, begin(client))
    other = app.test_client()
    response = come_back(other, begin(other))
    assert response.status_code == 400
    assert me(other) is None


def test_a_failed_code_uses_the_state_up(client: FlaskClient) -> None:
    state = begin(client)
    assert come_back(client, state, "nonsense").status_code == 400
    assert come_back(client, state).status_code == 400


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("invalid_scope", 503, "refuses a permission"),
        ("unauthorized_client", 503, "registration"),
        ("invalid_request", 503, "could not read"),
        ("unsupported_response_type", 503, "kind of login"),
        ("server_error", 503, "an error of its own"),
        ("temporarily_unavailable", 503, "under maintenance"),
        ("something_new", 503, "does not know"),
    ],
)
def test_only_a_cancelled_login_is_called_cancelled(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, code: str, status: int, says: str
) -> None:
    state = begin(client)
    response = client.get("/auth/callback", query_string={"error": code, "state": state})
    assert response.status_code == status
    assert says in response.text
    assert "cancelled" not in response.text
    assert [code in record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [True]
    # And the login that was begun can still be finished
    assert come_back(client, state).status_code == 302


def test_a_strangers_error_is_neither_shown_nor_logged_as_it_is(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    invented = {"error": "<b>x</b>\nERROR forged", "error_description": "y\x1b[2J\nERROR forged" + "z" * 5000}
    response = client.get("/auth/callback", query_string=invented)
    assert "<b>x" not in response.text
    assert "forged" not in response.text
    messages = [record.getMessage() for record in caplog.records]
    assert not any(set(message) & set("\n\x1b") for message in messages)
    assert max(map(len, messages)) < 500
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_an_old_login_is_refused(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begin(client)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + login.LOGIN_SECONDS + 1)
    assert come_back(client, state).status_code == 400


def test_several_tabs_may_log_in_but_not_endlessly_many(client: FlaskClient) -> None:
    states = [begin(client) for _ in range(4)]
    assert come_back(client, states[0]).status_code == 400
    assert come_back(client, states[1]).status_code == 302


def test_cancelling_changes_nothing(client: FlaskClient) -> None:
    begin(client)
    response = client.get("/auth/callback?error=access_denied&state=x")
    assert response.status_code == 400
    assert "cancelled" in response.text


def test_a_login_replaces_the_whole_session(client: FlaskClient, sign_in: Callable[[User], None]) -> None:
    # Given a session that somebody else is signed in to, with a token a page of theirs knows
    sign_in(make_user(90_000_009))
    client.get("/")
    with client.session_transaction() as session:
        session["csrf"] = "known"
        session["planted"] = "x"
    # When a pilot logs in
    come_back(client, begin(client))
    # Then nothing of it is left
    with client.session_transaction() as session:
        assert "planted" not in session
        assert session.get("csrf") != "known"
    assert me(client)["characterName"] == "Pilot 90000001"


@pytest.mark.parametrize("failure", [SsoUnavailable("down"), SsoConfiguration("wrong client")])
def test_an_sso_that_is_away_gets_a_page_that_says_so(
    client: FlaskClient, backend: FakeBackend, failure: Exception
) -> None:
    state = begin(client)
    backend.sso.down = failure
    assert client.get("/login").status_code == 503
    assert come_back(client, state).status_code == 503
    assert User.select().count() == 0


def test_without_an_eve_application_the_page_says_what_to_do(
    make_settings: Callable[..., Any], backend: FakeBackend, app: Flask
) -> None:
    from app import create_app

    settings = make_settings(eve_client_id="")
    response = create_app(settings, backend.system(settings)).test_client().get("/login")
    assert response.status_code == 503
    assert "EVE_CLIENT_ID" in response.text


def test_the_api_logs_in_too(client: FlaskClient) -> None:
    begun = client.post("/graphql", json={"query": "mutation { login { url state } }"}).get_json()["data"]["login"]
    assert begun["state"] in begun["url"]
    query = 'mutation($s: String!) { authenticateWithCode(code: "code-90000001", state: $s) %s }'
    query %= "{ user { characterId } sync { state trigger } }"
    body = {"query": query, "variables": {"s": begun["state"]}}
    assert client.post("/graphql", json=body).get_json()["data"]["authenticateWithCode"] == {
        "user": {"characterId": "90000001"},
        "sync": {"state": "QUEUED", "trigger": "WEB"},
    } | {"sync": {"state": "QUEUED", "trigger": "LOGIN"}}
    assert me(client) is not None
    # A replay is the client's error, and the session stays
    assert client.post("/graphql", json=body).get_json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert me(client) is not None


def test_logging_out_ends_the_session(client: FlaskClient) -> None:
    come_back(client, begin(client))
    assert client.post("/graphql", json={"query": "mutation { logout }"}).get_json()["data"]["logout"] is True
    assert me(client) is None
    again = client.post("/graphql", json={"query": "mutation { logout }"}).get_json()
    assert again["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


def test_unlinking_revokes_and_deletes(client: FlaskClient, backend: FakeBackend) -> None:
    come_back(client, begin(client))
    query = "mutation { unlinkCharacter { unlinked message } }"
    assert client.post("/graphql", json={"query": query}).get_json()["data"]["unlinkCharacter"]["unlinked"] is True
    assert backend.sso.revoked == ["refresh-code-90000001"]
    assert User.select().count() == Sync.select().count() == 0
    assert me(client) is None


def test_unlinking_while_the_sso_is_away_says_what_is_left_to_do(client: FlaskClient, backend: FakeBackend) -> None:
    come_back(client, begin(client))
    backend.sso.down = SsoUnavailable("down")
    query = "mutation { unlinkCharacter { unlinked message } }"
    payload = client.post("/graphql", json={"query": query}).get_json()["data"]["unlinkCharacter"]
    assert payload["unlinked"] is True
    assert "could not be revoked" in payload["message"]
    assert accounts.THIRD_PARTY_APPLICATIONS in payload["message"]
    assert User.select().count() == 0


def test_a_sync_in_cool_down_says_so(
    client: FlaskClient, backend: FakeBackend, sign_in: Callable[[User], None]
) -> None:
    sign_in(make_user())
    backend.cooldown = True
    query = "mutation { syncMyKillmails(full: true) { sync { id } queued message } }"
    payload = client.post("/graphql", json={"query": query}).get_json()["data"]["syncMyKillmails"]
    assert payload == {"sync": None, "queued": False, "message": "Last synced 1 minute ago."}
    assert backend.requests[0][1:] == (Trigger.WEB, True)
