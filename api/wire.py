"""A WebSocket as its one thread uses it: wait, read what has come, send whole messages.

simple-websocket reads on a thread of its own and answers pings there. It sends without a lock and may send a part, so
frames could be torn where two threads write; here every write is whole, and a client that takes none of it for
SEND_SECONDS is given up. Another thread may send, too, what goes out without waiting (`send_at_once`).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from simple_websocket import ConnectionClosed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

#: Seconds a write may wait for a client that does not read.
SEND_SECONDS = 10
#: Seconds between looks at a connection where nothing happens.
MAX_WAIT_SECONDS = 15.0
#: Seconds a client has to answer our close frame.
CLOSE_SECONDS = 1.0
#: Messages of up to 64 KiB that a client may be ahead of us.
MAX_UNREAD = 100


def frame(text: str) -> bytes:
    """One message as the bytes that go out: the same for every client, because a server masks nothing."""
    return Connection(ConnectionType.SERVER).send(TextMessage(data=text))


class _WholeWrites:
    """The socket, with writes that are whole or the end of the connection."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._lock = threading.Lock()
        self._rest = b""  # of a frame of which only the beginning went out at once

    def send(self, data: bytes) -> int:
        with self._lock:
            try:
                self._raw.sendall(self._rest + data)
                self._rest = b""
            except OSError:
                # A part of a frame may be out: nothing that follows would be understood.
                with suppress(OSError):
                    self._raw.shutdown(socket.SHUT_RDWR)
                raise
        return len(data)

    def send_at_once(self, data: bytes) -> bool:
        """As `send`, as far as it goes without waiting. False: nothing of it went out.

        What is left of a frame that has begun goes out with the next `send`.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._rest:
                return False
            self._rest = data[self._raw.send(data, socket.MSG_DONTWAIT) :]
        except OSError:  # no room; or the end, which the socket's own thread finds out
            return False
        finally:
            self._lock.release()
        return True

    @property
    def unfinished(self) -> bool:
        """Whether a frame waits for the rest of it to be sent."""
        return bool(self._rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class _Inbox(list[str | bytes]):
    """What has come and was not read yet. A client that is too far ahead is cut off by the thread that reads it."""

    def __init__(self, ws: Any) -> None:
        super().__init__(ws.input_buffer)
        self._raw = ws.sock

    def append(self, item: str | bytes) -> None:
        if len(self) >= MAX_UNREAD:
            with suppress(OSError):
                self._raw.shutdown(socket.SHUT_RDWR)
            raise ConnectionError("the client sends faster than it is served")
        super().append(item)


class Wire:
    """`ws` is a simple_websocket.Server. `wake` and `send_at_once` are for any thread, everything else is for one."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self._closing = False
        with suppress(OSError):  # a client that has gone away again: whoever reads or writes finds out
            # Two small frames in a row: the second must not wait for the client's late acknowledgement of the first.
            ws.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        ws.ws = ws.ws.connection  # without what was there for the handshake, and would stay for hours
        ws.sock = _WholeWrites(ws.sock)
        ws.input_buffer = _Inbox(ws)

    @property
    def subprotocol(self) -> str | None:
        chosen: str | None = self._ws.subprotocol
        return chosen

    @property
    def connected(self) -> bool:
        return bool(self._ws.connected or self._ws.input_buffer)

    def wake(self) -> None:
        """End the other thread's `wait`."""
        self._ws.event.set()

    def wait(self, seconds: float | None) -> None:
        """Until there is something to read, `wake` was called, or the time is over (None: no limit).

        May return early. simple-websocket does not always say when a connection has ended, hence the limit.
        """
        self._ws.event.wait(MAX_WAIT_SECONDS if seconds is None else min(seconds, MAX_WAIT_SECONDS))
        self._ws.event.clear()

    def received(self) -> Iterator[str | bytes]:
        """The messages that have come, in order."""
        while self._ws.input_buffer:
            yield self._ws.input_buffer.pop(0)

    def send(self, text: str) -> None:
        """Raises simple_websocket.ConnectionClosed, or OSError when the client does not read."""
        self._ws.send(text)

    def send_frame(self, data: bytes) -> None:
        """As `send`, for what is a `frame` already."""
        if not self._ws.connected:
            raise ConnectionClosed(self._ws.close_reason, self._ws.close_message)
        self._ws.sock.send(data)

    def send_at_once(self, data: bytes) -> bool:
        """Send a `frame` if that takes no waiting. False: nothing was sent, and the socket's own thread has to."""
        if self._closing or not self._ws.connected or not self._ws.sock.send_at_once(data):
            return False
        if self._ws.sock.unfinished:
            self.wake()
        return True

    def finish(self) -> None:
        """Send the rest of what was begun. Raises OSError when the client does not read."""
        if self._ws.sock.unfinished:
            self._ws.sock.send(b"")

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait a moment for the client's: a connection cut at once may lose the reason."""
        self._closing = True
        with suppress(ConnectionClosed, OSError):
            self._ws.close(code, reason)
        self._ws.thread.join(CLOSE_SECONDS)
        with suppress(OSError):
            self._ws.sock.shutdown(socket.SHUT_RDWR)  # ends the reading thread, which would wait for the next ping
