"""Starts a simulator on a port of its own thread and stops it again; sorts requests to ESI, SSO or control.

`start` returns when the port is open, so whoever asks next is answered. In the process of a test the running
state can be read directly; changes go through the control API or `RunningSimulator.call`.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from simulator import control_routes, esi_routes, sso_routes
from simulator.config import Config
from simulator.request_log import Note
from simulator.state import Simulator
from simulator.wire import Connection, Delivery, Request, Response

_Value = TypeVar("_Value")
_BACKLOG: Final = 512
_UNANSWERED: Final = (Delivery.RESET, Delivery.HANG)


def answer(state: Simulator, request: Request) -> Response:
    """Answer one request and write it down."""
    if request.path.startswith(control_routes.PREFIX):
        return control_routes.handle(state, request)
    note = Note("unknown")
    response = sso_routes.handle(state, request, note) or esi_routes.handle(state, request, note)
    state.log.add(
        note,
        at=request.at,
        path=request.path,
        status=0 if response.delivery in _UNANSWERED else response.status,
        conditional="if-none-match" in request.headers or "if-modified-since" in request.headers,
    )
    if response.delivery is not Delivery.HANG:
        response.delay += state.latency()
    return response


@dataclass
class RunningSimulator:
    """A simulator that listens. `url` is its address without a trailing slash."""

    state: Simulator
    _loop: asyncio.AbstractEventLoop
    _server: asyncio.Server
    _connections: set[Connection]
    _thread: threading.Thread

    @property
    def url(self) -> str:
        """The address of both ESI and SSO."""
        return self.state.url

    def call(self, change: Callable[[Simulator], _Value]) -> _Value:
        """Run `change` on the state in the simulator's own thread and return what it returns."""

        async def run() -> _Value:
            return change(self.state)

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(timeout=30)

    def stop(self) -> None:
        """Close the port and every connection; returns when the thread has ended. Twice is harmless."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._shut)
            self._thread.join(timeout=10)

    def _shut(self) -> None:
        self._server.close()
        for connection in list(self._connections):
            connection.close()
        # One more turn of the loop lets the transports close their sockets.
        self._loop.call_soon(self._loop.stop)


def start(config: Config) -> RunningSimulator:
    """Build the world and listen in a daemon thread.

    Raises OSError if the port cannot be had, ValueError for a configuration that makes no sense.
    """
    state = Simulator.of(config)
    loop = asyncio.new_event_loop()
    connections: set[Connection] = set()
    try:
        server = loop.run_until_complete(
            loop.create_server(
                lambda: Connection(lambda request: answer(state, request), connections),
                config.host,
                config.port,
                backlog=_BACKLOG,
            )
        )
    except OSError:
        loop.close()
        raise
    host, port = server.sockets[0].getsockname()[:2]
    state.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    thread = threading.Thread(target=_run, args=(loop,), name="simulator", daemon=True)
    thread.start()
    return RunningSimulator(state, loop, server, connections, thread)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
