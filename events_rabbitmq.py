"""Events over RabbitMQ: one publisher thread and one consumer thread a process, each with a connection of its own.

The exchange is transient and of type fan-out, every listening process has an exclusive queue that dies with it, and
messages are neither persistent nor confirmed: an event that is lost is made up for by reading the database. A broker
that is away costs dropped events and one warning, never a blocked or failing caller.

The invariant: each dropped event is followed by `Resumed`. A publisher that dropped events, or lost a connection on
which some may have been under way, sends it; a consumer tells it after each connect, and after its queue overflowed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pika
from pika.exceptions import AMQPError

from events import (
    CLOSE_SECONDS,
    MAX_WAITING,
    Event,
    MalformedEventError,
    Notice,
    Resumed,
    Subscribers,
    decode,
    encode,
)

log = logging.getLogger(__name__)

EXCHANGE = "killmail-sync.events"
#: Seconds between attempts to connect, doubled up to the second number.
RECONNECT_SECONDS = (0.2, 5.0)
#: Seconds. A peer that vanished without a word is noticed within two heartbeats.
HEARTBEAT = 30
CONNECT_TIMEOUT = 5
#: Seconds between looks at the connection while nothing happens; well under the heartbeat.
IDLE_SECONDS = 0.5

#: Seconds between two `Resumed` about dropped events, while more are dropped: each makes every subscriber read.
GAP_SECONDS = 1.0

#: pika reports a lost connection as its own errors, and a failing socket also as OSError.
_LOST = (AMQPError, OSError)


class RabbitBus:
    """Both directions; each thread starts on its first use."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._publisher: _Publisher | None = None
        self._consumer: _Consumer | None = None

    def publish(self, event: Event) -> None:
        if self._publisher is None:
            with self._lock:
                self._publisher = self._publisher or _Publisher(self._url)
        self._publisher.put(event)

    def subscribe(self, subscribers: Subscribers) -> None:
        self._consumer = _Consumer(self._url, subscribers)

    def close(self) -> None:
        running = [thread for thread in (self._publisher, self._consumer) if thread is not None]
        for thread in running:
            thread.stop()
        for thread in running:
            thread.join()


class _Link:
    """A connection that comes back: `open` says whether there is one now, and waits ever longer between attempts."""

    def __init__(self, url: str, purpose: str, prepare: Callable[[Any], None]) -> None:
        self._parameters = pika.URLParameters(url)
        self._parameters.heartbeat = HEARTBEAT
        self._parameters.socket_timeout = self._parameters.blocked_connection_timeout = CONNECT_TIMEOUT
        self._parameters.client_properties = {"connection_name": f"killmail-sync events, {purpose}"}
        self._purpose = purpose
        self._prepare = prepare
        self._told = False
        self._pause = RECONNECT_SECONDS[0]
        self._next_attempt = 0.0
        self.connection: Any = None
        self.channel: Any = None

    def open(self) -> bool:
        """True when the link is up; connects if it is down and an attempt is due."""
        if self.channel is not None:
            return True
        if time.monotonic() < self._next_attempt:
            return False
        try:
            self.connection = pika.BlockingConnection(self._parameters)
            channel = self.connection.channel()
            channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=False)
            self._prepare(channel)
        except _LOST as error:
            self.lost(error)
            return False
        self.channel = channel
        self._pause = RECONNECT_SECONDS[0]
        if self._told:
            log.info("%s events again", self._purpose)
        self._told = False
        return True

    def lost(self, error: BaseException) -> None:
        if not self._told:
            log.warning("no broker while %s events (%s); going on without", self._purpose, type(error).__name__)
        self._told = True
        self.close()
        self._next_attempt = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, RECONNECT_SECONDS[1])

    def retry_now(self) -> None:
        self._next_attempt = 0.0

    def close(self) -> None:
        connection, self.connection, self.channel = self.connection, None, None
        try:
            if connection is not None and connection.is_open:
                connection.close()
        except _LOST:
            log.debug("the connection was gone before it could be closed")


class _Publisher:
    def __init__(self, url: str) -> None:
        self._queue: queue.Queue[Event | None] = queue.Queue(MAX_WAITING)
        self._link = _Link(url, "publishing", lambda channel: None)
        self._dropped = False  # set by any thread, cleared by the publisher's own
        self._next_resumed = 0.0
        self._thread = threading.Thread(target=self._run, name="events-publisher", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            log.debug("the broker is slow: dropped %s", event)
            self._dropped = True

    def stop(self) -> None:
        """End after what waits. A queue that is full is left to the end of the process."""
        with suppress(queue.Full):
            self._queue.put_nowait(None)

    def join(self) -> None:
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            try:
                event = self._queue.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self._stay_alive()
            else:
                if event is None:
                    break
                self._send(event)
            if self._dropped and time.monotonic() >= self._next_resumed:
                self._send_resumed()
        if self._dropped and self._link.channel is not None:
            self._send_resumed()
        self._link.close()

    def _send_resumed(self) -> None:
        """Have the subscribers read again. What is dropped from now on is told with the next one."""
        self._next_resumed = time.monotonic() + GAP_SECONDS
        self._dropped = False
        self._send(Resumed())

    def _send(self, notice: Notice) -> None:
        # The connection may have died long before this event came: it is worth a second try at once.
        for _ in range(2):
            if not self._link.open():
                break
            try:
                self._link.channel.basic_publish(EXCHANGE, "", encode(notice))
                return
            except _LOST as error:
                self._lost(error)
                self._link.retry_now()
        self._dropped = True

    def _stay_alive(self) -> None:
        try:
            if self._link.connection is not None:
                self._link.connection.process_data_events(0)
        except _LOST as error:
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        """The connection is gone, and what was written to it last may not have arrived."""
        self._link.lost(error)
        self._dropped = True


class _Consumer:
    def __init__(self, url: str, subscribers: Subscribers) -> None:
        self._subscribers = subscribers
        self._closing = threading.Event()
        self._queue_name = self._overflow_name = ""
        self._next_look = 0.0
        self._link = _Link(url, "receiving", self._declare)
        self._thread = threading.Thread(target=self._run, name="events-consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def _declare(self, channel: Any) -> None:
        # A full queue drops its oldest message, and without a word. RabbitMQ puts what is dropped into this second
        # queue of one message: one that is there says that something was dropped.
        overflow = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 1})
        self._overflow_name = overflow.method.queue
        arguments = {
            "x-max-length": MAX_WAITING,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._overflow_name,
        }
        declared = channel.queue_declare("", exclusive=True, auto_delete=True, arguments=arguments)
        self._queue_name = declared.method.queue
        channel.queue_bind(self._queue_name, EXCHANGE)

    def _run(self) -> None:
        while not self._closing.is_set():
            if not self._link.open():
                self._closing.wait(RECONNECT_SECONDS[0])
                continue
            # What was published before the queue was bound, or while there was none, never comes.
            self._subscribers.tell(Resumed())
            try:
                self._consume()
            except _LOST as error:
                self._link.lost(error)
        self._link.close()

    def _consume(self) -> None:
        for _, _, body in self._link.channel.consume(self._queue_name, auto_ack=True, inactivity_timeout=IDLE_SECONDS):
            if self._closing.is_set():
                return
            if body is not None:
                self._receive(body)
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + GAP_SECONDS
                self._look_for_overflow()

    def _receive(self, body: bytes) -> None:
        try:
            notice = decode(body)
        except MalformedEventError as error:
            log.warning("dropped an event: %s", error)
            return
        self._subscribers.tell(notice)

    def _look_for_overflow(self) -> None:
        dropped, _, _ = self._link.channel.basic_get(self._overflow_name, auto_ack=True)
        if dropped is not None:
            log.warning("events come faster than they are handled; some were dropped; subscribers read again")
            self._subscribers.tell(Resumed())
