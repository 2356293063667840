"""A WebSocket as its one thread uses it: wait, read what has come, send whole messages.

simple-websocket would read on a thread of its own, the second of each socket and a quarter of its memory; here it is
given none (`OWN_THREAD`), and `wait` does that thread's work between two steps. It sends without a lock and may send a
part, so frames could be torn where two threads write; here every write is whole, and a client that takes none of it
for SEND_SECONDS is given up. Another thread may send, too, what goes out without waiting (`send_at_once`).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from simple_websocket import ConnectionClosed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

#: Seconds a write may wait for a client that does not read.
SEND_SECONDS = 10
#: Seconds a client has to answer our close frame.
CLOSE_SECONDS = 1.0
#: Bytes read at once: what comes in faster than it is served stays with its sender.
READ_BYTES = 4096


class Bell:
    """Wakes the thread that waits for a socket: an Event that can be waited for together with a file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_rung, self._is_closed = False, True
        self._heard_at, self._rung_at = os.pipe()
        self._is_closed = False

    def fileno(self) -> int:
        """There is something to read while it is rung."""
        return self._heard_at

    def set(self) -> None:
        """For any thread, at any time."""
        with self._lock:
            if not self._is_rung and not self._is_closed:
                self._is_rung = True
                os.write(self._rung_at, b".")

    def clear(self) -> None:
        with self._lock:
            if self._is_rung and not self._is_closed:
                self._is_rung = False
                os.read(self._heard_at, 1)

    def close(self) -> None:
        # Under the lock: the numbers are given to other files, into which nobody may ring.
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                os.close(self._heard_at)
                os.close(self._rung_at)

    def __del__(self) -> None:
        # A handshake that fails leaves no Wire behind to `end`.
        self.close()


class _NoThread:
    """In place of the thread that would read."""

    name = ""

    def __init__(self, target: Callable[[], None]) -> None:
        """`target` is not run."""

    def start(self) -> None:
        """Nothing to start."""


#: What simple-websocket has to be given for `Wire`.
OWN_THREAD = {"thread_class": _NoThread, "event_class": Bell}


def frame(text: str) -> bytes:
    """One message as the bytes that go out: the same for every client, because a server masks nothing."""
    return Connection(ConnectionType.SERVER).send(TextMessage(data=text))


class _WholeWrites:
    """The socket, with writes that are whole or the end of the connection."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._lock = threading.Lock()
        self._rest = b""  # of a frame of which only the beginning went out at once
        self._is_ended = False

    def send(self, data: bytes) -> int:
        with self._lock:
            if self._is_ended:
                raise BrokenPipeError("the connection has ended")
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
            if self._rest or self._is_ended:
                return False
            self._rest = data[self._raw.send(data, socket.MSG_DONTWAIT) :]
        except OSError:  # no room; or the end, which the socket's own thread finds out
            return False
        finally:
            self._lock.release()
        return True

    def end(self) -> None:
        """From now on nothing is sent. The file is closed by the web server, which has more to do with it."""
        with self._lock, suppress(OSError):
            self._is_ended = True
            self._raw.shutdown(socket.SHUT_RDWR)

    @property
    def unfinished(self) -> bool:
        """Whether a frame waits for the rest of it to be sent."""
        return bool(self._rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class Wire:
    """`ws` is a simple_websocket.Server made with `OWN_THREAD`. `wake` and `send_at_once` are for any thread,
    everything else is for one."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self._closing = False
        with suppress(OSError):  # a client that has gone away again: whoever reads or writes finds out
            # Two small frames in a row: the second must not wait for the client's late acknowledgement of the first.
            ws.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ws.sock.settimeout(None)  # the server's limit is for requests: this connection may be quiet for hours
            ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        ws.ws = ws.ws.connection  # without what was there for the handshake, and would stay for hours
        ws.sock = _WholeWrites(ws.sock)
        self._ping_at = time.monotonic() + ws.ping_interval

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
        """Until something was read, `wake` was called, or the time is over (None: no limit). May return early.

        Raises OSError or ConnectionClosed when the client does not read, or has answered no ping.
        """
        until_ping = max(0.0, self._ping_at - time.monotonic())
        if not until_ping and (self._ws.pong_received or not self._poll(0.0)):
            self._ping()
        elif self._poll(until_ping if seconds is None else min(seconds, until_ping)):
            self._read()  # perhaps the pong, which a long step has kept waiting

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
        with suppress(ConnectionClosed, OSError, LocalProtocolError):
            self._ws.close(code, reason)
        deadline = time.monotonic() + CLOSE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and (not self._poll(left) or self._read()):
            self._ws.input_buffer.clear()
        self.end()

    def end(self) -> None:
        """Let go of what it holds. From now on nothing is read or sent."""
        self._closing = True
        self._ws.connected = False
        self._ws.sock.end()
        self._ws.event.close()

    def _poll(self, seconds: float) -> bool:
        """Wait for the client or the bell; whether there is something to read of the client's."""
        poll = select.poll()
        poll.register(self._ws.sock.fileno(), select.POLLIN)
        poll.register(self._ws.event.fileno(), select.POLLIN)
        ready = {number for number, _ in poll.poll(max(0.0, seconds) * 1000)}
        self._ws.event.clear()
        return self._ws.sock.fileno() in ready

    def _read(self) -> bool:
        """Take what has come, and answer pings and goodbyes; False once there will be no more."""
        try:
            data = self._ws.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:  # nothing, after all
            return True
        except OSError:
            data = b""
        try:
            if data:
                self._ws.ws.receive_data(data)
            self._ws.connected = bool(data) and self._ws._handle_events()
        except (OSError, LocalProtocolError):  # what it had to be answered could not be sent
            self._ws.connected = False
        return bool(self._ws.connected)

    def _ping(self) -> None:
        """Raises ConnectionClosed or OSError: see `wait`."""
        if not self._ws.pong_received:
            self._ws.close(CloseReason.POLICY_VIOLATION, "Ping/Pong timeout")
            raise ConnectionClosed(CloseReason.POLICY_VIOLATION, "Ping/Pong timeout")
        self._ws.pong_received = False
        self._ws.sock.send(self._ws.ws.send(Ping()))
        self._ping_at = time.monotonic() + self._ws.ping_interval
