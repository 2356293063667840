"""A WebSocket as its one thread uses it: wait, read what has come, send whole messages.

simple-websocket reads on a thread of its own and answers pings there. It sends without a lock and may send a part, so
frames could be torn where two threads write; here every write is whole, and a client that takes none of it for
SEND_SECONDS is given up.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from simple_websocket import ConnectionClosed

#: Seconds a write may wait for a client that does not read.
SEND_SECONDS = 10
#: Seconds between looks at a connection where nothing happens.
MAX_WAIT_SECONDS = 15.0
#: Seconds a client has to answer our close frame.
CLOSE_SECONDS = 1.0
#: Messages of up to 64 KiB that a client may be ahead of us.
MAX_UNREAD = 100


class _WholeWrites:
    """The socket, with writes that are whole or the end of the connection."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._lock = threading.Lock()

    def send(self, data: bytes) -> int:
        with self._lock:
            try:
                self._raw.sendall(data)
            except OSError:
                # A part of a frame may be out: nothing that follows would be understood.
                with suppress(OSError):
                    self._raw.shutdown(socket.SHUT_RDWR)
                raise
        return len(data)

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
    """`ws` is a simple_websocket.Server. `wake` may be called by any thread, everything else by one."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        with suppress(OSError):  # a client that has gone away again: whoever reads or writes finds out
            # Two small frames in a row: the second must not wait for the client's late acknowledgement of the first.
            ws.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
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

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and wait a moment for the client's: a connection cut at once may lose the reason."""
        with suppress(ConnectionClosed, OSError):
            self._ws.close(code, reason)
        self._ws.thread.join(CLOSE_SECONDS)
        with suppress(OSError):
            self._ws.sock.shutdown(socket.SHUT_RDWR)  # ends the reading thread, which would wait for the next ping
