"""The pages: readable without scripts, safe with hostile names, and every button with its token."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database

import accounts
import database
from api.system import EXTENSION
from database import utcnow
from esi.errors import SsoUnavailable
from models import Sync, Trigger, User
from settings import KILLMAIL_SCOPE, ROOT
from tests.web_app import FakeBackend, make_killmail, make_sync, make_user, name, wait_for_killmail

#: For who is signed in.
PAGES = ("/", "/unlink", "/nowhere", "/killmails", "/killmails/1", "/pictures", "/status")

SignIn = Callable[[User], None]


def token_on(client: FlaskClient, path: str = "/") -> str:
    match = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert match is not None
    return match[1]


def test_who_left_and_came_back_reads_when_the_first_sync_starts(client: FlaskClient, sign_in: SignIn) -> None:
    now = utcnow()
    due = now + timedelta(minutes=5)
    sign_in(make_user(last_killmail_sync_at=now, next_sync_at=due))
    assert f"the first sync starts at {due:%H:%M} EVE time" in client.get("/").text
    assert "For an hour" in client.get("/unlink").text


def test_signed_out_says_what_is_asked_for_and_why(client: FlaskClient) -> None:
    text = client.get("/").text
    assert KILLMAIL_SCOPE in text
    assert 'href="/login"' in text
    assert "Log out" not in text


@pytest.mark.parametrize("more", [(), ("esi-wallet.read_character_wallet.v1",)])
def test_nothing_else_is_asked_for_only_where_that_is_so(
    client: FlaskClient, app: Flask, more: tuple[str, ...]
) -> None:
    system = app.extensions[EXTENSION]
    settings = replace(system.settings, eve_client_scopes=(KILLMAIL_SCOPE, *more))
    app.extensions[EXTENSION] = replace(system, settings=settings)
    assert ("Nothing else is asked for" in client.get("/").text) is (not more)


def test_the_cookie_is_sent_when_it_changes_and_once_a_day(client: FlaskClient, sign_in: SignIn) -> None:
    """A slow answer that brought an old cookie along would undo a login that was finished meanwhile."""
    sign_in(make_user())
    assert "Set-Cookie" in client.get("/").headers
    for path in ("/", "/killmails", "/status", "/static/style.css"):
        with client.get(path) as answer:
            assert "Set-Cookie" not in answer.headers, path


def test_the_dashboard_shows_pilot_sync_and_killmails(client: FlaskClient, sign_in: SignIn) -> None:
    # Given a pilot with a sync half done and 26 killmails, the newest a loss
    user = make_user()
    sign_in(user)
    name(587, "Rifter")
    for killmail_id in range(100, 126):
        make_killmail(killmail_id, user, victim_id=user.character_id if killmail_id == 125 else None)
    sync = make_sync(user.id, state="FETCHING", found=30, skipped=3)
    wait_for_killmail(sync, 999)
    # When the page is opened
    text = client.get("/").text
    # Then the newest 25 are there, and the sync's counts
    assert re.findall(r'<li class="killmail" data-id="(\d+)"', text) == [str(number) for number in range(125, 100, -1)]
    assert text.count('"><bdi>Rifter</bdi></a>') == 25
    assert text.count('class="side loss"') == 2  # one of them in the template of new rows
    assert '<li data-step="FETCHING" aria-current="step">' in text
    assert "Fetching 26 of 27" in text
    assert "A sync is under way." in text
    assert "Next sync by itself" not in text
    assert '<dd data-count="saved">26</dd>' in text
    assert '<dd data-count="pending">1</dd>' in text


def test_hostile_names_stay_text(client: FlaskClient, sign_in: SignIn) -> None:
    hostile = "<script>alert(1)</script>\u202e\"'&"
    user = make_user(character_name=hostile)
    sign_in(user)
    make_killmail(1, user)
    for entity_id in (587, 30_000_142, 96_000_000):
        name(entity_id, hostile)
    make_sync(user.id, state="FAILED", finished_at=utcnow(), error=hostile)
    text = client.get("/").text
    assert "<script>alert" not in text
    assert text.count("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"needs_login_reason": "EVE SSO refused the access", "next_sync_at": None}, "EVE SSO refused the access"),
        ({"scopes": "", "refresh_token": None, "next_sync_at": None}, "did not allow reading killmails"),
    ],
)
def test_a_login_that_is_no_good_is_told(
    client: FlaskClient, sign_in: SignIn, changes: dict[str, Any], expected: str
) -> None:
    sign_in(make_user(**changes))
    text = client.get("/").text
    assert expected in text
    assert 'role="alert"' in text


def test_a_good_login_gets_no_warning(client: FlaskClient, sign_in: SignIn) -> None:
    sign_in(make_user())
    assert 'role="alert"' not in client.get("/").text


def test_following_starts_at_what_came_last(client: FlaskClient, sign_in: SignIn) -> None:
    user = make_user()
    sign_in(user)
    assert 'data-after="0"' in client.get("/").text
    now = utcnow()
    make_killmail(50, user, linked_at=now - timedelta(hours=1), created_at=now - timedelta(hours=1))
    make_killmail(10, user, linked_at=now - timedelta(hours=2), created_at=now)
    assert 'data-after="10"' in client.get("/").text
    make_killmail(5, user, linked_at=now + timedelta(seconds=1), created_at=now - timedelta(days=3))
    assert 'data-after="5"' in client.get("/").text


def test_what_is_stored_while_the_page_is_made_comes_after_it(
    client: FlaskClient, sign_in: SignIn, sqlite_db: Database
) -> None:
    user = make_user()
    sign_in(user)
    make_killmail(50, user)
    hooks: list[Any] = cast(Any, sqlite_db).query_hooks

    def store_another(event: Any) -> None:
        if 'FROM "syncs"' in event.sql:  # the killmails have been read by then
            hooks.clear()
            make_killmail(51, user)

    hooks.append(store_another)
    text = client.get("/").text
    assert hooks == [], "it was stored"
    assert 'data-id="51"' not in text
    assert 'data-after="50"' in text, "or it is taken for known, and never shown"


def test_a_sync_that_ends_while_the_page_is_made_is_over_in_all_parts(
    client: FlaskClient, sign_in: SignIn, sqlite_db: Database
) -> None:
    user = make_user()
    sign_in(user)
    sync = make_sync(user.id, state="FETCHING")
    hooks: list[Any] = cast(Any, sqlite_db).query_hooks

    def finish(event: Any) -> None:
        if 'FROM "user_killmails"' in event.sql:  # the user has been read by then, and no sync
            hooks.clear()
            Sync.update(state="FINISHED", finished_at=utcnow()).where(Sync.id == sync.id).execute()
            User.update(last_killmail_sync_at=utcnow()).execute()

    hooks.append(finish)
    text = client.get("/").text
    assert hooks == [], "it ended"
    assert 'data-phase="FINISHED"' in text
    assert "Last synced" in text
    assert "Possible again at" in text


def test_without_killmails_no_empty_frames_are_drawn(client: FlaskClient, sign_in: SignIn) -> None:
    sign_in(make_user())
    for path in ("/", "/pictures"):
        assert "<figure>" not in client.get(path).text, path


@pytest.mark.parametrize(("form", "full"), [({}, False), ({"full": "1"}, True)])
def test_the_sync_buttons(
    client: FlaskClient, sign_in: SignIn, backend: FakeBackend, form: dict[str, str], full: bool
) -> None:
    user = make_user()
    sign_in(user)
    response = client.post("/sync", data={"csrf_token": token_on(client), **form})
    assert response.status_code == 302
    assert backend.requests == [(user.id, Trigger.WEB, full)]
    assert "Sync queued." in client.get("/").text
    assert "Sync queued." not in client.get("/").text  # said once


def test_logging_out(client: FlaskClient, sign_in: SignIn) -> None:
    sign_in(make_user())
    client.post("/logout", data={"csrf_token": token_on(client)})
    assert "with EVE Online" in client.get("/").text


def test_leaving_asks_first_and_then_deletes(client: FlaskClient, sign_in: SignIn, backend: FakeBackend) -> None:
    user = make_user(refresh_token=None)
    sign_in(user)
    make_killmail(1, user)
    token = token_on(client, "/unlink")
    assert User.select().count() == 1
    assert "deleted" in client.post("/unlink", data={"csrf_token": token}).text
    assert User.select().count() == 0
    assert client.get("/unlink").status_code == 302


def test_leaving_while_the_sso_is_away_says_what_is_left_to_do(
    client: FlaskClient, sign_in: SignIn, backend: FakeBackend, app: Flask
) -> None:
    user = make_user(refresh_token=app.extensions[EXTENSION].cipher.encrypt("refresh"))
    sign_in(user)
    backend.sso.down = SsoUnavailable("down")
    text = client.post("/unlink", data={"csrf_token": token_on(client, "/unlink")}).text
    assert "could not be revoked" in text
    assert "access is revoked" not in text
    assert accounts.THIRD_PARTY_APPLICATIONS in text
    assert User.select().count() == 0


@pytest.mark.parametrize("path", ["/logout", "/sync", "/unlink"])
@pytest.mark.parametrize("form", [{}, {"csrf_token": ""}, {"csrf_token": "wrong"}, {"csrf_token": "ключ"}])
def test_a_foreign_form_is_refused(
    client: FlaskClient, sign_in: SignIn, backend: FakeBackend, path: str, form: dict[str, str]
) -> None:
    sign_in(make_user())
    client.get("/")
    assert client.post(path, data=form).status_code == 400
    assert User.select().count() == 1
    assert backend.requests == []
    assert "Log out" in client.get("/").text


@pytest.mark.parametrize("path", ["/logout", "/sync", "/unlink"])
def test_signed_out_forms_do_nothing(client: FlaskClient, path: str) -> None:
    assert client.post(path, data={}).status_code == 400


def test_every_page_carries_the_headers(client: FlaskClient) -> None:
    for path in ("/", "/nowhere", "/healthz", "/static/style.css"):
        with client.get(path) as response:
            headers = response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Strict-Transport-Security" not in headers
    assert client.get("/").headers["Cache-Control"] == "no-store"


def test_no_page_has_inline_script_or_style(client: FlaskClient, sign_in: SignIn) -> None:
    pages = [client.get("/").text]
    user = make_user()
    sign_in(user)
    make_killmail(1, user)
    make_sync(user.id)
    pages += [client.get(path).text for path in PAGES]
    for text in pages:
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)


def test_scripts_never_write_markup(client: FlaskClient) -> None:
    for script in sorted((ROOT / "web" / "static").glob("*.js")):
        with client.get(f"/static/{script.name}") as response:
            text = response.get_data(as_text=True)
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_what_does_not_exist_is_said_on_a_page(client: FlaskClient) -> None:
    response = client.get("/nowhere")
    assert response.status_code == 404
    assert "no such page" in response.text


def test_an_errors_page_leads_on_where_somebody_is_signed_in(client: FlaskClient, sign_in: SignIn) -> None:
    assert 'aria-label="Pages"' not in client.get("/nowhere").text
    sign_in(make_user())
    text = client.get("/nowhere").text
    assert 'aria-label="Pages"' in text
    assert "Log out" in text


def test_logins_are_limited_per_address(client: FlaskClient) -> None:
    assert {client.get("/login").status_code for _ in range(30)} == {302}
    limited = client.get("/login")
    assert limited.status_code == 429
    assert "wait a minute" in limited.text
    # Another address behind the same proxy goes on
    assert client.get("/login", headers={"X-Forwarded-For": "203.0.113.7"}).status_code == 302


def test_a_request_leaves_no_connection_behind(client: FlaskClient, sign_in: SignIn, sqlite_db: Database) -> None:
    sign_in(make_user())
    client.get("/")
    assert database.db.is_closed()


@pytest.mark.parametrize("path", ["/", "/killmails", "/pictures", "/status", "/unlink"])
def test_every_page_says_that_a_login_is_needed_and_why(
    client: FlaskClient, sign_in: Callable[[User], None], path: str
) -> None:
    user = make_user()
    sign_in(user)
    assert 'role="alert"' not in client.get(path).text
    User.update(needs_login_reason="EVE <b>refused</b> it.", next_sync_at=None).execute()
    text = client.get(path).text
    assert text.count('role="alert"') == 1
    assert "EVE &lt;b&gt;refused&lt;/b&gt; it" in text
    assert text.count('aria-label="Log in with EVE Online"') == 1
