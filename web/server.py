"""The HTTP server of `python app.py`: a thread for each connection, as many as are allowed, and none held by silence.

The invariants: a connection over which no byte comes for a minute, be it idle or half of a request, is closed; no more
threads are started than THREADS, and a client beyond them is told to come again. A WebSocket has neither limit of time:
it is watched by `api/wire.py`. In production gunicorn is the server (`web/gunicorn.py`).
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from contextlib import suppress
from typing import Any

from flask import Flask
from werkzeug.serving import BaseWSGIServer, ThreadedWSGIServer, WSGIRequestHandler

from api.hub import MAX_SOCKETS

log = logging.getLogger(__name__)

#: Seconds without a byte from the client. A browser keeps connections open for longer, and opens another one then.
IDLE_SECONDS = 60.0
#: Connections at a time: each socket holds a thread, and a hundred are left for requests.
THREADS = MAX_SOCKETS + 100
#: What a client hears for whom no thread is left.
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_HOST_ADVICE = "set HOST to an address of this machine, such as 127.0.0.1, or 0.0.0.0 or :: for all"


class RequestHandler(WSGIRequestHandler):
    """HTTP/1.1 with kept-alive connections; no line for every request, nor for a connection that was idle."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass

    def log_error(self, format: str, *args: Any) -> None:
        if not (args and isinstance(args[0], TimeoutError)):
            super().log_error(format, *args)


class Server(ThreadedWSGIServer):
    """Starts at most `threads` threads."""

    def __init__(self, host: str, port: int, app: Flask, fd: int, threads: int = THREADS) -> None:
        self._free = threading.BoundedSemaphore(threads)
        super().__init__(host, port, app, RequestHandler, fd=fd)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            with suppress(OSError):
                request.send(_BUSY, socket.MSG_DONTWAIT)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def bind(host: str, port: int, app: Flask, threads: int = THREADS) -> Server:
    """A server that listens, and serves once it is told to. `::` is every address of this machine, IPv4 too.

    Raises OSError when the port is taken, or the host is not this machine's.
    """
    try:
        listener = _listen(host, port)
    except OSError as error:
        about_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = "set PORT to another one, and EVE_CALLBACK_URL with it" if about_port else _HOST_ADVICE
        raise OSError(f"cannot listen on {with_brackets(host)}:{port}: {error.strerror}; {advice}") from error
    with listener:  # the server works on a copy
        return Server(host, port, app, listener.fileno(), threads)


def url_of(server: BaseWSGIServer) -> str:
    """The address at which it serves."""
    return f"http://{with_brackets(server.host)}:{server.port}"


def with_brackets(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    if ":" not in host:
        return socket.create_server((host, port))
    both = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=both)
