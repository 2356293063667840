"""One pilot after another's killmails and syncs, through every door there is, and what a refusal gives away.

The attacker is signed in and knows the victim's ids: killmail ids are public, the others can be counted up.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from peewee import Database

import events
from database import utcnow
from events import KillmailStored, SyncChanged, SyncFinished
from models import Killmail, User
from tests.api.socket_client import Client
from tests.security.asking import ask, codes, data
from tests.web_app import make_killmail, make_sync, make_user, wait_for_killmail

Connect = Callable[..., Client]

SECRET_ID, SHARED_ID, MINE_ID = 7001, 7002, 7003
SECRET_HASH = f"{SECRET_ID:040x}"


@pytest.fixture
def victim(sqlite_db: Database) -> User:
    return make_user(90_000_001, character_name="Victim Alvarado")


@pytest.fixture
def attacker(victim: User, sign_in: Callable[[User], None]) -> User:
    """Signed in, with a killmail of their own and one that stood in both lists."""
    attacker = make_user(90_000_666)
    make_killmail(SECRET_ID, victim, victim_id=victim.character_id)
    make_killmail(SHARED_ID, victim, attacker)
    make_killmail(MINE_ID, attacker)
    sign_in(attacker)
    return attacker


@pytest.fixture
def victims_sync(victim: User, attacker: User) -> Any:
    sync = make_sync(victim.id, state="FETCHING", found=3, error="the victim's own trouble")
    wait_for_killmail(sync, 7009)
    return sync


def cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_a_killmail_of_others_looks_like_one_that_is_not_there(client: FlaskClient, attacker: User) -> None:
    query = "query($id: ID!) { killmail(id: $id) { id killmailHash victim { shipType { id } } } }"
    theirs, nobodys = (ask(client, query, {"id": str(each)}) for each in (SECRET_ID, 7999))
    assert theirs.data == nobodys.data == b'{"data":{"killmail":null}}\n'


@pytest.mark.parametrize(
    "written", ["7001", "07001", "7001 ", "+7001", "7001.0", "0x1b59", "7001\u0000", "７００１", "killmail:7001"]
)
def test_no_way_of_writing_an_id_opens_it(client: FlaskClient, attacker: User, written: str) -> None:
    assert (
        SECRET_HASH not in ask(client, "query($id: ID!) { killmail(id: $id) { killmailHash } }", {"id": written}).text
    )


@pytest.mark.parametrize("chosen", [{}, {"isLoss": True}, {"isLoss": False}, {"isSolo": True}, {"shipTypeId": "587"}])
@pytest.mark.parametrize("after", [None, SECRET_ID, SECRET_ID + 1, 9999, 2**63 - 1])
def test_no_filter_and_no_cursor_lists_it(
    client: FlaskClient, attacker: User, chosen: dict[str, Any], after: int | None
) -> None:
    query = """query($f: KillmailFilter, $a: String) { killmails(filter: $f, first: 100, after: $a) {
        totalCount pageInfo { endCursor startCursor } edges { cursor node { id killmailHash } } } }"""
    position = None if after is None else cursor(f"killmail:{after}")
    page = data(client, query, {"f": chosen, "a": position})["killmails"]
    assert {edge["node"]["id"] for edge in page["edges"]} <= {str(SHARED_ID), str(MINE_ID)}
    assert page["totalCount"] <= 2
    assert SECRET_HASH not in json.dumps(page)


@pytest.mark.parametrize(
    "forged",
    ["sync:1", "killmail:-1", "killmail:0", "killmail:7001 OR 1=1", "killmail:٧٠٠١", "killmail:7001\n", "x", ""],
)
def test_a_forged_cursor_is_refused(client: FlaskClient, attacker: User, forged: str) -> None:
    response = ask(client, "query($a: String) { killmails(after: $a) { nodes { id } } }", {"a": cursor(forged)})
    assert codes(response) == ["BAD_USER_INPUT"]


def test_a_shared_killmail_is_shown_from_each_ones_side(client: FlaskClient, attacker: User) -> None:
    """What both may see says nothing of the other's account."""
    text = ask(client, f'{{ killmail(id: "{SHARED_ID}") {{ id isLoss killmailHash }} }}').text
    assert '"isLoss":false' in text
    assert "Victim Alvarado" not in text


def test_syncs_of_others_are_in_no_list(client: FlaskClient, attacker: User, victims_sync: Any) -> None:
    mine = make_sync(attacker.id)
    for after in (None, cursor(f"sync:{victims_sync.id + 1}"), cursor(f"sync:{2**62}")):
        query = "query($a: String) { syncs(first: 100, after: $a) { nodes { id error } } }"
        assert {node["id"] for node in data(client, query, {"a": after})["syncs"]["nodes"]} <= {str(mine.id)}
    me = data(client, "{ me { id currentSync { id error } } }")["me"]
    assert me["currentSync"]["id"] == str(mine.id)


def test_asking_for_a_sync_joins_ones_own(client: FlaskClient, attacker: User, victims_sync: Any) -> None:
    payload = data(client, "mutation { syncMyKillmails { sync { id } } }")["syncMyKillmails"]
    assert payload["sync"]["id"] != str(victims_sync.id)


def test_unlinking_deletes_nothing_of_others(client: FlaskClient, attacker: User, victim: User) -> None:
    data(client, "mutation { unlinkCharacter { unlinked } }")
    assert {killmail.killmail_id for killmail in Killmail.select()} == {SECRET_ID, SHARED_ID}
    assert User.get().id == victim.id


@pytest.mark.parametrize(
    "path", ["/killmails/{}", "/killmails/{}/", "/killmail/{}", "/killmails/0{}", "/killmails/{}.json"]
)
def test_a_page_of_others_looks_like_one_that_is_not_there(client: FlaskClient, attacker: User, path: str) -> None:
    theirs, nobodys = (client.get(path.format(each)) for each in (SECRET_ID, 7999))
    assert theirs.status_code == nobodys.status_code != 200
    assert theirs.text.replace(str(SECRET_ID), "") == nobodys.text.replace("7999", "")


@pytest.mark.parametrize(
    "path", ["/", "/killmails", "/killmails?isLoss=1", "/killmails?user_id=1", "/status", "/metrics"]
)
def test_no_page_names_what_is_others(client: FlaskClient, attacker: User, victims_sync: Any, path: str) -> None:
    text = client.get(path).text
    for secret in (SECRET_HASH, str(SECRET_ID), "Victim Alvarado", "the victim's own trouble"):
        assert secret not in text


@pytest.mark.parametrize("after", [SECRET_ID, 7999, 2**63 - 1])
def test_following_from_anothers_killmail_is_refused_like_from_none(
    connect: Connect, attacker: User, after: int
) -> None:
    socket = connect(attacker)
    socket.subscribe("subscription($after: ID) { newKillmail(after: $after) { id } }", after=str(after))
    answer = socket.receive()
    assert answer["payload"] == [{**answer["payload"][0], "message": "after is not a killmail of yours."}]


def test_a_replay_holds_ones_own_only(connect: Connect, attacker: User) -> None:
    socket = connect(attacker)
    socket.subscribe("subscription { newKillmail(after: 0) { id killmailHash } }")
    assert {socket.next()["newKillmail"]["id"] for _ in range(2)} == {str(SHARED_ID), str(MINE_ID)}
    assert socket.quiet()


def test_events_about_others_are_not_told(connect: Connect, attacker: User, victim: User, victims_sync: Any) -> None:
    """Whoever reaches the broker may even send events about them: they are checked against the lists."""
    watching, following = connect(attacker), connect(attacker)
    watching.subscribe("subscription { newKillmail { id killmailHash } }")
    following.subscribe("subscription { syncProgress { id error } }")
    watching.settle()
    following.settle()
    make_killmail(7010, victim)
    for notice in (KillmailStored(7010), KillmailStored(SECRET_ID), KillmailStored(7999),
                   SyncChanged(victims_sync.id), SyncFinished(victims_sync.id)):  # fmt: skip
        events.publish(notice)
    make_killmail(7011, attacker)
    events.publish(KillmailStored(7011))
    assert watching.next()["newKillmail"]["id"] == "7011"
    assert watching.quiet() and following.quiet()


@pytest.mark.parametrize("query", ["subscription($id: ID) { syncProgress(syncId: $id) { id error } }"])
def test_anothers_sync_is_refused_like_none(connect: Connect, attacker: User, victims_sync: Any, query: str) -> None:
    answers = []
    for number, sync_id in enumerate((victims_sync.id, 99_999)):
        socket = connect(attacker)
        socket.subscribe(query, str(number), id=str(sync_id))
        answers.append(socket.receive()["payload"])
    assert answers[0] == answers[1]
    assert answers[0][0]["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("change", ["session over", "character sold"])
def test_a_socket_of_a_session_that_is_over_gets_nothing_more(
    connect: Connect, attacker: User, victim: User, change: str
) -> None:
    socket = connect(victim)
    socket.subscribe("subscription { newKillmail { id } }")
    socket.settle()
    User.update(session_epoch=77).where(User.id == victim.id).execute()
    if change == "character sold":
        User.update(owner_hash="somebody else").where(User.id == victim.id).execute()
    make_killmail(7012, victim)
    events.publish(KillmailStored(7012))
    assert socket.close_code() == 4403


def test_unlinking_while_a_socket_follows_ends_it_before_anything_more_is_told(
    connect: Connect, attacker: User, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hub.SESSION_SECONDS", 0.2)
    socket = connect(attacker)
    socket.subscribe("subscription { newKillmail(after: 0) { id } }")
    for _ in range(2):
        socket.next()
    data(client, "mutation { unlinkCharacter { unlinked } }")
    events.publish(KillmailStored(SHARED_ID))
    assert socket.close_code() == 4403


def test_what_is_listed_but_not_stored_gives_nothing_away(client: FlaskClient, attacker: User, victim: User) -> None:
    """A reference in the ledger holds a hash; it is in nobody's answer before the killmail is stored."""
    sync = make_sync(attacker.id, state="FETCHING", found=1)
    wait_for_killmail(
        sync, 7020, killmail_hash="e" * 40, last_error="hash " + "e" * 40, not_before=utcnow() + timedelta(1)
    )
    for query in ('{ killmail(id: "7020") { killmailHash } }', "{ killmails { nodes { killmailHash } } }",
                  "{ syncs { nodes { id error waitingFor } } }"):  # fmt: skip
        assert "e" * 40 not in ask(client, query).text
    for path in ("/", "/killmails", "/killmails/7020", "/status"):
        assert "e" * 40 not in client.get(path).text


@pytest.mark.parametrize(
    "query",
    [
        "{ killmails { totalCount } }", '{ killmail(id: "7001") { id } }', "{ syncs { nodes { id } } }",
        "mutation { syncMyKillmails { queued } }", "mutation { unlinkCharacter { unlinked } }",
    ],
)  # fmt: skip
def test_a_stranger_gets_nothing_at_all(app: Any, attacker: User, query: str) -> None:
    assert codes(ask(app.test_client(), query)) == ["UNAUTHENTICATED"]
    assert User.select().count() == 2


@pytest.mark.parametrize("path", ["/killmails", "/killmails/7001", "/status", "/unlink"])
def test_a_strangers_pages_hold_nothing(app: Any, attacker: User, path: str) -> None:
    text = app.test_client().get(path, follow_redirects=True).text
    for secret in (SECRET_HASH, "Victim Alvarado", "90000001", "Pilot 90000666"):
        assert secret not in text
