"""A character is sold: its former owner sees nothing any more, and its new owner nothing of the former one's.

The former owner still has the session of before, an open socket, and every id; the new owner has logged in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import accounts
import events
from database import db, execute, utcnow
from events import KillmailStored
from models import Killmail, User
from tests.api.socket_client import Client
from tests.security.asking import ask, codes, data, who
from tests.web_app import FakeBackend, deletion_was_due_for_hours, make_killmail, make_sync

Connect = Callable[..., Client]

CHARACTER = 90_000_001
SECRET_ID, LATER_ID = 7201, 7202
SECRET_HASH = f"{SECRET_ID:040x}"
DOORS = ["/", "/killmails", "/killmails/export.csv", "/killmails/export.json", "/pictures", "/status", "/metrics"]


def log_in(client: FlaskClient, backend: FakeBackend, owner_hash: str, number: int = 0) -> User:
    """A login as this owner of the character."""
    backend.sso.owner_hash = owner_hash
    client.get("/login")
    answer = {"code": f"code-{number}-{CHARACTER}", "state": backend.sso.begun[-1].state}
    assert client.get("/auth/callback", query_string=answer).status_code == 302
    with db.connection_context():
        return User.get(User.character_id == CHARACTER)


@pytest.fixture
def former(client: FlaskClient, backend: FakeBackend) -> User:
    """The owner before the sale, signed in as `client`, with a killmail and a sync."""
    user = log_in(client, backend, "former owner")
    with db.connection_context():
        make_killmail(SECRET_ID, user, victim_id=CHARACTER)
        execute("DELETE FROM syncs")
        make_sync(user.id, state="FETCHING", error="the former owner's own trouble")
    return user


@pytest.fixture
def newcomer(app: Flask, former: User, backend: FakeBackend) -> FlaskClient:
    """The browser of the owner after the sale, who has logged in."""
    browser: FlaskClient = app.test_client()
    log_in(browser, backend, "new owner", number=1)
    return browser


def test_the_former_owner_is_signed_out_of_everything(client: FlaskClient, newcomer: FlaskClient) -> None:
    assert who(client) is None
    assert codes(ask(client, f'{{ killmail(id: "{SECRET_ID}") {{ killmailHash }} }}')) == ["UNAUTHENTICATED"]
    for path in [*DOORS, f"/killmails/{SECRET_ID}", f"/killmails/{SECRET_ID}.json"]:
        text = client.get(path, follow_redirects=True).text
        assert SECRET_HASH not in text
        assert f"Pilot {CHARACTER}" not in text


def test_the_new_owner_finds_nothing_of_the_former_ones(newcomer: FlaskClient) -> None:
    assert who(newcomer) == str(CHARACTER)
    theirs, missing = (
        ask(newcomer, "query($id: ID!) { killmail(id: $id) { id killmailHash } }", {"id": str(each)})
        for each in (SECRET_ID, 7999)
    )
    assert theirs.data == missing.data
    answer = data(newcomer, "{ killmails { totalCount } syncs { nodes { error } } me { lastKillmailId } }")
    assert answer["killmails"]["totalCount"] == 0
    assert [node["error"] for node in answer["syncs"]["nodes"]] == [None], "the login's own sync"
    assert answer["me"]["lastKillmailId"] is None
    for path in DOORS:
        text = newcomer.get(path, follow_redirects=True).text
        assert str(SECRET_ID) not in text
        assert "former owner" not in text
    for path in (f"/killmails/{SECRET_ID}", f"/killmails/{SECRET_ID}.json"):
        assert newcomer.get(path).status_code == 404


def test_a_socket_of_the_former_owner_is_closed_and_the_new_owners_tells_nothing_old(
    connect: Connect, former: User, app: Flask, backend: FakeBackend
) -> None:
    watching = connect(former)
    watching.subscribe("subscription { newKillmail { id } }")
    watching.settle()
    user = log_in(app.test_client(), backend, "new owner", number=1)
    assert watching.close_code() == 4403
    following, replaying = connect(user), connect(user)
    following.subscribe("subscription($after: ID) { newKillmail(after: $after) { id } }", after=str(SECRET_ID))
    assert following.receive()["payload"][0]["message"] == "after is not a killmail of yours."
    replaying.subscribe("subscription { newKillmail(after: 0) { id } }")
    replaying.settle()
    events.publish(KillmailStored(SECRET_ID))
    with db.connection_context():
        make_killmail(LATER_ID, user)
    events.publish(KillmailStored(LATER_ID))
    assert replaying.next()["newKillmail"]["id"] == str(LATER_ID)
    assert replaying.quiet()


def test_counts_of_users_and_pilots_are_those_of_current_owners(newcomer: FlaskClient) -> None:
    """The contract's own statement shows one row a character."""
    with db.connection_context():
        rows = execute(
            """SELECT character_name, last_killmail_sync_at, last_killmail_id, expires_at FROM users
               ORDER BY last_killmail_sync_at DESC NULLS LAST"""
        ).fetchall()
    assert [row[0] for row in rows] == [f"Pilot {CHARACTER}"]


def test_the_new_owner_who_unlinks_deletes_nothing_of_the_former_ones(newcomer: FlaskClient) -> None:
    data(newcomer, "mutation { unlinkCharacter { unlinked } }")
    with db.connection_context():
        assert [row.killmail_id for row in Killmail.select()] == [SECRET_ID]


def test_the_former_owner_who_is_back_sees_it_again_and_the_other_is_out(
    client: FlaskClient, newcomer: FlaskClient, backend: FakeBackend
) -> None:
    log_in(client, backend, "former owner", number=2)
    nodes: list[Any] = data(client, "{ killmails { nodes { id } } }")["killmails"]["nodes"]
    assert [node["id"] for node in nodes] == [str(SECRET_ID)]
    assert who(newcomer) is None


def test_after_a_month_nothing_is_left(newcomer: FlaskClient) -> None:
    with db.connection_context():
        execute("UPDATE former_owners SET sold_at = ?", (utcnow() - timedelta(days=31),))
        deletion_was_due_for_hours()
        assert accounts.forget_former_owners() == 1
        assert Killmail.select().count() == 0
