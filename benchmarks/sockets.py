"""A browser's live connection: graphql-transport-ws over websocket-client."""

from __future__ import annotations

import json
from typing import Any

import websocket

from benchmarks.asks import NEW_KILLMAIL, SYNC_PROGRESS

#: Seconds until a message that has to come counts as lost.
PATIENCE = 60.0


class LiveSocket:
    """One connection, acknowledged. `sockopt`: options of the socket, set before it connects."""

    def __init__(self, web_url: str, cookie: str, sockopt: tuple[tuple[int, int, int], ...] = ()) -> None:
        self.ws = websocket.create_connection(
            web_url.replace("http", "ws", 1) + "/graphql",
            subprotocols=["graphql-transport-ws"],
            cookie=cookie,
            origin=web_url,
            timeout=PATIENCE,
            sockopt=sockopt,
        )
        self._send({"type": "connection_init"})
        if self.receive()["type"] != "connection_ack":
            raise RuntimeError("the server did not acknowledge the connection")

    def subscribe(self, query: str, operation_id: str = "1", **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        self._send({"id": operation_id, "type": "subscribe", "payload": payload})

    def follow(self) -> None:
        """Subscribe as a dashboard does that is open, to killmails and to the sync; return when both are in force.

        For a pilot who has been synced before: of that sync the server tells at once.
        """
        self.subscribe(NEW_KILLMAIL)
        self.subscribe(SYNC_PROGRESS, "2")
        if self.receive()["id"] != "2":
            raise RuntimeError("the server was telling something else")

    def settle(self) -> None:
        """Return when the server has done all that was sent before. Only while no subscription delivers."""
        self._send({"type": "ping", "payload": {"settle": 1}})
        if self.receive()["type"] != "pong":
            raise RuntimeError("the server was telling something else")

    def unread(self, seconds: float = 2.0) -> int:
        """Frames of killmails that the server had sent until now, or until it closed; nothing is left to be read."""
        self.ws.settimeout(seconds)
        count = 0
        try:
            while self.receive()["type"] == "next":
                count += 1
        except (RuntimeError, OSError, websocket.WebSocketException):
            pass  # closed, cut in the middle of a frame, or silent
        return count

    def receive(self) -> dict[str, Any]:
        """The next message. Raises RuntimeError when the server closes instead."""
        opcode, data = self.ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise RuntimeError(f"the server closed the socket: {data[2:].decode(errors='replace')}")
        message: dict[str, Any] = json.loads(data)
        return message

    def next_killmail_id(self) -> int:
        """The id in the next `next`."""
        message = self.receive()
        if message["type"] != "next":
            raise RuntimeError(f"not a killmail: {message}")
        return int(message["payload"]["data"]["newKillmail"]["id"])

    def fileno(self) -> int:
        """For selectors."""
        if self.ws.sock is None:
            raise RuntimeError("the socket is closed")
        return self.ws.sock.fileno()

    def close(self) -> None:
        """Cut the connection: no goodbye, which a client that does not read could not finish."""
        if self.ws.sock is not None:
            self.ws.sock.close()

    def _send(self, message: dict[str, Any]) -> None:
        self.ws.send(json.dumps(message))
