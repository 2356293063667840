"""Logging in under attack: CSRF, replays, planted sessions, stolen cookies, and redirects to elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from models import Sync, User
from tests.api.socket_client import Client
from tests.security.asking import ask, codes, data, who
from tests.web_app import FakeBackend, make_user

VICTIM, ATTACKER = "90000001", "90000666"
COOKIE = "killmail_sync"


def begin(client: FlaskClient) -> str:
    """Press the button; the state that goes to EVE SSO."""
    location = client.get("/login").headers["Location"]
    return parse_qs(urlsplit(location).query)["state"][0]


def come_back(client: FlaskClient, state: str, code: str) -> Any:
    return client.get("/auth/callback", query_string={"code": code, "state": state})


def finish_by_api(client: FlaskClient, state: str, code: str) -> Any:
    query = "mutation($c: String!, $s: String!) { authenticateWithCode(code: $c, state: $s) { user { id } } }"
    return ask(client, query, {"c": code, "s": state})


def log_in(client: FlaskClient, character: str = VICTIM) -> None:
    assert come_back(client, begin(client), f"code-{character}").status_code == 302


def session_cookie(client: FlaskClient) -> str:
    cookie = client.get_cookie(COOKIE)
    assert cookie is not None
    return str(cookie.value)


class TestLoginCsrf:
    """Who lures a pilot to a callback of their own must not have the pilot signed in to their account."""

    @pytest.mark.parametrize("finish", [come_back, finish_by_api])
    @pytest.mark.parametrize("victim_was_about_to_log_in", [False, True])
    def test_the_attackers_code_and_state_in_the_victims_browser(
        self, app: Flask, client: FlaskClient, finish: Callable[..., Any], victim_was_about_to_log_in: bool
    ) -> None:
        state = begin(app.test_client())
        if victim_was_about_to_log_in:
            begin(client)
        assert finish(client, state, f"code-{ATTACKER}").status_code in (200, 400)
        assert who(client) is None
        assert User.select().count() == Sync.select().count() == 0

    def test_the_attackers_code_without_any_state(self, client: FlaskClient) -> None:
        begin(client)
        for query in (f"code=code-{ATTACKER}", f"code=code-{ATTACKER}&state=", f"code=code-{ATTACKER}&state=undefined"):
            assert client.get(f"/auth/callback?{query}").status_code == 400
        assert who(client) is None

    def test_a_signed_in_pilot_stays_who_they_are(self, app: Flask, client: FlaskClient) -> None:
        log_in(client)
        state = begin(app.test_client())
        assert come_back(client, state, f"code-{ATTACKER}").status_code == 400
        assert who(client) == VICTIM

    def test_a_state_given_twice_is_not_tried_in_turn(self, client: FlaskClient) -> None:
        good = begin(client)
        client.get(f"/auth/callback?code=code-{ATTACKER}&state=forged&state={good}")
        assert who(client) is None

    def test_posting_to_the_callback_does_nothing(self, client: FlaskClient) -> None:
        state = begin(client)
        response = client.post("/auth/callback", data={"code": f"code-{ATTACKER}", "state": state})
        assert response.status_code == 405
        assert who(client) is None


class TestReplays:
    @pytest.mark.parametrize("finish", [come_back, finish_by_api])
    def test_a_state_is_used_up_whatever_came_of_it(self, client: FlaskClient, finish: Callable[..., Any]) -> None:
        state = begin(client)
        finish(client, state, "stolen-and-wrong")
        finish(client, state, f"code-{VICTIM}")
        assert who(client) is None

    def test_a_code_is_good_once_whoever_brings_it(self, app: Flask, client: FlaskClient) -> None:
        log_in(client)
        thief = app.test_client()
        assert come_back(thief, begin(thief), f"code-{VICTIM}").status_code == 400
        assert who(thief) is None

    def test_a_code_for_another_verifier_is_refused(
        self, app: Flask, client: FlaskClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PKCE: the code of the victim's login, brought by a browser whose login was another one."""
        begin(client)
        mine, exchange = backend.sso.begun[-1].code_verifier, backend.sso.exchange
        used: list[str] = []

        def recording(code: str, verifier: str) -> Any:
            used.append(verifier)
            return exchange(code, verifier)

        monkeypatch.setattr(backend.sso, "exchange", recording)
        thief = app.test_client()
        come_back(thief, begin(thief), f"code-{VICTIM}")
        assert used and mine not in used

    def test_the_whole_cookie_of_a_finished_login_brings_back_no_state(self, client: FlaskClient, app: Flask) -> None:
        """The cookie is the browser's to keep: put back as it was before the callback, its state must not work twice,
        whatever the code."""
        state = begin(client)
        before = session_cookie(client)
        come_back(client, state, f"code-{VICTIM}")
        for code in (f"code-{VICTIM}", f"code-{ATTACKER}"):
            thief = app.test_client()
            thief.set_cookie(COOKIE, before)
            assert come_back(thief, state, code).status_code == 400
            assert who(thief) is None


class TestSessions:
    def test_a_planted_cookie_is_replaced_at_login(self, app: Flask, client: FlaskClient) -> None:
        """Fixation: the attacker knows the cookie the victim starts with; after the login it opens nothing."""
        begin(client)
        planted = session_cookie(client)
        log_in(client)
        attacker = app.test_client()
        attacker.set_cookie(COOKIE, planted)
        assert who(attacker) is None

    def test_the_attackers_account_is_not_kept_under_the_victims(self, app: Flask, client: FlaskClient) -> None:
        attacker = app.test_client()
        log_in(attacker, ATTACKER)
        attacker.get("/")
        client.set_cookie(COOKIE, session_cookie(attacker))
        with client.session_transaction() as session:
            known = session.get("csrf")
        log_in(client)
        assert who(client) == VICTIM
        with client.session_transaction() as session:
            assert session.get("csrf") is None or session["csrf"] != known

    @pytest.mark.parametrize("way", ["page", "api"])
    def test_a_cookie_stolen_before_the_logout_opens_nothing_after_it(
        self, app: Flask, client: FlaskClient, way: str
    ) -> None:
        log_in(client)
        thief = app.test_client()
        thief.set_cookie(COOKIE, session_cookie(client))
        assert who(thief) == VICTIM  # a stolen cookie is good; that is why the pilot logs out
        if way == "api":
            assert data(client, "mutation { logout }")["logout"] is True
        else:
            client.get("/")
            with client.session_transaction() as session:
                form = {"csrf_token": session["csrf"]}
            assert client.post("/logout", data=form).status_code == 302
        assert who(thief) is None

    def test_a_socket_is_closed_by_the_logout(
        self, connect: Callable[..., Client], app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.hub.SESSION_SECONDS", 0.1)
        user = make_user()
        socket = connect(user)
        socket.subscribe("subscription { newKillmail { id } }")
        socket.settle()
        browser = app.test_client()
        with browser.session_transaction() as session:
            session["user_id"], session["epoch"] = user.id, user.session_epoch
        assert data(browser, "mutation { logout }")["logout"] is True
        assert socket.close_code() == 4403

    def test_a_cookie_of_an_unlinked_user_is_not_the_next_users(self, app: Flask, client: FlaskClient) -> None:
        """SQLite may give the id of a deleted user to the next one."""
        log_in(client, ATTACKER)
        kept = session_cookie(client)
        data(client, "mutation { unlinkCharacter { unlinked } }")
        log_in(app.test_client(), VICTIM)
        attacker = app.test_client()
        attacker.set_cookie(COOKIE, kept)
        assert who(attacker) is None

    @pytest.mark.parametrize("forge", ["user_id", "unsigned", "other key", "none", "garbage", "huge"])
    def test_a_forged_cookie_is_nobody(self, app: Flask, client: FlaskClient, forge: str) -> None:
        user = make_user()
        client.set_cookie(COOKIE, forged_cookie(forge, {"user_id": user.id, "epoch": user.session_epoch}))
        assert who(client) is None
        assert client.get("/").status_code == 200

    @pytest.mark.parametrize(
        "content",
        [
            {"user_id": "1 OR 1=1", "epoch": 5},
            {"user_id": 1, "epoch": None},
            {"user_id": 1},
            {"user_id": None, "epoch": None},
            {"user_id": -1, "epoch": 5},
        ],
    )
    def test_a_session_of_another_version_is_nobody(self, client: FlaskClient, content: dict[str, Any]) -> None:
        make_user()
        with client.session_transaction() as session:
            session.update(content)
        assert who(client) is None


def forged_cookie(kind: str, content: dict[str, Any]) -> str:
    """What somebody without SECRET_KEY can write."""
    import base64
    import json

    from flask.sessions import SecureCookieSessionInterface

    body = base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()
    if kind == "other key":
        other = Flask("forger")
        other.secret_key = "guessed-secret-guessed-secret-guessed"
        serializer = SecureCookieSessionInterface().get_signing_serializer(other)
        assert serializer is not None
        return str(serializer.dumps(content))
    return {
        "user_id": str(content["user_id"]),
        "unsigned": body,
        "none": f"{body}..",
        "garbage": "\\xff.{}.<script>",
        "huge": f"{body}.{'A' * 3000}.{'B' * 500}",
    }[kind]


#: Where an attacker wants a pilot to end up.
ELSEWHERE = [
    "https://evil.example/",
    "//evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
    "\thttps://evil.example",
]


class TestRedirects:
    @pytest.mark.parametrize("target", ELSEWHERE)
    @pytest.mark.parametrize("name", ["next", "redirect_uri", "return_to", "url", "continue", "callback"])
    def test_no_parameter_chooses_where_a_login_ends(self, client: FlaskClient, name: str, target: str) -> None:
        begun = client.get("/login", query_string={name: target})
        to_sso = urlsplit(begun.headers["Location"])
        assert to_sso.netloc == "sso.invalid"
        assert "evil" not in begun.headers["Location"]
        state = parse_qs(to_sso.query)["state"][0]
        query = {"code": f"code-{VICTIM}", "state": state, name: target}
        assert client.get("/auth/callback", query_string=query).headers["Location"] == "/"

    @pytest.mark.parametrize(
        "path", ["//evil.example", "//evil.example/%2e%2e", "/%2f%2fevil.example", "/\\evil.example", "//login", "///"]
    )
    def test_no_path_redirects_to_another_host(self, client: FlaskClient, path: str) -> None:
        response = client.get("/", environ_overrides={"PATH_INFO": path, "RAW_URI": path, "REQUEST_URI": path})
        location = response.headers.get("Location", "/")
        assert urlsplit(location).netloc in ("", "localhost", "sso.invalid")
        assert not location.startswith(("//evil", "/\\"))

    @pytest.mark.parametrize("headers", [{"X-Forwarded-Host": "evil.example"}, {"Forwarded": "host=evil.example"}])
    def test_no_header_chooses_it_either(self, client: FlaskClient, headers: dict[str, str]) -> None:
        state = begin(client)
        query = {"code": f"code-{VICTIM}", "state": state}
        assert client.get("/auth/callback", query_string=query, headers=headers).headers["Location"] == "/"
        assert "evil" not in str(client.get("/login", headers=headers).headers)

    @pytest.mark.parametrize("error", ["access_denied", "<script>alert(1)</script>", "https://evil.example"])
    def test_the_ssos_error_text_is_nobodys_markup(self, client: FlaskClient, error: str) -> None:
        response = client.get("/auth/callback", query_string={"error": error, "error_description": error})
        assert response.status_code in (400, 503)
        assert "<script>alert" not in response.text
        assert "evil.example" not in response.text


@pytest.mark.parametrize(
    ("code", "state"),
    [("\ud800", "x"), ("x", "\ud800"), ("x\x00", "x\x00"), ("x" * 60_000, "x"), ("", ""), ("é", "é")],
    ids=["code surrogate", "state surrogate", "NUL", "long", "empty", "not ASCII"],
)
@pytest.mark.parametrize("begun", [False, True])
def test_no_code_or_state_is_our_fault(client: FlaskClient, code: str, state: str, begun: bool) -> None:
    if begun:
        begin(client)
    assert codes(finish_by_api(client, state, code)) == ["BAD_USER_INPUT"]
    assert who(client) is None


@pytest.mark.parametrize("code", ["\ud800", "x\x00", "\r\nHost: evil.example", "a&grant_type=refresh_token"])
def test_no_code_reaches_the_sso_as_more_than_a_code(client: FlaskClient, code: str) -> None:
    """With a good state, so that the code is looked at."""
    assert codes(finish_by_api(client, begin(client), code)) == ["BAD_USER_INPUT"]
    assert who(client) is None
