"""Floods: logins, mutations and queries are counted against who sends them, and not against anybody else."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from models import User
from settings import Settings
from tests.security.asking import ask, codes
from tests.web_app import FakeBackend, make_user

SYNC = "mutation { syncMyKillmails { queued } }"


def forwarded(number: int) -> dict[str, str]:
    """As a proxy on this machine passes a client on."""
    return {"X-Forwarded-For": f"203.0.113.{number}"}


@pytest.mark.parametrize("path", ["/login", "/auth/callback?code=x&state=y"])
def test_logins_are_limited_for_one_address_and_no_other(app: Flask, path: str) -> None:
    statuses = [app.test_client().get(path, headers=forwarded(1)).status_code for _ in range(60)]
    assert statuses[-1] == 429 and statuses.count(429) >= 30
    assert app.test_client().get(path, headers=forwarded(2)).status_code != 429


def test_a_fresh_cookie_a_time_does_not_help(app: Flask) -> None:
    """Codes are guessed with a new session each; it is the address that counts."""
    assert app.test_client().get("/login").status_code == 302
    assert [app.test_client().get("/login").status_code for _ in range(40)][-1] == 429


@pytest.mark.parametrize(
    "spoof", [lambda n: f"10.0.0.{n}, 203.0.113.1", lambda n: f"10.{n}.0.1,10.0.0.2,   203.0.113.1"]
)
def test_what_a_client_writes_before_the_proxys_word_is_not_believed(app: Flask, spoof: Callable[[int], str]) -> None:
    statuses = [app.test_client().get("/login", headers={"X-Forwarded-For": spoof(n)}).status_code for n in range(40)]
    assert statuses[-1] == 429


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP"])
def test_without_a_proxy_nobody_names_another_address(app: Flask, header: str) -> None:
    def ask_from(number: int) -> int:
        peer = {"REMOTE_ADDR": "198.51.100.9"}
        response = app.test_client().get("/login", headers={header: f"10.0.0.{number}"}, environ_overrides=peer)
        return response.status_code

    assert [ask_from(number) for number in range(40)][-1] == 429


def login_from(app: Flask, peer: str, forwarded: str = "") -> int:
    """The status of asking for a login in a browser of its own, from this address."""
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    return app.test_client().get("/login", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).status_code


def test_an_ipv6_network_counts_as_one_address(app: Flask) -> None:
    """Its holder has 2^64 addresses to choose from."""
    assert [login_from(app, f"2001:db8:0:7::{number:x}") for number in range(40)][-1] == 429
    assert [login_from(app, "::1", f"2001:db8:0:8:{number:x}::1") for number in range(40)][-1] == 429
    assert login_from(app, "2001:db8:0:9::1") == 302


def test_an_ipv4_address_is_the_same_however_the_socket_shows_it(app: Flask) -> None:
    assert [login_from(app, "198.51.100.9") for _ in range(40)][-1] == 429
    assert login_from(app, "::ffff:198.51.100.9") == 429
    assert login_from(app, "::ffff:198.51.100.10") == 302


def test_only_the_proxies_in_the_settings_are_believed(
    app: Flask, make_settings: Callable[..., Settings], backend: FakeBackend
) -> None:
    # Given an inner proxy on this machine behind an outer one in 10.0.0.0/8
    networks = (ip_network("127.0.0.1"), ip_network("10.0.0.0/8"))
    settings = make_settings(trusted_proxies=networks)
    behind_two = create_app(settings, backend.system(settings))
    # Then the outer one's word counts, over both hops, and what the client wrote before it does not
    statuses = [login_from(behind_two, "127.0.0.1", f"9.9.9.{n}, 203.0.113.1, 10.0.0.2") for n in range(40)]
    assert statuses[-1] == 429
    assert login_from(behind_two, "10.0.0.2", "203.0.113.2") == 302
    # And where it is not named, it is a client like any other
    assert [login_from(app, "10.0.0.2", f"203.0.113.{number}") for number in range(40)][-1] == 429


@pytest.mark.parametrize("word", ["unknown", "_hidden", "203.0.113.1:port", "[2001:db8::1", "[]:4711", "x" * 4000])
def test_a_proxys_word_that_is_no_address_counts_as_the_proxy(app: Flask, word: str) -> None:
    assert [login_from(app, "127.0.0.1", f"{word}{number}") for number in range(40)][-1] == 429


def test_mutations_are_limited_per_pilot_over_all_their_browsers(
    app: Flask, backend: FakeBackend, sqlite_db: Any
) -> None:
    user, other = make_user(), make_user(90_000_002)
    for number in range(80):
        ask(browser_of(app, user), SYNC, headers=forwarded(number % 250))
    assert len(backend.requests) <= 60
    assert codes(ask(browser_of(app, user), SYNC)) == ["RATE_LIMITED"]
    assert "errors" not in ask(browser_of(app, other), SYNC).get_json()


def test_form_posts_are_limited_like_mutations(app: Flask, backend: FakeBackend) -> None:
    user = make_user()
    browser = browser_of(app, user)
    browser.get("/")
    with browser.session_transaction() as session:
        form = {"csrf_token": session["csrf"]}
    assert [browser.post("/sync", data=form).status_code for _ in range(70)][-1] == 429
    assert len(backend.requests) <= 60


@pytest.mark.parametrize("query", ["{ me { id } }", "{ broken", "query A { me { id } } query B { me { id } }"])
def test_queries_are_limited_good_or_bad(client: FlaskClient, query: str) -> None:
    assert [ask(client, query).status_code for _ in range(610)][-1] == 429


def test_logins_over_the_api_are_limited_too(app: Flask, backend: FakeBackend) -> None:
    """Or guessing codes would only have to change doors."""
    finish = 'mutation { authenticateWithCode(code: "guess", state: "guess") { user { id } } }'
    answers = [ask(app.test_client(), finish) for _ in range(70)]
    assert codes(answers[-1]) == ["RATE_LIMITED"]


def test_a_refusal_says_when_to_come_back(client: FlaskClient) -> None:
    limited = [client.get("/login") for _ in range(40)][-1]
    assert limited.status_code == 429
    assert 0 < int(limited.headers["Retry-After"]) <= 60


def browser_of(app: Flask, user: User) -> FlaskClient:
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["user_id"], session["epoch"] = user.id, user.session_epoch
    return browser


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("198.51.100.{}:4711", "198.51.100.{}"),
        ("198.51.100.{}:{}", "198.51.100.{}"),
        ("[2001:db8:0:{}::1]:443", "2001:db8:0:{}::2"),
        ("[2001:db8:0:{}::1]", "[2001:db8:0:{}::9]:443"),
    ],
)
def test_a_proxy_that_adds_the_port_names_the_same_client(app: Flask, one: str, other: str) -> None:
    # Given more clients than one address may make logins: each is a client of its own
    assert {login_from(app, "127.0.0.1", one.format(number, 4000 + number)) for number in range(1, 41)} == {302}
    # And one client that comes with another port each time is still one, with the port or without
    assert [login_from(app, "127.0.0.1", one.format(99, 4000 + number)) for number in range(40)][-1] == 429
    assert login_from(app, "127.0.0.1", other.format(99)) == 429
