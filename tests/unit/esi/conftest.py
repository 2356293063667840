"""A scripted server, clients that talk to it, and a permit that remembers how its request ended."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

import pytest

from esi.client import EsiClient
from esi.sso import SsoClient
from tests.unit.esi.raw_server import RawServer
from tests.unit.esi.sso_world import CALLBACK, CLIENT_ID, CLIENT_SECRET, SsoWorld

#: Seconds. Short, so that a hang ends a test soon; long enough for a loaded machine to answer in.
READ_TIMEOUT = 0.4


class RecordingPermit:
    """Remembers each call; a test asserts on the whole list, so a second call is seen."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.headers: Mapping[str, str] = {}

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        self.calls.append(f"answered {status}")
        self.headers = headers

    def unsent(self) -> None:
        self.calls.append("unsent")

    def unanswered(self) -> None:
        self.calls.append("unanswered")


@pytest.fixture
def permit() -> RecordingPermit:
    return RecordingPermit()


@pytest.fixture
def server() -> Iterator[RawServer]:
    server = RawServer()
    yield server
    server.stop()


@pytest.fixture
def client(server: RawServer) -> Iterator[EsiClient]:
    client = EsiClient(server.url, "tests/1.0 (tests@example.com)", "2026-08-18", read_timeout=READ_TIMEOUT)
    yield client
    client.close()


@pytest.fixture
def dead_url() -> Iterator[str]:
    """An address where nobody listens: the port is bound, so that nobody else takes it, but not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class Clock:
    """Monotonic seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(server: RawServer) -> SsoWorld:
    return SsoWorld(server)


@pytest.fixture
def sso(server: RawServer, world: SsoWorld, clock: Clock) -> Iterator[SsoClient]:
    client = SsoClient(
        server.url, CLIENT_ID, CLIENT_SECRET, CALLBACK, "tests/1.0", read_timeout=READ_TIMEOUT, clock=clock
    )
    yield client
    client.close()
