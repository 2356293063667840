"""A server made of raw bytes: each request is recorded and gets the next scripted answer, down to resets and hangs.

It shares no code with what it tests, knows nothing of HTTP beyond finding a request's end, and never answers what was
not scripted: a request too many gets a 599, which no test expects.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: Seconds a scripted hang holds the connection at most; the client's read timeout in the tests is far shorter.
HANG_SECONDS = 5.0


@dataclass(frozen=True)
class Received:
    method: str
    target: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    connection: int


@dataclass(frozen=True)
class Step:
    """Bytes to send, then what to do with the connection: keep, close, reset or hang.

    `drip`: seconds between the bytes of the body; with `drip_head`, between those of the head as well. `gate`: what the
    body waits for once the head is out.
    """

    data: bytes
    then: str = "keep"
    drip: float | None = None
    gate: threading.Event | None = None
    drip_head: bool = False


Script = Step | Callable[[Received], Step]


def reply(
    status: int = 200, body: object = b"", headers: Mapping[str, str] | None = None, *, then: str = "keep"
) -> Step:
    """A whole answer. A body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields: dict[str, str] = {"Content-Length": str(len(content)), **(headers or {})}
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return Step(head.encode("latin-1") + b"\r\n" + content, then)


@dataclass
class RawServer:
    steps: deque[Script] = field(default_factory=deque)
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.01)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._start(self._accept)

    def script(self, *steps: Script) -> None:
        self.steps.extend(steps)

    @property
    def last(self) -> Received:
        return self.received[-1]

    def stop(self) -> None:
        self._stopping.set()
        self._listener.close()
        for connection in list(self._open):
            _shut(connection)
        for thread in self._threads:
            thread.join(HANG_SECONDS)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._open.add(connection)
            self._start(self._serve, connection, self.connections)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := _read_request(stream, number)) is not None:
                    self.received.append(request)
                    step = self.steps.popleft() if self.steps else reply(599, b"nothing was scripted")
                    if not self._play(connection, step(request) if callable(step) else step):
                        return
        except OSError:
            pass
        finally:
            self._open.discard(connection)

    def _play(self, connection: socket.socket, step: Step) -> bool:
        """Do one step; whether the connection goes on."""
        head, mark, body = (b"", b"", step.data) if step.drip_head else step.data.partition(b"\r\n\r\n")
        connection.sendall(head + mark)
        if step.gate is not None:
            step.gate.wait(HANG_SECONDS)
        if step.drip is None:
            connection.sendall(body)
        else:
            for position in range(len(body)):
                connection.sendall(body[position : position + 1])
                if self._stopping.wait(step.drip):
                    return False
        if step.then == "hang":
            self._stopping.wait(HANG_SECONDS)
        if step.then == "reset":  # lingering for no time makes the close that follows a reset
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return step.then == "keep"


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def _read_request(stream: Any, number: int) -> Received | None:
    line = stream.readline().decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (raw := stream.readline().decode("latin-1").strip()) != "":
        name, _, value = raw.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Received(line[0], line[1], headers, body, number)
