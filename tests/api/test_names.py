"""`names`: what ids are called, as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import events
from api import subscriptions
from events import NamesResolved
from models import Name, User
from tests.api.socket_client import Client
from tests.web_app import make_user, name

NAMES = "subscription ($ids: [ID!]!) { names(ids: $ids) { id name } }"

Connect = Callable[..., Client]


@pytest.fixture
def viewer(app: object) -> User:
    return make_user()


def resolve(entity_id: int, text: str) -> None:
    Name.update(name=text).where(Name.id == entity_id).execute()
    events.publish(NamesResolved())


def test_known_ones_come_at_once_and_the_others_when_they_are(connect: Connect, viewer: User) -> None:
    name(1, "Rifter")
    for entity_id in (2, 3):
        name(entity_id, None)
    client = connect(viewer)
    client.subscribe(NAMES, ids=["1", "2", "2"])
    assert client.next() == {"names": [{"id": "1", "name": "Rifter"}]}
    # When another's name comes to be known, nothing is told; when it is this one's, it is, and that is all
    resolve(3, "Jita")
    resolve(2, "<b>Capsule</b>")
    assert client.next() == {"names": [{"id": "2", "name": "<b>Capsule</b>"}]}
    assert client.receive() == {"id": "1", "type": "complete"}


def test_a_lost_event_costs_a_moment(connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "UNKNOWN_REREAD_SECONDS", 0.05)
    name(2, None)
    client = connect(viewer)
    client.subscribe(NAMES, ids=["2"])
    client.settle()
    Name.update(name="Capsule").where(Name.id == 2).execute()
    assert client.next() == {"names": [{"id": "2", "name": "Capsule"}]}


@pytest.mark.parametrize("ids", [[], ["x"], ["0"], ["1", "-1"], [str(number) for number in range(1, 1002)]])
def test_what_is_no_list_of_ids_is_refused(connect: Connect, viewer: User, ids: list[str]) -> None:
    client = connect(viewer)
    client.subscribe(NAMES, ids=ids)
    message = client.receive()
    assert message["type"] == "error"
    assert message["payload"][0]["extensions"]["code"] == "BAD_USER_INPUT"


def test_signed_out_there_are_none(connect: Connect, app: object) -> None:
    client = connect()
    client.subscribe(NAMES, ids=["1"])
    assert client.receive()["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
