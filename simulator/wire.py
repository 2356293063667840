"""HTTP/1.1 over asyncio, small and exact: keep-alive, gzip, and the ways a connection can go wrong.

One thread runs the loop and every handler, so the simulated world needs no locks and the arrival time of a
request is taken the moment its first byte is read. A handler returns a value and never blocks; latency and
hanging are timers. What a request means is left to `server.py`.
"""

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum, auto
from functools import cached_property
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl, unquote

#: Bodies below this many bytes are sent as they are: compressing them gains nothing.
GZIP_FROM: Final = 1024
#: A head or body longer than this many bytes ends the connection.
_MOST: Final = 16 * 1024 * 1024


class Delivery(Enum):
    """How an answer reaches the client."""

    WHOLE = auto()
    #: Half of the body, after a Content-Length that promised all of it.
    CUT_SHORT = auto()
    #: Half of the body with no Content-Length: only the content shows that it was cut.
    CUT_UNDECLARED = auto()
    #: No answer, a TCP reset.
    RESET = auto()
    #: No answer; the connection is closed after `Response.delay` seconds.
    HANG = auto()


class Payload:
    """A body, serialised once and compressed at most once."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    @classmethod
    def of_json(cls, value: object) -> "Payload":
        """The compact JSON of a value, in UTF-8."""
        return cls(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())

    @cached_property
    def gzipped(self) -> bytes:
        """The same body compressed; the fixed time stamp keeps it equal between runs."""
        return gzip.compress(self.raw, 5, mtime=0)


@dataclass(frozen=True)
class Request:
    """One request as read from the wire. Header names are lower-case; `at` is epoch seconds."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at: float
    source_ip: str

    def form(self) -> dict[str, str]:
        """The fields of a form body; the last of a repeated field wins."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))


@dataclass
class Response:
    """One answer. `delay` is seconds between the handler's decision and the first byte sent."""

    status: int
    payload: Payload = field(default_factory=lambda: Payload(b""))
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json; charset=utf-8"
    delivery: Delivery = Delivery.WHOLE
    delay: float = 0.0

    @classmethod
    def of_json(cls, status: int, value: object) -> "Response":
        """An answer with a JSON body."""
        return cls(status, Payload.of_json(value))

    @classmethod
    def error(cls, status: int, message: str) -> "Response":
        """ESI's error shape: `{"error": message}`."""
        return cls.of_json(status, {"error": message})

    @classmethod
    def html(cls, status: int, page: str) -> "Response":
        """An answer with an HTML page."""
        return cls(status, Payload(page.encode()), content_type="text/html; charset=utf-8")


Handler = Callable[[Request], Response]


def encode(request: Request, response: Response, keep_alive: bool) -> bytes:
    """Status line, headers and body as they go over the wire."""
    body, coding = response.payload.raw, ""
    if len(body) >= GZIP_FROM and "gzip" in request.headers.get("accept-encoding", ""):
        body, coding = response.payload.gzipped, "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
    phrase = HTTPStatus(response.status).phrase if response.status in _KNOWN else "Error"
    head = [f"HTTP/1.1 {response.status} {phrase}\r\nDate: {formatdate(usegmt=True)}\r\n", coding]
    head += [f"{name}: {value}\r\n" for name, value in response.headers.items()]
    if body:
        head.append(f"Content-Type: {response.content_type}\r\n")
    if response.delivery is not Delivery.CUT_UNDECLARED and response.status != 304:
        head.append(f"Content-Length: {len(body)}\r\n")
    head.append("Connection: keep-alive\r\n\r\n" if keep_alive else "Connection: close\r\n\r\n")
    if response.delivery is not Delivery.WHOLE:
        body = body[: len(body) // 2]
    if request.method == "HEAD" or response.status == 304:
        body = b""
    return "".join(head).encode("latin-1") + body


_KNOWN: Final = frozenset(int(status) for status in HTTPStatus)


class Connection(asyncio.Protocol):
    """One client connection: reads requests one after the other and answers them in order."""

    def __init__(self, handler: Handler, connections: "set[Connection]") -> None:
        self._handler = handler
        self._connections = connections
        self._buffer = b""
        self._arrived = 0.0
        self._busy = False
        self._transport: asyncio.Transport | None = None
        self._peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; asyncio has set TCP_NODELAY already."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._peer = transport.get_extra_info("peername")[0]
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, whoever ended it."""
        self._connections.discard(self)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Collect bytes and answer as soon as a whole request is there."""
        if not self._buffer:
            self._arrived = time.time()
        self._buffer += data
        self._take()

    def close(self) -> None:
        """End the connection now, answered or not."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self) -> None:
        while not self._busy and self._transport is not None:
            head_end = self._buffer.find(b"\r\n\r\n")
            if head_end < 0:
                if len(self._buffer) > _MOST:
                    self.close()
                return
            method, target, headers = _parse_head(self._buffer[:head_end].decode("latin-1"))
            length = headers.get("content-length", "0")
            if not method or not length.isdigit() or int(length) > _MOST or "transfer-encoding" in headers:
                self.close()
                return
            end = head_end + 4 + int(length)
            if len(self._buffer) < end:
                return
            body, self._buffer = self._buffer[head_end + 4 : end], self._buffer[end:]
            path, _, query = target.partition("?")
            request = Request(
                method=method,
                path=unquote(path),
                query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
                headers=headers,
                body=body,
                at=self._arrived,
                source_ip=self._peer,
            )
            self._arrived = time.time()
            self._answer(request, self._handler(request))

    def _answer(self, request: Request, response: Response) -> None:
        if response.delay > 0:
            self._busy = True
            asyncio.get_running_loop().call_later(response.delay, self._send_and_go_on, request, response)
        else:
            self._send(request, response)

    def _send_and_go_on(self, request: Request, response: Response) -> None:
        self._busy = False
        self._send(request, response)
        self._take()

    def _send(self, request: Request, response: Response) -> None:
        transport = self._transport
        if transport is None:
            return
        if response.delivery is Delivery.HANG:
            transport.close()
        elif response.delivery is Delivery.RESET:
            _reset(transport)
        else:
            keep_alive = (
                response.delivery is Delivery.WHOLE and request.headers.get("connection", "").lower() != "close"
            )
            transport.write(encode(request, response, keep_alive))
            if not keep_alive:
                transport.close()


def _reset(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _parse_head(head: str) -> tuple[str, str, dict[str, str]]:
    """Method, target and headers; an empty method says that this was not HTTP/1.x."""
    first, *lines = head.split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return "", "", {}
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return parts[0], parts[1], headers
