"""WebSocket /graphql: the server's side of graphql-transport-ws.

The protocol page is https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md; close codes mean what it says.
One thread serves a socket: it reads what the client says, takes what its subscriptions have, executes the documents on
that and sends. It alone waits for its client; what is the same for many and needs no waiting is sent by the hub's
thread, because to wake a thousand costs more than to write to a thousand. Queries and subscriptions are served;
mutations change the session cookie, which only an HTTP response can, and are refused.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from flask import Blueprint, abort, current_app, g, request
from flask_sock import Sock
from graphql import OperationType
from limits import parse
from simple_websocket import ConnectionClosed
from wsproto.utilities import RemoteProtocolError

from api import system
from api.callers import GRAPHQL_LIMIT, is_own_origin, limiter, user_or_address
from api.context import Context
from api.errors import ApiError, BadUserInput, RateLimited, Unauthenticated, format_error
from api.execution import InvalidDocumentError, Prepared, prepare, run
from api.hub import EXTENSION as EXTENSION
from api.hub import GOING_AWAY, SIGNED_OUT, Hub
from api.killmail_views import KillmailView
from api.limits import RowBudget
from api.session import current_user
from api.shared_answers import Answer, answer, is_same_for_all
from api.subscribing import open_subscription
from api.subscriptions import Reader, Subscription
from api.system import System
from api.transport_http import MAX_BODY, read_request
from api.wire import OWN_THREAD, Wire
from database import UNAVAILABLE_ERRORS, db
from models import User

log = logging.getLogger(__name__)

PROTOCOL = "graphql-transport-ws"

#: Seconds a client has for its connection_init.
INIT_SECONDS = 10.0
#: Seconds a client without a session, which cannot subscribe to anything, may be silent between two operations.
STRANGER_SECONDS = 60.0
#: Running subscriptions of one socket, and characters of an operation's id.
MAX_SUBSCRIPTIONS = 20
MAX_ID_LENGTH = 128

BAD_REQUEST, UNAUTHORIZED, BAD_PROTOCOL, INIT_TIMEOUT, ID_TAKEN, TOO_MANY_INITS = 4400, 4401, 4406, 4408, 4409, 4429
SLOW_CONSUMER = 4008
#: A defect of ours; a condition that passes soon; and no room, which may last. Clients connect again after the last two
#: only: graphql-ws takes the first for fatal (https://github.com/enisdenjo/graphql-ws/issues/126).
INTERNAL_ERROR, SERVICE_RESTART, TRY_AGAIN_LATER = 1011, 1012, 1013

#: simple-websocket's. Seconds between pings: proxies cut idle connections after a minute or so.
SERVER_OPTIONS = {"subprotocols": [PROTOCOL], "ping_interval": 25, "max_message_size": MAX_BODY} | OWN_THREAD

blueprint = Blueprint("graphql_ws", __name__)
sock = Sock()


@blueprint.before_request
def refuse_foreign_origins() -> None:
    """A page of another site may open sockets here, and the browser would send our cookie along."""
    if not is_own_origin(request, system.current().settings):
        abort(403)
    # Compressing each message for each socket costs memory (100 KB a socket) that short messages do not pay back.
    request.environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)


@blueprint.before_request
def look_who_asks() -> None:
    """Before anything is opened for a socket: where the database is away, the answer is an ordinary 503."""
    current_user()


@blueprint.errorhandler(RemoteProtocolError)
def refuse_what_is_no_handshake(_error: RemoteProtocolError) -> tuple[str, int]:
    """wsproto's, for a header that is missing or another version: the client's mistake, and no line in the log."""
    return "This is no WebSocket handshake of version 13.\n", 400


@sock.route("/graphql", bp=blueprint)  # type: ignore[untyped-decorator]
def serve(ws: Any) -> None:
    """One socket, from its handshake to its end, in a thread of its own."""
    hub = cast(Hub, current_app.extensions[EXTENSION])
    connection = Connection(Wire(ws), hub, system.current(), current_user(), user_or_address())
    # A socket lives for hours: connections are for work, and who it is stands in the database.
    if not db.is_closed():
        db.close()
    g.pop("user", None)
    connection.serve()


class _CloseError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Connection:
    """One socket: the protocol's states, and its running subscriptions by the client's ids."""

    def __init__(self, wire: Wire, hub: Hub, of: System, user: User | None, owner: str) -> None:
        self.owner = owner
        self.user_id = None if user is None else user.id
        self.session_epoch = None if user is None else user.session_epoch
        self._wire = wire
        self._hub = hub
        self._system = of
        self._acknowledged = False
        self._init_deadline = time.monotonic() + INIT_SECONDS
        self._idle_deadline = time.monotonic() + STRANGER_SECONDS if user is None else math.inf
        self._running: dict[str, _Running] = {}
        self._closing: _CloseError | None = None
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "connection_init": self._on_init,
            "ping": self._on_ping,
            "pong": lambda message: None,
            "subscribe": self._on_subscribe,
            "complete": self._on_complete,
        }

    def close(self, code: int, reason: str) -> None:
        """Called by other threads: end this soon."""
        self._closing = self._closing or _CloseError(code, reason)
        self._wire.wake()

    def serve(self) -> None:
        """Until either side closes."""
        try:
            if self._wire.subprotocol != PROTOCOL:
                raise _CloseError(BAD_PROTOCOL, "Subprotocol not acceptable")
            if not self._hub.enter(self):
                raise _CloseError(TRY_AGAIN_LATER, "Too many sockets")
            while self._wire.connected:
                self._step()
        except _CloseError as closing:
            self._wire.close(closing.code, closing.reason)
        except (ConnectionClosed, OSError):
            log.debug("a socket went away")
        except UNAVAILABLE_ERRORS as error:
            log.error("the database cannot be used: %s; a socket is closed, and its client may come back", error)
            self._wire.close(SERVICE_RESTART, "The database does not answer")
        except Exception:
            log.exception("a socket failed")
            self._wire.close(INTERNAL_ERROR, "Internal error")
        finally:
            self._hub.leave(self)
            for running in self._running.values():
                self._hub.unfollow(running.subscription)
            self._wire.end()

    def _step(self) -> None:
        """Wait for something to do, and do it."""
        self._wire.wait(self._seconds_to_wait())
        self._wire.finish()
        for text in self._wire.received():
            self._receive(text)
        if self._closing is not None:
            raise self._closing
        if not self._acknowledged and time.monotonic() >= self._init_deadline:
            raise _CloseError(INIT_TIMEOUT, "Connection initialisation timeout")
        if time.monotonic() >= self._idle_deadline:
            raise _CloseError(GOING_AWAY, "Nothing is asked, and nobody signed in")
        for operation_id, running in list(self._running.items()):
            self._deliver(operation_id, running)

    def _seconds_to_wait(self) -> float | None:
        due = [running.subscription.seconds_until_due() for running in self._running.values()]
        if not self._acknowledged:
            due.append(max(0.0, self._init_deadline - time.monotonic()))
        if self.user_id is None:
            due.append(max(0.0, self._idle_deadline - time.monotonic()))
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _receive(self, text: str | bytes) -> None:
        try:
            message = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict) or str(message.get("type")) not in self._handlers:
            raise _CloseError(BAD_REQUEST, "Invalid message")
        self._handlers[str(message["type"])](message)

    def _on_init(self, message: dict[str, Any]) -> None:
        if self._acknowledged:
            raise _CloseError(TOO_MANY_INITS, "Too many initialisation requests")
        self._acknowledged = True
        self._send({"type": "connection_ack"})

    def _on_ping(self, message: dict[str, Any]) -> None:
        payload = message.get("payload")
        self._send({"type": "pong", "payload": payload} if isinstance(payload, dict) else {"type": "pong"})

    def _on_complete(self, message: dict[str, Any]) -> None:
        self._stop(_operation_id(message))

    def _on_subscribe(self, message: dict[str, Any]) -> None:
        if not self._acknowledged:
            raise _CloseError(UNAUTHORIZED, "Unauthorized")
        operation_id = _operation_id(message)
        if self.user_id is None:
            self._idle_deadline = time.monotonic() + STRANGER_SECONDS
        if operation_id in self._running:
            raise _CloseError(ID_TAKEN, f"Subscriber for {operation_id} already exists")
        try:
            query, variables, operation_name = read_payload(message.get("payload"))
            self._count_operation()
            with db.connection_context():
                self._begin(operation_id, prepare(query), variables, operation_name)
        except InvalidDocumentError as error:
            self._send({"id": operation_id, "type": "error", "payload": error.formatted()})
        except ApiError as error:
            self._send({"id": operation_id, "type": "error", "payload": [format_error(error)]})

    def _count_operation(self) -> None:
        if not limiter.limiter.hit(parse(GRAPHQL_LIMIT), "socket", self.owner):
            raise RateLimited("Too many operations. Please wait a minute.")

    def _begin(
        self, operation_id: str, prepared: Prepared, variables: dict[str, Any], operation_name: str | None
    ) -> None:
        viewer = self._viewer()
        operation = prepared.operation(operation_name)
        context = Context(self._system, viewer, prepared.named_fields)
        execute = Execution(prepared, context, variables, operation_name)
        if operation.operation is OperationType.QUERY:
            self._send({"id": operation_id, "type": "next", "payload": execute.once()})
            self._send({"id": operation_id, "type": "complete"})
            return
        if operation.operation is OperationType.MUTATION:
            raise BadUserInput("Mutations are served by POST at this address.")
        if viewer is None:
            raise Unauthenticated
        if len(self._running) >= MAX_SUBSCRIPTIONS:
            raise RateLimited(f"One socket carries {MAX_SUBSCRIPTIONS} subscriptions.")
        reader = Reader(
            viewer,
            self._wire.wake,
            lambda: self.close(SLOW_CONSUMER, "Slow consumer"),
            lambda payload: self._send_at_once(operation_id, execute, payload),
        )
        subscription = open_subscription(reader, self._system, prepared, operation, variables)
        self._running[operation_id] = _Running(subscription, execute)
        # From here on the hub tells it; what came before is read by the first `take`.
        self._hub.follow(subscription)

    def _viewer(self) -> User | None:
        """The signed-in user as of now."""
        if self.user_id is None:
            return None
        user: User | None = User.get_or_none((User.id == self.user_id) & (User.session_epoch == self.session_epoch))
        if user is None:
            raise _CloseError(SIGNED_OUT, "Signed out")
        return user

    def _deliver(self, operation_id: str, running: _Running) -> None:
        try:
            for payload in running.subscription.take():
                self._wire.send_frame(running.execute(payload).frame(operation_id))
        except ApiError as error:
            self._stop(operation_id)
            self._send({"id": operation_id, "type": "error", "payload": [format_error(error)]})
            return
        if running.subscription.ended:
            self._stop(operation_id)
            self._send({"id": operation_id, "type": "complete"})

    def _stop(self, operation_id: str) -> None:
        running = self._running.pop(operation_id, None)
        if running is not None:
            running.subscription.stop()
            self._hub.unfollow(running.subscription)

    def _send_at_once(self, operation_id: str, execute: Execution, payload: Any) -> bool:
        """Called by the hub's thread, which one socket's trouble must not stop. False: this socket's own has to."""
        if self._closing is not None:  # its session has ended, perhaps a moment ago
            return False
        try:
            shared = execute.shared(payload)
        except Exception:
            log.exception("an answer failed; it is tried again for one socket")
            return False
        return shared is not None and self._wire.send_at_once(shared.frame(operation_id))

    def _send(self, message: dict[str, Any]) -> None:
        try:
            text = json.dumps(message, ensure_ascii=False)
            text.encode()
        except (UnicodeEncodeError, RecursionError):  # an id or a ping's payload that was made to break us
            raise _CloseError(BAD_REQUEST, "Invalid message") from None
        self._wire.send(text)


class Execution:
    """A document and what it is executed with, time and again."""

    def __init__(
        self, prepared: Prepared, context: Context, variables: dict[str, Any], operation_name: str | None
    ) -> None:
        self._prepared = prepared
        self._context = context
        self._arguments = (variables, operation_name)
        # One that is not kept is no other client's, and must not be held by the answers that are remembered.
        self._shared = prepared.is_kept and is_same_for_all(prepared.document, prepared.operation(operation_name))

    def __call__(self, payload: Any) -> Answer:
        """The answer about what a subscription delivers."""
        return self.shared(payload) or Answer(json.dumps(self.once(payload)))

    def shared(self, payload: Any) -> Answer | None:
        """The same where others may be sent it, too; None where they may not."""
        viewer = self._context.viewer
        if not (self._shared and isinstance(payload, KillmailView) and viewer is not None):
            return None
        document, name = self._prepared.document, self._arguments[1]
        return answer(document, name, payload, viewer.character_id, lambda: json.dumps(self.once(payload)))

    def once(self, payload: Any = None) -> dict[str, Any]:
        return run(self._prepared, replace(self._context, rows=RowBudget()), *self._arguments, root=payload)


class _Running:
    def __init__(self, subscription: Subscription, execute: Execution) -> None:
        self.subscription = subscription
        self.execute = execute


def read_payload(payload: Any) -> tuple[str, dict[str, Any], str | None]:
    """A subscribe message's payload. Raises _CloseError where the protocol says so."""
    if not isinstance(payload, dict) or not isinstance(payload.get("query"), str):
        raise _CloseError(BAD_REQUEST, "Invalid message")
    return read_request(payload)


def _operation_id(message: dict[str, Any]) -> str:
    operation_id = message.get("id")
    if not isinstance(operation_id, str) or not 0 < len(operation_id) <= MAX_ID_LENGTH:
        raise _CloseError(BAD_REQUEST, "Invalid message")
    return operation_id
