"""Events over RabbitMQ: one publisher thread and one consumer thread a process, each with a connection of its own.

The exchange is transient and of type fan-out, every listening process has an exclusive queue that dies with it, and
messages are neither persistent nor confirmed: an event that is lost is made up for by reading the database. A broker
that is away costs dropped events and one warning, never a blocked or failing caller.
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

from events import CLOSE_SECONDS, MAX_WAITING, Event, MalformedEventError, Resumed, Subscribers, decode, encode

log = logging.getLogger(__name__)

EXCHANGE = "killmail-sync.events"
#: Seconds between attempts to connect, doubled up to the second number.
RECONNECT_SECONDS = (0.2, 5.0)
#: Seconds. A peer that vanished without a word is noticed within two heartbeats.
HEARTBEAT = 30
CONNECT_TIMEOUT = 5
#: Seconds between looks at the connection while nothing happens; well under the heartbeat.
IDLE_SECONDS = 0.5

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
        self._thread = threading.Thread(target=self._run, name="events-publisher", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            log.debug("the broker is slow: dropped %s", event)

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
                continue
            if event is None:
                break
            self._send(event)
        self._link.close()

    def _send(self, event: Event) -> None:
        # The connection may have died long before this event came: it is worth a second try at once.
        for _ in range(2):
            if not self._link.open():
                return  # dropped
            try:
                self._link.channel.basic_publish(EXCHANGE, "", encode(event))
                return
            except _LOST as error:
                self._link.lost(error)
                self._link.retry_now()

    def _stay_alive(self) -> None:
        try:
            if self._link.connection is not None:
                self._link.connection.process_data_events(0)
        except _LOST as error:
            self._link.lost(error)


class _Consumer:
    def __init__(self, url: str, subscribers: Subscribers) -> None:
        self._subscribers = subscribers
        self._closing = threading.Event()
        self._queue_name = ""
        self._link = _Link(url, "receiving", self._declare)
        self._thread = threading.Thread(target=self._run, name="events-consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._closing.set()

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def _declare(self, channel: Any) -> None:
        arguments = {"x-max-length": MAX_WAITING}
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
            if body is None:
                continue
            try:
                event = decode(body)
            except MalformedEventError as error:
                log.warning("dropped an event: %s", error)
                continue
            self._subscribers.tell(event)
