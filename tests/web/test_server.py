"""The server of `python app.py`: silence holds no thread, threads are bounded, and every form of HOST is served."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from flask import Flask

from web import server as server_module
from web.server import RequestHandler, Server, bind, url_of

LIMIT = 10.0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def serving(host: str = "127.0.0.1", threads: int = server_module.THREADS) -> Iterator[Server]:
    app = Flask("tiny")
    app.add_url_rule("/", view_func=lambda: "hello", methods=["GET", "POST"])
    server = bind(host, 0, app, threads)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf",
    ],
    ids=["nothing", "half of the headers", "a request, and then nothing", "half of a body"],
)
def test_a_connection_that_falls_silent_is_closed_and_its_thread_ends(
    sent: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RequestHandler, "timeout", 0.2)
    with serving() as server, connected(server) as client:
        before = threading.active_count()
        client.sendall(sent)
        while client.recv(4096):
            pass
        until(lambda: threading.active_count() < max(before, 3))
    assert caplog.records == []


def test_no_more_threads_than_allowed_and_a_client_beyond_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RequestHandler, "timeout", LIMIT)
    with serving(threads=3) as server:
        with ExitStack() as opened:
            for _ in range(3):
                opened.enter_context(connected(server))
            with connected(server) as beyond:
                assert beyond.recv(4096).startswith(b"HTTP/1.1 503 ")
                assert beyond.recv(4096) == b""
        until(lambda: server._free._value == 3)
        assert requests.get(url_of(server), timeout=LIMIT).text == "hello"


@pytest.mark.parametrize(("host", "shown"), [("::", "[::]"), ("::1", "[::1]"), ("0.0.0.0", "0.0.0.0")])
def test_every_form_of_host_is_served_and_shown_as_a_url(host: str, shown: str) -> None:
    with serving(host) as server:
        assert url_of(server) == f"http://{shown}:{server.port}"
        reached = {"::": ["127.0.0.1", "[::1]"], "::1": ["[::1]"], "0.0.0.0": ["127.0.0.1"]}[host]
        for address in reached:
            assert requests.get(f"http://{address}:{server.port}", timeout=LIMIT).text == "hello"
