"""Sockets that do what no browser does: too much, too slowly, too fast, in pieces, or nothing at all.

Whatever one does, another one's killmails come as they are stored.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import websocket
from flask import Flask
from peewee import Database

import events
from api import hub, transport_ws
from events import KillmailStored
from models import User
from tests.api.socket_client import Client, Closed
from tests.web_app import make_killmail, make_user

Connect = Callable[..., Client]
WATCH = "subscription { newKillmail { id } }"
ABNF = websocket.ABNF


@pytest.fixture
def viewer(sqlite_db: Database) -> User:
    return make_user()


@contextmanager
def undisturbed(connect: Connect, viewer: User, count: int = 20) -> Iterator[None]:
    """Beside whatever happens within, another socket gets its killmails, each at once."""
    other = connect(viewer)
    other.subscribe(WATCH)
    other.settle()
    yield
    for killmail_id in range(50_001, 50_001 + count):
        make_killmail(killmail_id, viewer)
        events.publish(KillmailStored(killmail_id))
        assert other.next()["newKillmail"]["id"] == str(killmail_id)


def ended(client: Client) -> int | None:
    """The close code, or None where the connection was cut. Fails where it goes on."""
    try:
        return client.close_code()
    except (websocket.WebSocketTimeoutException, TimeoutError):
        raise AssertionError("the connection is still open") from None
    except (websocket.WebSocketException, OSError):
        return None


def raw(client: Client) -> socket.socket:
    """The connection itself, past everything that would keep to the protocol."""
    assert client.ws.sock is not None
    return client.ws.sock


def frame(data: bytes, opcode: int, fin: int = 1) -> bytes:
    return bytes(ABNF(fin, 0, 0, 0, opcode, 1, data).format())


@pytest.mark.parametrize("padding", [70_000, 1_000_000])
def test_a_message_that_is_too_long_ends_its_own_socket(connect: Connect, viewer: User, padding: int) -> None:
    with undisturbed(connect, viewer):
        client = connect(viewer)
        try:
            client.send({"type": "ping", "payload": {"x": "x" * padding}})
        except OSError:
            return
        assert ended(client) in (1009, None)


def test_one_that_is_too_long_in_pieces_does_too(connect: Connect, viewer: User) -> None:
    with undisturbed(connect, viewer):
        client = connect(viewer)
        try:
            raw(client).sendall(frame(b'{"type": "ping", "payload": {"x": "', ABNF.OPCODE_TEXT, 0))
            for _ in range(100):
                raw(client).sendall(frame(b"x" * 10_000, ABNF.OPCODE_CONT, 0))
        except OSError:
            return
        assert ended(client) in (1009, None)


def test_a_frame_that_announces_more_than_there_is_memory(connect: Connect, viewer: User) -> None:
    with undisturbed(connect, viewer):
        client = connect(viewer)
        raw(client).sendall(b"\x81\xff" + (2**62).to_bytes(8, "big") + b"mask" + b"x" * 1000)


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        b"\x83\x80mask",
        b"\x81\x05hello",
        b"\x88\x81maskx",
        b"\xc1\x80mask",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["reserved bits", "reserved opcode", "unmasked", "close of one byte", "compressed", "HTTP"],
)
def test_bytes_that_are_no_frames(connect: Connect, viewer: User, sent: bytes) -> None:
    with undisturbed(connect, viewer):
        client = connect(viewer)
        raw(client).sendall(sent)
        assert ended(client) in (None, 1000, 1002, 1005, 1007, 4400)


def test_text_that_is_no_text(connect: Connect, viewer: User) -> None:
    with undisturbed(connect, viewer):
        client = connect(viewer)
        raw(client).sendall(frame(b'{"type": "\xff\xfe"}', ABNF.OPCODE_TEXT))
        assert ended(client) in (None, 1002, 1007, 4400)


def test_compression_is_not_agreed_to(connect: Connect, viewer: User) -> None:
    """A message of a few bytes must not unfold to megabytes."""
    client = connect(viewer, header=["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"])
    assert "sec-websocket-extensions" not in {name.lower() for name in client.ws.headers}


#: Messages that JSON allows, and whose echo is no text or too deep to be written.
ODD = {
    "surrogate in a ping": '{"type": "ping", "payload": {"a": "\\ud800"}}',
    "surrogate as an id": '{"id": "\\ud800", "type": "subscribe", "payload": {"query": "{ nonsense }"}}',
    "surrogate in a query": '{"id": "1", "type": "subscribe", "payload": {"query": "{ \\ud800 }"}}',
    "surrogate in a string": '{"id": "1", "type": "subscribe", "payload": {"query": "{ a(id: \\"\\ud800\\") }"}}',
    "NUL": '{"id": "\\u0000", "type": "subscribe", "payload": {"query": "{ me { id } }"}}',
    "depth": '{"type": "ping", "payload": ' + '{"a": ' * 970 + "1" + "}" * 970 + "}",
    "more depth": '{"type": "ping", "payload": ' + '{"a": ' * 9000 + "1" + "}" * 9000 + "}",
    "a type that is a list": '{"type": ["ping"]}',
    "an id that is a list": '{"type": "complete", "id": ["1"]}',
    "an id too long": json.dumps({"type": "complete", "id": "x" * 50_000}),
    "extra variables": '{"id": "1", "type": "subscribe", "payload": {"query": "{ me { id } }", "variables": [1]}}',
}


@pytest.mark.parametrize("message", ODD.values(), ids=ODD.keys())
def test_an_odd_message_is_the_clients_own_trouble(
    connect: Connect, viewer: User, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    with undisturbed(connect, viewer, 3):
        client = connect(viewer)
        client.send(message)
        client.send({"type": "complete", "id": "none"})
        with suppress(Closed, AssertionError, websocket.WebSocketException, RecursionError):
            client.settle()
    assert "Traceback" not in caplog.text
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


#: As much as a document may ask for of one killmail.
LONG = " ".join(
    f"a{n}: attackers {{ character {{ id name }} corporation {{ id name }} damageDone }} h{n}: killmailHash"
    for n in range(4)
)


def accepted(connect: Connect, viewer: User, query: str) -> None:
    """Or the attack is none: whoever never reads never sees a refusal either."""
    reader = connect(viewer)
    reader.subscribe(query)
    reader.settle()
    raw(reader).close()


def test_a_stuck_subscriber_delays_nobody(connect: Connect, viewer: User) -> None:
    """It subscribes to everything with long answers, and never reads again."""
    query = f"subscription {{ newKillmail {{ id {LONG} }} }}"
    accepted(connect, viewer, query)
    with undisturbed(connect, viewer, 400):
        stuck = connect(viewer, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        for number in range(10):
            stuck.subscribe(query, str(number))


def test_a_stuck_replay_delays_nobody(connect: Connect, viewer: User) -> None:
    for killmail_id in range(1, 300):
        make_killmail(killmail_id, viewer)
    query = f"subscription ($after: ID) {{ newKillmail(after: $after) {{ id {LONG} }} }}"
    accepted(connect, viewer, query)
    with undisturbed(connect, viewer, 50):
        stuck = connect(viewer, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        for number in range(5):
            stuck.subscribe(query, str(number), after="0")


def test_one_that_talks_and_never_listens_is_not_kept_in_memory(connect: Connect, app: Flask, viewer: User) -> None:
    """It floods while the thread that would answer it waits for it to read."""
    with undisturbed(connect, viewer, 5):
        flood = connect(viewer, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)])
        hub = app.extensions[transport_ws.EXTENSION]
        ping = frame(json.dumps({"type": "ping", "payload": {"x": "x" * 60_000}}).encode(), ABNF.OPCODE_TEXT)
        unread = [each._wire._ws.input_buffer for each in hub._all_sockets()]
        raw(flood).settimeout(1)
        until = time.monotonic() + 4
        most = 0
        while time.monotonic() < until:
            try:
                raw(flood).sendall(ping)
            except OSError:
                break  # it is not read any more: that is the defence
            most = max(most, *(len(buffer) for buffer in unread))
        assert most <= 1


def test_a_flood_of_operations_is_limited(connect: Connect, viewer: User) -> None:
    with undisturbed(connect, viewer, 3):
        client = connect(make_user(90_000_002))
        refused = 0
        for chunk in range(31):
            for number in range(20):
                client.subscribe("{ me { id } }", f"{chunk}.{number}")
            ended = 0
            while ended < 20:
                kind = client.receive()["type"]
                ended += kind in ("complete", "error")
                refused += kind == "error"
        assert refused >= 15


def test_strangers_sockets_do_not_crowd_out_pilots(connect: Connect, viewer: User) -> None:
    strangers = {raw(client): client for client in (connect(None, init=False) for _ in range(25))}
    refused: set[socket.socket] = set()
    until = time.monotonic() + 8  # a socket that says nothing at all is closed after ten seconds
    while len(refused) < 5 and time.monotonic() < until:
        refused = set(select.select(list(strangers), [], [], 0.1)[0])
    assert [ended(strangers[each]) for each in refused] == [1013] * 5
    with undisturbed(connect, viewer, 3):
        pass


def test_strangers_from_everywhere_leave_room_for_pilots(
    connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_STRANGERS", 3)
    # Given as many strangers as there may be, each from an address of its own
    for number in range(3):
        connect(None, header=[f"X-Forwarded-For: 192.0.2.{number}"])
    # When one more comes
    one_more = connect(None, init=False, header=["X-Forwarded-For: 192.0.2.99"])
    # Then it is sent away, and a pilot is not
    assert ended(one_more) == 1013
    with undisturbed(connect, viewer, 3):
        pass


def test_a_stranger_who_asks_nothing_is_closed_and_a_pilot_is_not(
    connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_ws, "STRANGER_SECONDS", 0.5)
    pilot, stranger = connect(viewer), connect(None)
    # Pings are no reason to stay
    until = time.monotonic() + 10
    with pytest.raises(Closed, match="1001"):
        while time.monotonic() < until:
            stranger.settle()
    pilot.settle()


@pytest.mark.parametrize(
    "begun",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\nContent-Type: application/json\r\n\r\n{",
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["header", "body", "silence", "TLS"],
)
def test_slow_requests_delay_nobody(connect: Connect, server_port: int, viewer: User, begun: bytes) -> None:
    slow = []
    try:
        for _ in range(50):
            connection = socket.create_connection(("127.0.0.1", server_port), timeout=5)
            connection.sendall(begun)
            slow.append(connection)
        with undisturbed(connect, viewer, 10):
            pass
    finally:
        for connection in slow:
            connection.close()


def test_one_that_is_cut_off_in_the_middle_leaves_nothing_behind(connect: Connect, app: Flask, viewer: User) -> None:
    hub: Any = app.extensions[transport_ws.EXTENSION]
    client = connect(viewer)
    client.subscribe(WATCH)
    client.settle()
    raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    raw(client).close()
    make_killmail(60_001, viewer)
    events.publish(KillmailStored(60_001))
    until = time.monotonic() + 20
    while hub._all_sockets() and time.monotonic() < until:
        time.sleep(0.05)
    assert hub._all_sockets() == hub._all_subscriptions() == []
