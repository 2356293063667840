"""What subscribers get: their own, once, all of it, and nobody waits for somebody who does not read."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database, OperationalError

import events
from api import hub, killmails, subscriptions
from api.wire import Wire
from database import execute, utcnow
from events import KillmailStored, NamesResolved, Resumed, SyncChanged
from models import Killmail, Name, Sync, User
from tests.api.socket_client import Client
from tests.web_app import FakeBackend, link, make_killmail, make_sync, make_user

Connect = Callable[..., Client]
WATCH = "subscription($after: ID) { newKillmail(after: $after) { id } }"


@pytest.fixture
def viewer(sqlite_db: Database) -> User:
    return make_user()


def watching(connect: Connect, user: User, after: str | None = None) -> Client:
    client = connect(user)
    client.subscribe(WATCH, after=after)
    client.settle()
    return client


def store(killmail_id: int, *viewers: User, **changes: Any) -> None:
    """What a worker does: store, commit, publish."""
    make_killmail(killmail_id, *viewers, **changes)
    events.publish(KillmailStored(killmail_id))


def next_ids(client: Client, count: int) -> list[int]:
    return [int(client.next()["newKillmail"]["id"]) for _ in range(count)]


class Deadly:
    """A socket that ends the hub's thread when it looks at whose it is."""

    owner = "nobody"
    session_epoch = None

    @property
    def user_id(self) -> int:
        if threading.current_thread().name == "hub":
            sys.exit()
        return 0

    def close(self, code: int, reason: str) -> None:
        """Nothing to end."""


class TestNewKillmail:
    def test_my_killmails_come_as_they_are_stored(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        store(1, viewer)
        store(2, viewer)
        assert next_ids(client, 2) == [1, 2]

    def test_with_all_their_parts_and_per_viewer(self, connect: Connect, viewer: User) -> None:
        # Given two viewers of one fight
        other = make_user(90_000_002)
        clients = [connect(viewer), connect(other)]
        for client in clients:
            client.subscribe(
                "subscription { newKillmail { id isLoss attackers { damageDone } items { items { flag } } } }"
            )
            client.settle()
        # When it is stored
        store(1, viewer, other, victim_id=viewer.character_id)
        # Then each sees it from their side
        losses = [client.next()["newKillmail"] for client in clients]
        assert [loss["isLoss"] for loss in losses] == [True, False]
        assert losses[0]["attackers"] == [{"damageDone": 10}]
        assert losses[0]["items"] == [{"items": [{"flag": 5}]}, {"items": []}]

    @pytest.mark.parametrize(
        ("query", "variables"),
        [
            ("subscription ($n: Int) { newKillmail { id attackers(first: $n) { damageDone } } }", ({"n": 0}, {"n": 1})),
            (
                "subscription ($yes: Boolean!) { newKillmail { id attackers @include(if: $yes) { damageDone } } }",
                ({"yes": False}, {"yes": True}),
            ),
            (
                "subscription ($n: Int) { newKillmail { id ...f } }"
                " fragment f on Killmail { attackers(first: $n) { damageDone } }",
                ({"n": 0}, {"n": 1}),
            ),
        ],
        ids=["argument", "directive", "fragment"],
    )
    def test_one_document_with_variables_of_ones_own(
        self, connect: Connect, viewer: User, query: str, variables: tuple[dict[str, Any], ...]
    ) -> None:
        """What is the same for all is executed once; what each client asks for is not."""
        clients = [connect(viewer) for _ in variables]
        for client, each in zip(clients, variables, strict=True):
            client.subscribe(query, **each)
            client.settle()
        store(1, viewer)
        assert [len(client.next()["newKillmail"].get("attackers", [])) for client in clients] == [0, 1]

    def test_others_killmails_do_not_come(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        store(1, make_user(90_000_002))
        store(2, viewer)
        assert next_ids(client, 1) == [2]

    def test_each_viewer_gets_their_own_and_not_the_others(self, connect: Connect, viewer: User) -> None:
        other = make_user(90_000_002)
        mine, theirs = watching(connect, viewer), watching(connect, other)
        store(1, other)
        store(2, viewer)
        store(3, viewer, other)
        assert next_ids(mine, 2) == [2, 3]
        assert next_ids(theirs, 2) == [1, 3]

    def test_a_doubled_event_is_told_once(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        store(1, viewer)
        events.publish(KillmailStored(1))
        events.publish(KillmailStored(404))  # never stored
        store(2, viewer)
        assert next_ids(client, 2) == [1, 2]

    def test_what_others_had_stored_before_comes_when_it_is_listed(self, connect: Connect, viewer: User) -> None:
        # Given a killmail that another pilot's sync stored long ago
        make_killmail(1, make_user(90_000_002), created_at=utcnow() - timedelta(days=1))
        client = watching(connect, viewer)
        # When a page of the viewer's list names it
        link(viewer, 1)
        events.publish(SyncChanged(make_sync(viewer.id).id))
        # Then it comes, although nothing was stored
        assert next_ids(client, 1) == [1]

    def test_a_missed_event_is_made_up_for(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        store(1, viewer)
        assert next_ids(client, 1) == [1]
        # Given a killmail whose event was lost
        make_killmail(2, viewer)
        # When the connection to the broker is back
        events._process.subscribers.tell(Resumed())
        # Then it comes, and the one before does not come again
        assert next_ids(client, 1) == [2]
        assert client.quiet()

    def test_what_was_stored_before_the_subscription_began_does_not_come(self, connect: Connect, viewer: User) -> None:
        # Given a killmail that was stored a moment ago, whose event may still be on its way
        make_killmail(1, viewer)
        client = watching(connect, viewer)
        # When the connection to the broker is established, and the late event comes
        events._process.subscribers.tell(Resumed())
        events.publish(KillmailStored(1))
        events.publish(SyncChanged(make_sync(viewer.id).id))
        store(2, viewer)
        # Then only what was stored since comes
        assert next_ids(client, 1) == [2]
        assert client.quiet()

    def test_what_was_committed_late_comes_although_it_was_begun_before(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        begun = utcnow() - timedelta(seconds=10)
        make_killmail(1, viewer, linked_at=begun, created_at=begun)
        events._process.subscribers.tell(Resumed())
        assert next_ids(client, 1) == [1]

    def test_what_is_stored_before_the_hub_knows_the_subscription_comes(self, viewer: User) -> None:
        reader = subscriptions.Reader(viewer, lambda: None, lambda: None)
        make_killmail(1, viewer)
        subscription = subscriptions.NewKillmails(reader, None, frozenset())
        make_killmail(2, viewer)
        assert [killmail.id for killmail in subscription.take()] == [2]

    def test_a_failing_database_delays_and_loses_nothing(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = watching(connect, viewer)
        real = killmails.viewers_of

        def fail_once(*arguments: Any) -> Any:
            monkeypatch.setattr(killmails, "viewers_of", real)
            raise OperationalError("gone")

        monkeypatch.setattr(killmails, "viewers_of", fail_once)
        store(1, viewer)
        assert next_ids(client, 1) == [1]

    @pytest.mark.parametrize(
        "edit",
        [
            "UPDATE killmails SET solar_system_id = 'nonsense' WHERE killmail_id = 1",
            "UPDATE victims SET ship_type_id = 'nonsense' WHERE killmail_id = 1",
        ],
    )
    def test_one_whose_row_was_edited_by_hand_hurts_nobody_elses(
        self, connect: Connect, viewer: User, caplog: pytest.LogCaptureFixture, edit: str
    ) -> None:
        # Given two pilots who follow their killmails with names, and rows that are no killmail
        other = make_user(90_000_002)
        watch = "subscription { newKillmail { id solarSystem { name } } }"
        clients = [connect(viewer), connect(other)]
        for client in clients:
            client.subscribe(watch)
            client.settle()
        make_killmail(1, viewer)
        execute(edit)
        # When it is told among others
        for killmail_id, owner in ((2, viewer), (3, other)):
            make_killmail(killmail_id, owner)
        for killmail_id in (2, 1, 3):
            events.publish(KillmailStored(killmail_id))
        store(4, viewer, other)
        # Then everybody gets the others, now and in a replay
        assert next_ids(clients[0], 2) == [2, 4]
        assert next_ids(clients[1], 2) == [3, 4]
        clients[0].subscribe(watch.replace("newKillmail", 'newKillmail(after: "0")'), "again")
        assert [clients[0].next("again")["newKillmail"]["id"] for _ in range(2)] == ["2", "4"]
        assert {record.getMessage() for record in caplog.records if record.levelname == "ERROR"} == {
            "killmail 1: its rows cannot be read; it is left out"
        }

    def test_an_event_that_cannot_be_handled_is_dropped_and_no_other(
        self, connect: Connect, viewer: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = watching(connect, viewer)
        sync = make_sync(viewer.id)
        execute("UPDATE syncs SET waiting_until = 'nonsense'")
        events.publish(SyncChanged(sync.id))
        store(1, viewer)
        assert next_ids(client, 1) == [1]
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert errors == [f"cannot be handled, and is dropped: SyncChanged(sync_id={sync.id})"]

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_a_hub_that_died_is_started_anew(self, app: Flask, connect: Connect, viewer: User) -> None:
        # Given a hub whose thread has ended, and a killmail it did not tell
        client = watching(connect, viewer)
        running: hub.Hub = app.extensions[hub.EXTENSION]
        thread = running._thread
        assert thread is not None
        deadly = cast(hub.Socket, Deadly())
        assert running.enter(deadly)
        running._sessions_at = 0.0
        events._process.subscribers.tell(NamesResolved())
        thread.join(10)
        assert not thread.is_alive()
        running.leave(deadly)
        store(1, viewer)
        # When somebody comes
        connect(viewer)
        # Then it works again, and makes up for what was missed
        assert next_ids(client, 1) == [1]

    def test_unsubscribing_ends_it(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        client.send({"id": "1", "type": "complete"})
        client.settle()
        store(1, viewer)
        assert client.quiet()


class TestReplay:
    def test_zero_replays_everything_in_the_order_it_came(self, connect: Connect, viewer: User) -> None:
        now = utcnow()
        for killmail_id, minutes in ((5, 30), (3, 20), (9, 10)):
            at = now - timedelta(minutes=minutes)
            make_killmail(killmail_id, viewer, linked_at=at, created_at=at)
        make_killmail(7, make_user(90_000_002))
        client = connect(viewer)
        client.subscribe(WATCH, after="0")
        assert next_ids(client, 3) == [5, 3, 9]
        # and then goes on live
        store(11, viewer)
        assert next_ids(client, 1) == [11]

    def test_after_replays_what_came_since_and_not_itself(self, connect: Connect, viewer: User) -> None:
        now = utcnow()
        for killmail_id, seconds in ((1, 3600), (2, 1800), (3, 900), (4, 0)):
            at = now - timedelta(seconds=seconds)
            make_killmail(killmail_id, viewer, linked_at=at, created_at=at)
        client = connect(viewer)
        client.subscribe(WATCH, after="2")
        assert next_ids(client, 2) == [3, 4]
        assert client.quiet()

    def test_an_older_killmail_that_came_later_is_replayed(self, connect: Connect, viewer: User) -> None:
        """Ids say nothing about arrival: an old one may have failed at first, or have been listed late."""
        now = utcnow()
        make_killmail(50, viewer, linked_at=now - timedelta(hours=1), created_at=now - timedelta(hours=1))
        make_killmail(10, viewer, linked_at=now - timedelta(hours=2), created_at=now)  # stored late
        make_killmail(20, viewer, linked_at=now, created_at=now - timedelta(days=9))  # listed late
        client = connect(viewer)
        client.subscribe(WATCH, after="50")
        assert set(next_ids(client, 2)) == {10, 20}

    def test_it_starts_half_a_minute_early(self, connect: Connect, viewer: User) -> None:
        now = utcnow() - timedelta(hours=1)
        for killmail_id, seconds in ((1, 31), (2, 29), (3, 0)):
            at = now - timedelta(seconds=seconds)
            make_killmail(killmail_id, viewer, linked_at=at, created_at=at)
        client = connect(viewer)
        client.subscribe(WATCH, after="3")
        assert next_ids(client, 1) == [2]
        assert client.quiet()

    def test_others_killmails_are_refused_like_unknown_ones(self, connect: Connect, viewer: User) -> None:
        make_killmail(1, make_user(90_000_002))
        client = connect(viewer)
        answers = []
        for after in ("1", "2"):
            client.subscribe(WATCH, after=after)
            answers.append(client.receive())
        assert answers[0] == answers[1]
        assert answers[0]["type"] == "error"

    def test_a_long_replay_meets_the_live_stream_without_gap_or_repeat(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given more than one chunk of old killmails
        monkeypatch.setattr(subscriptions, "REPLAY_CHUNK", 7)
        for killmail_id in range(1, 41):
            make_killmail(killmail_id, viewer)
        client = connect(viewer)
        client.subscribe(WATCH, after="0")
        # When new ones are stored while the old ones are replayed
        for killmail_id in range(41, 61):
            store(killmail_id, viewer)
        # Then each comes once
        assert sorted(next_ids(client, 60)) == list(range(1, 61))
        assert client.quiet()

    @pytest.mark.parametrize(("field", "at_once"), [("id", 30), ("attackers", 10), ("items", 10), ("value", 10)])
    def test_whole_killmails_are_read_a_few_at_a_time(self, viewer: User, field: str, at_once: int) -> None:
        for killmail_id in range(1, 31):
            make_killmail(killmail_id, viewer)
        reader = subscriptions.Reader(viewer, lambda: None, lambda: None)
        assert len(subscriptions.NewKillmails(reader, 0, frozenset({field})).take()) == at_once


class TestSlowConsumers:
    def test_a_client_that_does_not_read_delays_nobody_and_is_closed(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a client that stopped reading, with little room on the way, and one that reads
        monkeypatch.setattr(subscriptions, "MAX_WAITING", 20)
        stuck = connect(viewer, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        Name.insert(id=587, name="R" * 500, category="inventory_type").on_conflict_replace().execute()
        names = " ".join(f"n{n}: shipType {{ a: name b: name c: name d: name }}" for n in range(4))
        large = " ".join(f"v{n}: victim {{ {names} }}" for n in range(4))
        stuck.subscribe(f"subscription {{ newKillmail {{ id {large} }} }}")
        stuck.settle()
        reading = watching(connect, viewer)
        # When many killmails are stored
        received = []
        for killmail_id in range(1, 401):
            store(killmail_id, viewer)
            received += next_ids(reading, 1)
        # Then the one that reads got them all at once, and the other is told why it is closed once it reads again
        assert received == list(range(1, 401))
        assert stuck.close_code() == 4008

    def test_who_is_still_reading_old_ones_is_not_slow(self, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
        # Given a subscription that has yet to replay what is old
        monkeypatch.setattr(subscriptions, "MAX_WAITING", 2)
        overflows: list[bool] = []
        reader = subscriptions.Reader(viewer, lambda: None, lambda: overflows.append(True))
        subscription = subscriptions.NewKillmails(reader, 0, frozenset())
        # When more new ones are stored than may wait
        for killmail_id in range(1, 11):
            make_killmail(killmail_id, viewer)
            subscription.tell(killmails.load([killmail_id], frozenset())[0])
        # Then it is not closed for it, and gets them all
        received: list[int] = []
        while subscription.seconds_until_due() == 0.0:
            received += [killmail.id for killmail in subscription.take()]
        assert overflows == []
        assert received == list(range(1, 11))


class TestWorkerStatus:
    QUERY = "subscription { workerStatusUpdates(intervalSeconds: 1) { queueName messageCount } }"

    def test_it_comes_at_once_and_again(self, connect: Connect, viewer: User, backend: FakeBackend) -> None:
        client = connect(viewer)
        client.subscribe(self.QUERY)
        for _ in range(2):
            assert client.next()["workerStatusUpdates"][0]["messageCount"] == 7
        assert backend.counted == 2

    def test_a_broker_that_is_away_ends_it_with_an_error(
        self, connect: Connect, viewer: User, backend: FakeBackend
    ) -> None:
        backend.broker_error = ConnectionError("down")
        client = connect(viewer)
        client.subscribe(self.QUERY)
        assert client.receive()["payload"][0]["extensions"]["code"] == "UNAVAILABLE"


class TestSessions:
    def test_signing_out_everywhere_closes_before_anything_more_is_told(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        User.update(session_epoch=9).execute()
        store(1, viewer)
        with pytest.raises(Exception, match="4403"):
            client.receive()

    def test_whoever_was_signed_out_is_told_nothing_more_however_slow_the_socket(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given a socket whose own thread takes its time, so that the hub's is the only one to send
        waits = Wire.wait

        def wait_for_long(wire: Wire, seconds: float | None) -> None:
            waits(wire, seconds)
            slow.wait(0.5)

        slow = threading.Event()
        client = watching(connect, viewer)
        client.settle()
        monkeypatch.setattr(Wire, "wait", wait_for_long)
        store(1, viewer)
        assert next_ids(client, 1) == [1]
        # When the session ends, and killmails come
        User.update(session_epoch=9).execute()
        for killmail_id in (2, 3):
            store(killmail_id, viewer)
        # Then the next thing it hears is that
        with pytest.raises(Exception, match="4403"):
            client.receive()

    def test_a_deleted_user_is_closed(self, connect: Connect, viewer: User) -> None:
        client = watching(connect, viewer)
        User.delete().execute()
        make_sync(make_user(90_000_003, session_epoch=6).id)  # SQLite gives the id away again
        events.publish(SyncChanged(Sync.get().id))
        assert client.close_code() == 4403

    def test_a_quiet_socket_is_looked_at_too(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hub, "SESSION_SECONDS", 0.1)
        client = watching(connect, viewer)
        User.update(session_epoch=9).execute()
        assert client.close_code() == 4403


@pytest.mark.parametrize("way", ["logout", "unlinkCharacter { unlinked }", "sold"])
def test_whose_session_ends_is_closed_at_once(
    connect: Connect,
    viewer: User,
    client: FlaskClient,
    sign_in: Callable[[User], None],
    backend: FakeBackend,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """Nobody has to look for it."""
    monkeypatch.setattr(hub, "SESSION_SECONDS", 3600)
    other = watching(connect, make_user(90_000_009))
    mine = watching(connect, viewer)
    if way == "sold":
        backend.sso.owner_hash = "another owner"
        client.get("/login")
        answer = {"code": f"code-{viewer.character_id}", "state": backend.sso.begun[-1].state}
        client.get("/auth/callback", query_string=answer)
    else:
        sign_in(viewer)
        client.post("/graphql", json={"query": f"mutation {{ {way} }}"})
    assert mine.close_code() == 4403
    other.settle()


def test_an_event_is_read_once_for_all_sockets(connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[int]] = []
    real = killmails.load

    def counting(killmail_ids: Any, named_fields: Any) -> Any:
        reads.append(list(killmail_ids))
        return real(killmail_ids, named_fields)

    monkeypatch.setattr(killmails, "load", counting)
    clients = [watching(connect, viewer) for _ in range(3)]
    store(1, viewer)
    assert [next_ids(client, 1) for client in clients] == [[1]] * 3
    assert reads == [[1]]
    assert Killmail.select().count() == 1
