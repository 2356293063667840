"""`ready`: a connection is open before its request has to leave, at no cost where it is open already."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from database import db
from esi.client import EsiClient
from esi.errors import EsiTransport
from esi.limiter import Closed, Limiter
from esi.rate_limit import UNBUCKETED
from esi.transport import Transport, TransportError
from tests.unit.esi.conftest import RecordingPermit
from tests.unit.esi.raw_server import RawServer, reply
from tests.unit.esi.tls_server import LIMIT, TlsServer

#: Seconds a handshake takes where its bunching is measured: a far continent, or a busy load balancer.
SLOW_HANDSHAKE = 0.3


@pytest.fixture
def tls_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    server = TlsServer(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(server.certificate))
    yield server
    server.stop()


def transport_to(url: str, connect_timeout: float = 5.0) -> Transport:
    return Transport(url, {}, connect_timeout=connect_timeout, read_timeout=5.0, max_bytes=1000)


def wait_until(condition) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_request_goes_by_the_connection_that_was_made_ready(server: RawServer, permit):
    transport = transport_to(server.url)
    server.script(reply(200, b"ok"))

    transport.ready()
    wait_until(lambda: server.connections)
    assert server.received == []
    transport.send("GET", server.url + "/", permit)

    assert server.connections == 1
    transport.close()


def test_the_tickets_of_tls_are_not_taken_for_the_end_of_a_connection(tls_server: TlsServer, permit):
    transport = transport_to(tls_server.url)
    for _ in range(3):  # by then the tickets have arrived, and have been looked at
        transport.ready()
        threading.Event().wait(0.05)
    transport.send("GET", tls_server.url + "/", permit)

    assert tls_server.connections == 1
    transport.close()


def test_headers_that_come_byte_by_byte_over_tls_end_in_time_as_well(tls_server: TlsServer, permit):
    # Given an answer that would take eleven seconds, each byte in time
    transport = Transport(tls_server.url, {}, connect_timeout=5.0, read_timeout=0.5, max_bytes=1000)
    transport.ready()
    tls_server.drip_seconds = 0.2
    # When it is waited for
    began = time.monotonic()
    with pytest.raises(TransportError):
        transport.send("GET", tls_server.url + "/", permit)
    # Then not for long, and the next requests have a new connection
    assert time.monotonic() - began < 4
    tls_server.drip_seconds = 0.0
    for _ in range(2):
        assert transport.send("GET", tls_server.url + "/", RecordingPermit()).status == 200
    assert tls_server.connections == 2
    transport.close()


def test_an_open_connection_is_left_alone(tls_server: TlsServer):
    transport = transport_to(tls_server.url)

    for _ in range(3):
        transport.ready()
        transport.send("GET", tls_server.url + "/", RecordingPermit())

    assert tls_server.connections == 1
    transport.close()


def test_a_connection_that_the_server_closed_is_opened_anew(tls_server: TlsServer, permit):
    transport = transport_to(tls_server.url)
    transport.ready()
    transport.send("GET", tls_server.url + "/", RecordingPermit())
    tls_server.drop()

    def reopened() -> bool:
        transport.ready()
        return tls_server.connections == 2

    wait_until(reopened)
    transport.send("GET", tls_server.url + "/", permit)

    assert tls_server.connections == 2
    transport.close()


def test_no_connection_is_an_error_of_ours(dead_url):
    with pytest.raises(TransportError, match="refused") as caught:
        transport_to(dead_url).ready()
    assert caught.value.__context__ is None


def test_a_handshake_that_never_ends_is_one_too(tls_server: TlsServer):
    tls_server.let_through.clear()
    transport = transport_to(tls_server.url, connect_timeout=0.2)

    with pytest.raises(TransportError, match="connect timeout"):
        transport.ready()

    tls_server.let_through.set()
    transport.ready()


def test_a_certificate_that_is_not_trusted_is_told(tls_server: TlsServer, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(TransportError, match="TLS failed"):
        transport_to(tls_server.url).ready()


def test_the_clients_error_is_typed(dead_url):
    with pytest.raises(EsiTransport, match="no connection"):
        EsiClient(dead_url, "tests/1.0", "2026-08-18").connect()


def test_cold_threads_keep_the_ceiling(tls_server: TlsServer, sqlite_db):
    """Sixteen threads come one after the other, each with a handshake before its first request."""
    tls_server.handshake_seconds = SLOW_HANDSHAKE
    client, limiter = EsiClient(tls_server.url, "tests/1.0", "2026-08-18"), Limiter(50)
    stop_at = time.monotonic() + 3.0

    def ask(_: int) -> None:
        with db.connection_context():
            while time.monotonic() < stop_at:
                client.connect()
                try:
                    client.character_name(1, limiter.acquire(UNBUCKETED, "ip", background=False))
                except Closed:
                    continue

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))

    assert tls_server.connections == 16
    assert len(tls_server.arrivals) > 60
    assert tls_server.most_in_a_second() <= 50
    client.close()
