"""A socket's one thread: it reads, answers pings, asks whether anyone is there, and leaves nothing open behind it."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import websocket
from flask import Flask
from peewee import OperationalError
from websocket import ABNF

from api import transport_ws
from api.wire import Bell, Wire
from models import User
from tests.acceptance.processes import wait_until
from tests.api.socket_client import PATIENCE, Client
from tests.web_app import make_user
from web.server import RequestHandler

Connect = Callable[..., Client]


@pytest.fixture
def viewer(app: Flask) -> User:
    return make_user()


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


HALF_A_HANDSHAKE = b"""GET /graphql HTTP/1.1\r
Host: localhost\r
Connection: Upgrade\r
Upgrade: websocket\r
Sec-WebSocket-Version: 13\r
\r
"""


def away() -> None:
    raise OperationalError("the database is away")


def is_heard(bell: Bell) -> bool:
    return bool(select.select([bell], [], [], 0)[0])


def open_files() -> int:
    """Pipes and sockets: the database's connections are kept in their pool."""
    count = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that this reads through
            count += str(file.readlink()).startswith(("pipe:", "socket:"))
    return count


def test_a_bell_rings_until_it_is_heard_however_often_it_was_rung(bell: Bell) -> None:
    assert not is_heard(bell)
    for _ in range(100_000):  # more than a pipe holds
        bell.set()
    assert is_heard(bell)
    bell.clear()
    assert not is_heard(bell)
    bell.clear()
    bell.set()
    assert is_heard(bell)


def test_nobody_rings_into_a_file_that_was_given_the_number_of_a_closed_bell() -> None:
    bell = Bell()
    bell.close()
    reading, writing = os.pipe()
    try:
        assert bell.fileno() in (reading, writing)  # else this proves nothing
        bell.set()
        bell.clear()
        bell.close()
        assert not select.select([reading], [], [], 0)[0]
        os.write(writing, b"still open")
    finally:
        os.close(reading)
        os.close(writing)


def test_the_servers_limit_on_silence_is_for_requests(
    connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dashboard on which nothing happens says nothing for hours."""
    monkeypatch.setattr(RequestHandler, "timeout", 0.2)
    client = connect(viewer)
    assert client.quiet(0.6)
    client.settle()


def test_a_socket_has_one_thread(connect: Connect, viewer: User) -> None:
    connect(viewer)
    before = threading.active_count()
    for _ in range(5):
        connect(viewer)
    assert threading.active_count() == before + 5


def test_a_socket_leaves_no_files_open(connect: Connect, app: Flask, viewer: User) -> None:
    connect(viewer).ws.close()
    hub: Any = app.extensions[transport_ws.EXTENSION]
    wait_until(lambda: not hub._all_sockets(), "the first has gone", PATIENCE)
    before = open_files()
    clients = [connect(viewer) for _ in range(5)]
    assert open_files() >= before + 10
    for client in clients:
        client.ws.close()
    wait_until(lambda: open_files() <= before, "all files are closed", PATIENCE)


def test_a_handshake_that_fails_leaves_no_files_open(server_port: int) -> None:
    """Given no Sec-WebSocket-Key, Then what had been opened for the socket is closed again, and the client is told."""

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", server_port), timeout=PATIENCE) as asking:
            asking.sendall(HALF_A_HANDSHAKE)
            return asking.recv(4096)

    ask()
    before = open_files()
    assert {ask().partition(b"\r\n")[0] for _ in range(20)} == {b"HTTP/1.1 400 BAD REQUEST"}
    wait_until(lambda: open_files() <= before + 2, "all files are closed", PATIENCE)


def test_where_the_database_is_away_no_socket_is_opened(
    connect: Connect, app: Flask, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(viewer).ws.close()
    monkeypatch.setattr(transport_ws, "current_user", away)
    before = open_files()
    for _ in range(20):
        with pytest.raises(websocket.WebSocketBadStatusException, match="503"):
            connect(viewer)
    wait_until(lambda: open_files() <= before + 2, "all files are closed", PATIENCE)


class TestPings:
    @pytest.fixture(autouse=True)
    def often(self, app: Flask) -> None:
        app.config["SOCK_SERVER_OPTIONS"] = transport_ws.SERVER_OPTIONS | {"ping_interval": 0.5}

    def test_who_answers_stays(self, connect: Connect, viewer: User) -> None:
        client = connect(viewer)
        pings = 0
        while pings < 3:
            opcode, frame = client.ws.recv_data_frame(control_frame=True)  # answers them
            pings += opcode == ABNF.OPCODE_PING
            assert opcode == ABNF.OPCODE_PING, frame
        client.settle()

    def test_who_answers_none_is_closed(self, connect: Connect, app: Flask, viewer: User) -> None:
        client = connect(viewer)
        frames = []
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionError)):
            while True:
                frame = client.ws.recv_frame()  # type: ignore[no-untyped-call]
                frames.append((frame.opcode, frame.data))
        assert [opcode for opcode, _ in frames] == [ABNF.OPCODE_PING, ABNF.OPCODE_CLOSE]
        assert b"Ping/Pong timeout" in frames[-1][1]
        hub: Any = app.extensions[transport_ws.EXTENSION]
        wait_until(lambda: not hub._all_sockets(), "it has gone", PATIENCE)

    def test_a_pong_that_a_long_step_has_kept_waiting_counts(
        self, connect: Connect, viewer: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Wire, "finish", lambda wire: time.sleep(1.0))
        client = connect(viewer)
        for _ in range(3):
            opcode, frame = client.ws.recv_data_frame(control_frame=True)  # answers it
            assert opcode == ABNF.OPCODE_PING, frame

    def test_a_client_that_says_much_is_pinged_as_well(self, connect: Connect, viewer: User) -> None:
        client = connect(viewer)
        until = time.monotonic() + 1.5
        opcodes = set()
        while time.monotonic() < until:
            client.send({"type": "ping"})
            opcode, _ = client.ws.recv_data_frame(control_frame=True)
            opcodes.add(opcode)
        assert opcodes == {ABNF.OPCODE_PING, ABNF.OPCODE_TEXT}
