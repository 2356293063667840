"""Pages of other sites in the pilot's browser: forged posts, foreign sockets, framing; and the headers against them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import websocket
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from api.callers import limiter
from app import create_app
from models import User
from tests.api.socket_client import Client
from tests.security.asking import ask, who
from tests.web_app import FakeBackend, make_killmail, make_user

UNLINK = "mutation { unlinkCharacter { unlinked } }"

FOREIGN = [
    "https://evil.example", "http://evil.example", "null", "http://localhost.evil.example", "http://evil.example:8000",
    "http://localhost:1", "http://127.0.0.1:8001", "http://127.0.0.1:8000.evil.example", "file://", "http://",
    "http://[", "http://[::1", "http://a\u2100b", "chrome-extension://abc", "http://localhost@evil.example",
    "localhost",
]  # fmt: skip


@pytest.fixture
def pilot(sign_in: Callable[[User], None], client: FlaskClient) -> User:
    user = make_user(refresh_token=None)
    make_killmail(1, user)
    sign_in(user)
    return user


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_foreign_pages_mutation_is_refused(
    client: FlaskClient, pilot: User, caplog: pytest.LogCaptureFixture, origin: str
) -> None:
    response = ask(client, UNLINK, headers={"Origin": origin.encode().decode("latin-1")})
    assert response.status_code == 403
    assert User.select().count() == 1
    assert caplog.text == ""


#: What a form or an image of a foreign page can send without asking first (Fetch: CORS-safelisted).
SIMPLE = [
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "",
    "text/plain;application/json",
]  # fmt: skip


@pytest.mark.parametrize("content_type", SIMPLE)
@pytest.mark.parametrize("headers", [{}, {"Origin": "null"}, {"Referer": "https://evil.example/"}])
def test_a_form_cannot_post_json(client: FlaskClient, pilot: User, content_type: str, headers: dict[str, str]) -> None:
    body = '{"query": "mutation { unlinkCharacter { unlinked } }", "x": "="}'
    response = client.post("/graphql", data=body, content_type=content_type, headers=headers)
    assert response.status_code in (403, 415)
    assert User.select().count() == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
def test_no_other_method_runs_a_mutation(client: FlaskClient, pilot: User, method: str) -> None:
    response = client.open("/graphql", method=method, query_string={"query": UNLINK})
    assert User.select().count() == 1
    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_method_in_a_header_or_field_is_not_believed(client: FlaskClient, pilot: User) -> None:
    client.get("/logout", headers={"X-HTTP-Method-Override": "POST"})
    client.get("/unlink?_method=POST&csrf_token=")
    client.get("/sync", query_string={"_method": "POST"})
    assert who(client) == str(pilot.character_id)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost"])
def test_no_answer_is_shared_with_another_site(client: FlaskClient, pilot: User, origin: str) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = {"Origin": origin, **wanted}
    for response in (
        client.options("/graphql", headers=preflight), client.get("/", headers={"Origin": origin}),
        ask(client, "{ me { id } }", headers={"Origin": origin}), client.get("/metrics", headers={"Origin": origin}),
    ):  # fmt: skip
        assert not [name for name, _ in response.headers if name.startswith("Access-Control-Allow")]


def changing_routes(app: Flask) -> list[Rule]:
    """Everything a form could be posted to, now and after the next page was added."""
    return [rule for rule in app.url_map.iter_rules() if "POST" in (rule.methods or ()) and rule.rule != "/graphql"]


def example(rule: Rule) -> str:
    return re.sub(r"<[^>]*>", "1", rule.rule)


def test_no_form_is_taken_without_its_token(app: Flask, client: FlaskClient, pilot: User, backend: FakeBackend) -> None:
    client.get("/")
    rules = changing_routes(app)
    assert {"/logout", "/sync", "/unlink"} <= {rule.rule for rule in rules}
    stranger = app.test_client()
    stranger.get("/unlink")
    stranger.get("/")
    with stranger.session_transaction() as session:
        anothers = session.get("csrf", "none")
    for rule in rules:
        for form in ({}, {"csrf_token": ""}, {"csrf_token": "x" * 43}, {"csrf_token": anothers}):
            assert client.post(example(rule), data=form).status_code == 400, rule.rule
    assert who(client) == str(pilot.character_id)
    assert backend.requests == [] and User.select().count() == 1


def test_a_token_in_the_address_is_not_a_token(client: FlaskClient, pilot: User) -> None:
    client.get("/")
    with client.session_transaction() as session:
        token = session["csrf"]
    assert client.post(f"/unlink?csrf_token={token}").status_code == 400
    assert User.select().count() == 1


@pytest.mark.parametrize("origin", FOREIGN[:12])
def test_a_foreign_page_gets_no_socket(connect: Callable[..., Client], origin: str) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect(make_user(), init=False, origin=origin)
    assert refused.value.status_code == 403


@pytest.mark.parametrize("extra", [["Origin: http://127.0.0.1:8000"], ["X-Forwarded-Host: evil.example"]])
def test_no_second_header_makes_a_foreign_page_ours(connect: Callable[..., Client], extra: list[str]) -> None:
    with pytest.raises((websocket.WebSocketException, OSError)):
        connect(make_user(), init=False, origin="http://evil.example", header=extra)


def every_answer(app: Flask, client: FlaskClient) -> list[tuple[str, Any]]:
    """One answer of every route, and of every kind of refusal."""
    answers = []
    for rule in app.url_map.iter_rules():
        path = example(rule) if rule.endpoint != "static" else "/static/style.css"
        for method in ("GET", "POST", "DELETE"):
            answers.append((f"{method} {path}", client.open(path, method=method)))
    answers += [
        ("404", client.get("/nowhere")), ("404 /static/", client.get("/static/nowhere.js")),
        ("404 /static/ traversal", client.get("/static/%2e%2e/settings.py")),
        ("413", client.post("/graphql", json="x" * 70_000)),
        ("415", client.post("/graphql", data="x")),
        ("400", client.post("/graphql", json=[])),
        ("403", client.post("/graphql", json={}, headers={"Origin": "https://evil.example"})),
        ("callback", client.get("/auth/callback?code=x&state=y")), ("cancelled", client.get("/auth/callback?error=x")),
    ]  # fmt: skip
    answers += [(f"429 {number}", client.get("/login")) for number in range(40)]
    return answers


@pytest.mark.parametrize("signed_in", [False, True])
def test_every_answer_carries_the_headers(
    app: Flask, client: FlaskClient, sign_in: Callable[[User], None], signed_in: bool
) -> None:
    if signed_in:
        sign_in(make_user())
    seen = set()
    for what, response in every_answer(app, client):
        with response:
            seen.add(response.status_code)
            headers = response.headers
            policy = directives(headers["Content-Security-Policy"])
            assert policy["default-src"] == ["'none'"], what
            for sources in policy.values():
                assert not {"'unsafe-inline'", "'unsafe-eval'", "*", "data:", "http:", "https:"} & set(sources), what
            assert policy["frame-ancestors"] == ["'none'"] and policy["base-uri"] == ["'none'"], what
            assert policy["form-action"] == ["'self'"], what
            assert headers["X-Content-Type-Options"] == "nosniff", what
            assert headers["X-Frame-Options"] == "DENY", what
            assert headers["Referrer-Policy"] == "no-referrer", what
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin", what
            if "/static/" not in what:
                assert headers["Cache-Control"] == "no-store", what
            assert len(headers.getlist("Content-Security-Policy")) == 1, what
    assert {200, 302, 400, 403, 404, 405, 413, 415, 429} <= seen


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for words in (part.split() for part in policy.split(";"))}


def test_an_answer_to_our_own_fault_carries_them_too(
    app: Flask, client: FlaskClient, pilot: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("detail")

    monkeypatch.setattr("api.syncs.page_of", fail)
    response = client.get("/")
    assert response.status_code == 500
    assert "'unsafe-inline'" not in response.headers["Content-Security-Policy"]
    assert "detail" not in response.text and "Traceback" not in response.text


def test_only_the_explorer_may_run_what_is_in_its_page_and_only_when_asked_for(
    make_settings: Callable[..., Any], backend: FakeBackend, app: Flask
) -> None:
    settings = make_settings(graphql_explorer=True)
    exploring = create_app(settings, backend.system(settings))
    limiter.reset()
    client = exploring.test_client()
    for rule in exploring.url_map.iter_rules():
        if rule.endpoint == "static" or "GET" not in (rule.methods or ()):
            continue
        allows = "unsafe" in client.get(example(rule)).headers["Content-Security-Policy"]
        assert allows == (rule.rule == "/graphql"), rule.rule


@pytest.mark.parametrize(
    "path",
    [
        "../settings.py",
        "%2e%2e/settings.py",
        "..%2f..%2fetc%2fpasswd",
        "....//app.py",
        "/etc/passwd",
        "..\\app.py",
        "%00",
    ],
)
def test_static_files_are_static_files(client: FlaskClient, path: str) -> None:
    with client.get(f"/static/{path}") as response:
        assert response.status_code in (308, 404)


def test_a_cookie_stays_here(app: Flask, make_settings: Callable[..., Any], backend: FakeBackend) -> None:
    for callback, secure in (("http://127.0.0.1:8000/auth/callback", False), ("https://k.example/auth/callback", True)):
        settings = replace(make_settings(), eve_callback_url=callback)
        cookie = create_app(settings, backend.system(settings)).test_client().get("/login").headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Domain=" not in cookie
        assert ("Secure" in cookie) == secure
