"""Sockets: a running server, and browsers connected to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from api import transport_ws
from models import User
from tests.api.socket_client import Client, cookie_of
from web.server import bind


@pytest.fixture
def server_port(app: Flask) -> Iterator[int]:
    """The port of a threaded server of `app`. Its sockets are closed with it."""
    server = bind("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.port
    app.extensions[transport_ws.EXTENSION].close_all()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def connect(app: Flask, server_port: int) -> Iterator[Callable[..., Client]]:
    """Open a socket, signed in as a user or not, and past its connection_init unless `init=False`."""
    clients: list[Client] = []

    def connect(user: User | None = None, init: bool = True, **options: Any) -> Client:
        client = Client(server_port, cookie_of(app, user) if user else None, **options)
        clients.append(client)
        return client.init() if init else client

    yield connect
    for client in clients:
        client.ws.shutdown()  # type: ignore[no-untyped-call]
