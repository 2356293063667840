"""ESI answers one pilot with another's list: nothing of it is shown through any interface, before, during or after.

The attacker is signed in; their sync read the victim's list. The ledger and the settling are the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from peewee import Database

import events
import ledger
from database import db
from events import KillmailStored
from ledger.reading import Reading
from models import Killmail, Trigger, User
from tests.api.socket_client import Client
from tests.security.asking import ask, data
from tests.unit.ledger.world import COOLDOWN, dispatch_all, hash_of, make_killmail
from tests.web_app import make_user

Connect = Callable[..., Client]

THEIRS, SHARED = 7101, 7102


@pytest.fixture
def victim(sqlite_db: Database) -> User:
    return make_user(90_000_001)


@pytest.fixture
def attacker(victim: User, sign_in: Callable[[User], None]) -> User:
    attacker = make_user(90_000_666)
    sign_in(attacker)
    return attacker


def read_wrong_list(user: User) -> None:
    """A sync of this user's reads the victim's list."""
    asked = ledger.open_sync(user.id, Trigger.WEB, cooldown=COOLDOWN, force=True)
    assert asked.sync_id is not None
    sync = ledger.claim_sync(asked.sync_id)
    assert sync is not None
    references = [(each, hash_of(each)) for each in (THEIRS, SHARED)]
    added = ledger.add_page(sync, references, reading=Reading(pages=1), etag=None, seen=set())
    assert added is not None
    assert ledger.end_listing(added.sync, etag=None, complete=True)


def fetch(victim: User, attacker: User) -> None:
    """What is wanted is fetched and stored, and told as a worker tells it."""
    with db.connection_context():
        dispatch_all()
        for killmail_id, names in ((THEIRS, [victim]), (SHARED, [victim, attacker])):
            claim = ledger.claim(killmail_id)
            if claim is not None:
                body = make_killmail(killmail_id, [user.character_id for user in names])
                assert ledger.settle(claim, body).stored
                events.publish(KillmailStored(killmail_id))


@pytest.fixture(params=["before it is stored", "after it is stored"])
def wrong(request: pytest.FixtureRequest, victim: User, attacker: User) -> None:
    """The wrong list is read before, or after, its killmails were stored for the victim."""
    with db.connection_context():
        if request.param == "after it is stored":
            read_wrong_list(victim)
            fetch(victim, attacker)
        read_wrong_list(attacker)
    fetch(victim, attacker)


def test_no_query_finds_it(client: FlaskClient, wrong: None) -> None:
    query = "query($id: ID!) { killmail(id: $id) { id killmailHash } }"
    theirs, missing = (ask(client, query, {"id": str(each)}) for each in (THEIRS, 7999))
    assert theirs.data == missing.data
    page = data(client, "{ killmails { totalCount nodes { id killmailHash } } me { lastKillmailId } }")
    assert page["killmails"]["totalCount"] == 1
    assert [node["id"] for node in page["killmails"]["nodes"]] == [str(SHARED)]


@pytest.mark.parametrize("path", ["/killmails/{}", "/killmails/{}.json"])
def test_its_page_looks_like_one_that_is_not_there(client: FlaskClient, wrong: None, path: str) -> None:
    theirs, missing = (client.get(path.format(each)) for each in (THEIRS, 7999))
    assert theirs.status_code == missing.status_code == 404
    assert theirs.text.replace(str(THEIRS), "") == missing.text.replace("7999", "")


@pytest.mark.parametrize("path", ["/", "/killmails", "/killmails/export.csv", "/killmails/export.json", "/pictures"])
def test_no_page_and_no_export_holds_it(client: FlaskClient, wrong: None, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert str(THEIRS) not in answer.text
    assert hash_of(THEIRS) not in answer.text


def test_a_replay_does_not_bring_it(connect: Connect, attacker: User, wrong: None) -> None:
    socket = connect(attacker)
    socket.subscribe("subscription { newKillmail(after: 0) { id } }")
    assert socket.next()["newKillmail"]["id"] == str(SHARED)
    assert socket.quiet()


def test_no_cursor_starts_at_it(connect: Connect, attacker: User, wrong: None) -> None:
    socket = connect(attacker)
    socket.subscribe("subscription($after: ID) { newKillmail(after: $after) { id } }", after=str(THEIRS))
    assert socket.receive()["payload"][0]["message"] == "after is not a killmail of yours."


def test_who_follows_while_it_is_stored_is_not_told(connect: Connect, victim: User, attacker: User) -> None:
    """The link is there until the moment in which it is stored; the event comes after that."""
    with db.connection_context():
        read_wrong_list(attacker)
    watching = connect(attacker)
    watching.subscribe("subscription { newKillmail { id } }")
    watching.settle()
    fetch(victim, attacker)
    assert watching.next()["newKillmail"]["id"] == str(SHARED)
    assert watching.quiet()


def test_leaving_takes_nothing_of_the_victims_with_it(client: FlaskClient, victim: User, attacker: User) -> None:
    with db.connection_context():
        read_wrong_list(victim)
        fetch(victim, attacker)
        read_wrong_list(attacker)
    data(client, "mutation { unlinkCharacter { unlinked } }")
    with db.connection_context():
        assert {row.killmail_id for row in Killmail.select()} == {THEIRS, SHARED}
        assert User.get().id == victim.id


def test_what_it_counts_says_nothing_but_numbers(client: FlaskClient, wrong: None) -> None:
    nodes: list[dict[str, Any]] = data(client, "{ syncs { nodes { found saved skipped error } } }")["syncs"]["nodes"]
    assert [(node["found"], node["error"]) for node in nodes] == [(1, None)]
    with db.connection_context():
        assert all(ledger.finalize(sync_id, COOLDOWN) for sync_id in ledger.ready_to_finish())
    nodes = data(client, "{ syncs { nodes { found saved skipped error } } }")["syncs"]["nodes"]
    said = "1 killmail of the list does not name this pilot and is not shown; the next sync reads the whole list again"
    assert [(node["found"], node["error"]) for node in nodes] == [(1, said)]
