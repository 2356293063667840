"""A graphql-transport-ws client for tests, on a real socket to a real server."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import websocket
from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from models import User

#: Seconds a test waits for a message that has to come.
PATIENCE = 10.0


class Client:
    """`receive` gives the next message that is no ping; a close frame ends as `Closed`."""

    def __init__(
        self,
        port: int,
        cookie: str | None = None,
        subprotocols: Sequence[str] = ("graphql-transport-ws",),
        origin: str | None = None,
        **options: Any,
    ) -> None:
        self.ws = websocket.create_connection(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=list(subprotocols),
            cookie=cookie,
            timeout=PATIENCE,
            origin=origin or f"http://127.0.0.1:{port}",
            **options,
        )

    def send(self, message: Any) -> None:
        self.ws.send(message if isinstance(message, str) else json.dumps(message))

    def receive(self) -> Any:
        opcode, data = self.ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Closed(struct.unpack(">H", data[:2])[0], data[2:].decode())
        return json.loads(data)

    def init(self) -> Client:
        self.send({"type": "connection_init"})
        assert self.receive() == {"type": "connection_ack"}
        return self

    def subscribe(self, query: str, operation_id: str = "1", **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        self.send({"id": operation_id, "type": "subscribe", "payload": payload})

    def next(self, operation_id: str = "1") -> Any:
        """The data of the next `next`."""
        message = self.receive()
        assert (message["type"], message["id"]) == ("next", operation_id), message
        assert "errors" not in message["payload"], message
        return message["payload"]["data"]

    def settle(self) -> None:
        """Return when the server has done all that was sent before.

        The first pong may come before a subscription's first look at the database, the second one comes after it.
        """
        for _ in range(2):
            self.send({"type": "ping", "payload": {"settle": 1}})
            assert self.receive() == {"type": "pong", "payload": {"settle": 1}}

    def close_code(self) -> int:
        """The code of the close frame that has to come."""
        try:
            while True:
                self.receive()
        except Closed as closed:
            return closed.code

    def quiet(self, seconds: float = 0.3) -> bool:
        """True when nothing comes for so long."""
        self.ws.settimeout(seconds)
        try:
            self.receive()
        except websocket.WebSocketTimeoutException:
            return True
        finally:
            self.ws.settimeout(PATIENCE)
        return False


class Closed(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


def cookie_of(app: Flask, user: User) -> str:
    """The session cookie of a signed-in browser."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer is not None
    value = serializer.dumps({"user_id": user.id, "epoch": user.session_epoch})
    return f"killmail_sync={value}"
