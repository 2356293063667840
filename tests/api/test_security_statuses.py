"""`securityStatuses`: how safe solar systems are, as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import events
import solar_systems
from api import subscriptions
from events import NamesResolved
from models import User
from tests.api.socket_client import Client
from tests.web_app import make_user, secure

STATUSES = "subscription ($ids: [ID!]!) { securityStatuses(ids: $ids) { id securityStatus } }"
JITA, TAMA, OISIO = "30000142", "30002813", "30002799"

Connect = Callable[..., Client]


@pytest.fixture
def viewer(app: object) -> User:
    return make_user()


def resolve(solar_system_id: str, status: float) -> None:
    solar_systems.save(int(solar_system_id), status)
    events.publish(NamesResolved())


def test_known_ones_come_at_once_and_the_others_when_they_are(connect: Connect, viewer: User) -> None:
    secure(int(JITA), 0.945913)
    secure(int(TAMA), None)
    secure(int(OISIO), None)
    client = connect(viewer)
    client.subscribe(STATUSES, ids=[JITA, TAMA, TAMA])
    assert client.next() == {"securityStatuses": [{"id": JITA, "securityStatus": 0.9}]}
    # When another's comes to be known, nothing is told; when it is this one's, it is, and that is all
    resolve(OISIO, 0.8)
    resolve(TAMA, 0.02)
    assert client.next() == {"securityStatuses": [{"id": TAMA, "securityStatus": 0.1}]}
    assert client.receive() == {"id": "1", "type": "complete"}


def test_a_lost_event_costs_a_moment(connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "UNKNOWN_REREAD_SECONDS", 0.05)
    secure(int(TAMA), None)
    client = connect(viewer)
    client.subscribe(STATUSES, ids=[TAMA])
    client.settle()
    solar_systems.save(int(TAMA), -0.4)
    assert client.next() == {"securityStatuses": [{"id": TAMA, "securityStatus": -0.4}]}


@pytest.mark.parametrize("ids", [[], ["x"], ["0"], [str(number) for number in range(1, 1002)]])
def test_what_is_no_list_of_ids_is_refused(connect: Connect, viewer: User, ids: list[str]) -> None:
    client = connect(viewer)
    client.subscribe(STATUSES, ids=ids)
    assert client.receive()["payload"][0]["extensions"]["code"] == "BAD_USER_INPUT"


def test_signed_out_there_are_none(connect: Connect, app: object) -> None:
    client = connect()
    client.subscribe(STATUSES, ids=[JITA])
    assert client.receive()["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
