"""What a viewer sees of killmails, in which order, and at what cost."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask.testing import FlaskClient

import database
from models import User
from tests.web_app import make_killmail, make_sync, make_user, name, wait_for_killmail

FULL = """
query Page($filter: KillmailFilter, $first: Int = 25, $after: String) {
  killmails(filter: $filter, first: $first, after: $after) {
    totalCount
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    edges { cursor node {
      id killmailHash killmailTime solarSystem { id name } isLoss isNpc isSolo attackerCount zkillboardUrl
      victim { character { id name } corporation { id name } shipType { id name } damageTaken position { x } }
      attackers { character { name } shipType { name } damageDone finalBlow securityStatus }
      finalBlow { character { id name } }
      items { type { id name } quantityDropped quantityDestroyed items { type { id } quantityDropped items { flag } } }
    } }
  }
}
"""


@pytest.fixture
def viewer(sign_in: Callable[[User], None], client: FlaskClient) -> User:
    user = make_user()
    sign_in(user)
    return user


def page(client: FlaskClient, **variables: Any) -> Any:
    response = client.post("/graphql", json={"query": FULL, "variables": variables})
    assert "errors" not in response.get_json(), response.text
    return response.get_json()["data"]["killmails"]


def ids(client: FlaskClient, **variables: Any) -> list[int]:
    return [int(edge["node"]["id"]) for edge in page(client, **variables)["edges"]]


def refusal(client: FlaskClient, query: str, **variables: Any) -> str:
    response = client.post("/graphql", json={"query": query, "variables": variables})
    return str(response.get_json()["errors"][0]["extensions"]["code"])


def test_a_killmail_has_all_its_parts(client: FlaskClient, viewer: User) -> None:
    # Given a loss of the viewer's, with names for some of what is in it
    make_killmail(
        1000,
        viewer,
        victim_id=viewer.character_id,
        attackers=2,
        victim={"corporation_id": 98_000_001, "position_x": 1.5, "position_y": -2.0, "position_z": 0.0},
    )
    name(30_000_142, "Jita")
    name(587, "Rifter")
    name(96_000_001, "<b>Killer</b>")
    name(96_000_000, None)
    # When it is asked for
    node = page(client)["edges"][0]["node"]
    # Then it is all there, large numbers, nesting and unknown names included
    assert node == {
        "id": "1000",
        "killmailHash": f"{1000:040x}",
        "killmailTime": "2026-11-01T00:16:40Z",
        "solarSystem": {"id": "30000142", "name": "Jita"},
        "isLoss": True,
        "isNpc": False,
        "isSolo": False,
        "attackerCount": 2,
        "zkillboardUrl": "https://zkillboard.com/kill/1000/",
        "victim": {
            "character": {"id": "90000001", "name": None},
            "corporation": {"id": "98000001", "name": None},
            "shipType": {"id": "587", "name": "Rifter"},
            "damageTaken": 4_000_000_000,
            "position": {"x": 1.5},
        },
        "attackers": [
            {
                "character": {"name": None},
                "shipType": {"name": None},
                "damageDone": 10,
                "finalBlow": False,
                "securityStatus": -1.5,
            },
            {
                "character": {"name": "<b>Killer</b>"},
                "shipType": {"name": None},
                "damageDone": 10,
                "finalBlow": True,
                "securityStatus": -1.5,
            },
        ],
        "finalBlow": {"character": {"id": "96000001", "name": "<b>Killer</b>"}},
        "items": [
            {
                "type": {"id": "3465", "name": None},
                "quantityDropped": 1,
                "quantityDestroyed": None,
                "items": [{"type": {"id": "34"}, "quantityDropped": 5_000_000_000, "items": []}],
            },
            {"type": {"id": "35", "name": None}, "quantityDropped": None, "quantityDestroyed": 3, "items": []},
        ],
    }


def test_a_structure_has_no_pilot_and_is_nobodys_loss(client: FlaskClient, viewer: User) -> None:
    make_killmail(5, viewer, victim_id=None)
    node = page(client)["edges"][0]["node"]
    assert node["victim"]["character"] is None
    assert node["isLoss"] is False


def test_pages_cover_everything_once_newest_first(client: FlaskClient, viewer: User) -> None:
    for killmail_id in range(1, 8):
        make_killmail(killmail_id, viewer)
    walked: list[int] = []
    after, more = None, True
    while more:
        part = page(client, first=3, after=after)
        assert part["totalCount"] == 7
        assert part["pageInfo"]["hasPreviousPage"] is (after is not None)
        walked += [int(edge["node"]["id"]) for edge in part["edges"]]
        after, more = part["pageInfo"]["endCursor"], part["pageInfo"]["hasNextPage"]
    assert walked == [7, 6, 5, 4, 3, 2, 1]


def test_a_page_stays_put_while_new_killmails_come(client: FlaskClient, viewer: User) -> None:
    for killmail_id in (1, 2, 3):
        make_killmail(killmail_id, viewer)
    cursor = page(client, first=2)["pageInfo"]["endCursor"]
    make_killmail(4, viewer)
    assert ids(client, after=cursor) == [1]


def test_others_killmails_are_not_there(client: FlaskClient, viewer: User) -> None:
    # Given a killmail in another pilot's list, in which the viewer appears as an attacker
    other = make_user(96_000_000)
    viewer.character_id = 96_000_001
    viewer.save()
    make_killmail(1, other, attackers=2)
    make_killmail(2, viewer)
    # Then no door leads to it
    assert ids(client) == [2]
    assert page(client)["totalCount"] == 1
    response = client.post("/graphql", json={"query": '{ killmail(id: "1") { id } }'})
    assert response.json == {"data": {"killmail": None}}
    assert response.get_json() == client.post("/graphql", json={"query": '{ killmail(id: "77") { id } }'}).get_json()
    cursor = base64.urlsafe_b64encode(b"killmail:2").decode().rstrip("=")
    assert ids(client, after=cursor) == []


def test_what_is_listed_but_not_stored_is_not_there_yet(client: FlaskClient, viewer: User) -> None:
    from tests.web_app import link

    link(viewer, 9)
    assert ids(client) == []


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"isLoss": True}, [2]),
        ({"isLoss": False}, [5, 4, 3, 1]),
        ({"isSolo": True}, [5, 4, 2, 1]),
        ({"isNpc": True}, [4]),
        ({"shipTypeId": "670"}, [5]),
        ({"solarSystemId": "31000001"}, [1]),
        ({"from": "2026-11-01T00:00:03Z"}, [5, 4, 3]),
        ({"from": "2026-11-01T02:00:03+02:00", "to": "2026-11-01T00:00:05"}, [4, 3]),
        ({"isLoss": False, "isSolo": True, "isNpc": False}, [5, 1]),
        ({"isLoss": None, "from": None}, [5, 4, 3, 2, 1]),
        ({}, [5, 4, 3, 2, 1]),
    ],
)
def test_filters(client: FlaskClient, viewer: User, chosen: dict[str, Any], expected: list[int]) -> None:
    make_killmail(1, viewer, victim_id=None, solar_system_id=31_000_001)
    make_killmail(2, viewer, victim_id=viewer.character_id)
    make_killmail(3, viewer, attackers=3)
    make_killmail(4, viewer, is_npc=True)
    make_killmail(5, viewer, ship_type_id=670)
    assert ids(client, filter=chosen) == expected
    assert page(client, filter=chosen)["totalCount"] == len(expected)


INJECTION = "1' OR '1'='1"


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("query($v: ID!) { killmail(id: $v) { id } }", {"v": INJECTION}),
        ("query($v: ID!) { killmail(id: $v) { id } }", {"v": "-1"}),
        ("query($v: ID!) { killmail(id: $v) { id } }", {"v": "9223372036854775808"}),
        ("query($v: ID!) { killmail(id: $v) { id } }", {"v": "١٢"}),
        ("query($v: ID!) { killmail(id: $v) { id } }", {"v": ""}),
        ("query($v: String) { killmails(after: $v) { nodes { id } } }", {"v": INJECTION}),
        ("query($v: String) { killmails(after: $v) { nodes { id } } }", {"v": "ключ"}),
        ("query($v: String) { killmails(after: $v) { nodes { id } } }", {"v": ""}),
        (
            "query($v: String) { killmails(after: $v) { nodes { id } } }",
            {"v": base64.urlsafe_b64encode(b"sync:1").decode()},
        ),
        (
            "query($v: String) { killmails(after: $v) { nodes { id } } }",
            {"v": base64.urlsafe_b64encode(b"killmail:9223372036854775808").decode()},
        ),
        (
            "query($v: String) { killmails(after: $v) { nodes { id } } }",
            {"v": base64.urlsafe_b64encode(b"killmail:1 OR 1=1").decode()},
        ),
        ("query($v: Int) { killmails(first: $v) { nodes { id } } }", {"v": 0}),
        ("query($v: Int) { killmails(first: $v) { nodes { id } } }", {"v": 101}),
        ("query($v: Int) { killmails(first: $v) { nodes { id } } }", {"v": None}),
        ("query($v: KillmailFilter) { killmails(filter: $v) { nodes { id } } }", {"v": {"shipTypeId": INJECTION}}),
        ("query($v: KillmailFilter) { killmails(filter: $v) { nodes { id } } }", {"v": {"from": INJECTION}}),
        ("query($v: KillmailFilter) { killmails(filter: $v) { nodes { id } } }", {"v": {"from": 5}}),
        ("query($v: KillmailFilter) { killmails(filter: $v) { nodes { id } } }", {"v": {"nope": 5}}),
        ('{ killmails(filter: {from: "0001-01-01T00:00:00+23:59"}) { nodes { id } } }', {}),
        ("query($v: Int) { syncs(first: $v) { nodes { id } } }", {"v": -5}),
    ],
)
def test_bad_input_is_the_clients_error(
    client: FlaskClient, viewer: User, query: str, variables: dict[str, Any]
) -> None:
    make_killmail(1, viewer)
    assert refusal(client, query, **variables) == "BAD_USER_INPUT"


def count_statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    statements: list[str] = []
    real = database.db.obj.execute_sql

    def counting(sql: str, *arguments: Any, **options: Any) -> Any:
        statements.append(sql)
        return real(sql, *arguments, **options)

    monkeypatch.setattr(database.db.obj, "execute_sql", counting)
    return statements


def test_a_page_costs_the_same_number_of_statements_whatever_its_size(
    client: FlaskClient, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for killmail_id in range(1, 31):
        make_killmail(killmail_id, viewer, attackers=3)
    client.post("/graphql", json={"query": FULL})  # what is done once is done
    statements = count_statements(monkeypatch)
    counts = []
    for first in (1, 30):
        statements.clear()
        assert len(ids(client, first=first)) == first
        counts.append(len(statements))
    assert counts[0] == counts[1] <= 8, statements


def test_what_is_not_asked_for_is_not_read(client: FlaskClient, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    make_killmail(1, viewer)
    statements = count_statements(monkeypatch)
    client.post("/graphql", json={"query": "{ killmails { nodes { id isLoss securityStatus } } }"})
    assert len(statements) == 2, statements  # the session's user, and the page


def test_my_syncs_and_nobody_elses(client: FlaskClient, viewer: User) -> None:
    # Given an ended sync, one that waits, and somebody else's
    ended = make_sync(viewer.id, state="FINISHED", finished_at=datetime(2026, 11, 1), found=5, saved=3, skipped=2)
    make_sync(make_user(90_000_002).id)
    active = make_sync(
        viewer.id, state="FETCHING", found=10, skipped=4, waiting_until=datetime(2999, 1, 1), waiting_for="ESI"
    )
    wait_for_killmail(active, 71)
    wait_for_killmail(active, 72, attempts=9, state="deferred")
    # When they are asked for
    fields = "id state found saved skipped failed pending waitingFor waitingUntil finishedAt trigger"
    query = f"{{ syncs {{ nodes {{ {fields} }} }} me {{ currentSync {{ id }} }} }}"
    data = client.post("/graphql", json={"query": query}).get_json()["data"]
    # Then the counts of the active one are live, and waiting is shown
    first, second = data["syncs"]["nodes"]
    assert (first["state"], first["waitingFor"], first["waitingUntil"]) == ("WAITING", "ESI", "2999-01-01T00:00:00Z")
    assert [first[key] for key in ("found", "saved", "skipped", "failed", "pending")] == [10, 4, 4, 1, 1]
    assert (second["id"], second["state"], second["finishedAt"]) == (str(ended.id), "FINISHED", "2026-11-01T00:00:00Z")
    assert data["me"]["currentSync"]["id"] == str(active.id)
