"""Events: what has just happened, told to every process that listens. Ids only, and losing one is allowed.

A subscriber reads the database again and decides anew who may see what; an event is a hint that it is worth
looking. So events travel on a transient fan-out exchange without confirms, and in embedded mode through a queue in
memory. `publish` never raises and never waits for the network; `subscribe` reconnects by itself and says `Resumed`
whenever something may have been missed. Threads start on first use, and a forked child starts with none.
What is done about an event is left to the subscriber (`api/hub.py`).
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)

#: Events a process holds back for a slow or absent broker, or a slow subscriber, before it drops some.
MAX_WAITING = 10_000
#: Seconds `close` gives what is still waiting.
CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class KillmailStored:
    """A killmail and all that belongs to it was committed. Exactly one event a stored killmail is published."""

    killmail_id: int


@dataclass(frozen=True, slots=True)
class SyncChanged:
    """A sync was opened, listed a page, began to wait, or changed its state."""

    sync_id: int


@dataclass(frozen=True, slots=True)
class SyncFinished:
    """A sync ended, well or not."""

    sync_id: int


@dataclass(frozen=True, slots=True)
class WaitsChanged:
    """What a class of syncs waits for has changed, or is over (`ledger/waits.py`). One event for all of its syncs."""


@dataclass(frozen=True, slots=True)
class NamesResolved:
    """Ids have got names that had none, or solar systems their security status."""


@dataclass(frozen=True, slots=True)
class SessionsEnded:
    """A user is signed out everywhere: by themselves, by leaving, or because the character was sold."""

    user_id: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """Events may have been missed: read the database again. Never passed to `publish`: the bus that drops an event, or
    connects again, tells its subscribers, in other processes too."""


Event = KillmailStored | SyncChanged | SyncFinished | WaitsChanged | NamesResolved | SessionsEnded
Notice = Event | Resumed
Callback = Callable[[Notice], None]

_KINDS: dict[str, tuple[Callable[..., Notice], str | None]] = {
    "KillmailStored": (KillmailStored, "killmail_id"),
    "SyncChanged": (SyncChanged, "sync_id"),
    "SyncFinished": (SyncFinished, "sync_id"),
    "WaitsChanged": (WaitsChanged, None),
    "NamesResolved": (NamesResolved, None),
    "SessionsEnded": (SessionsEnded, "user_id"),
    "Resumed": (Resumed, None),
}


class MalformedEventError(ValueError):
    """Bytes that are not one of our events."""


def encode(notice: Notice) -> bytes:
    """`{"type": "KillmailStored", "id": 123}`."""
    body: dict[str, Any] = {"type": type(notice).__name__}
    for value in asdict(notice).values():
        body["id"] = value
    return json.dumps(body).encode()


def decode(body: bytes) -> Notice:
    """The inverse of `encode`. Raises MalformedEventError; whoever reaches the broker may have sent anything."""
    try:
        data = json.loads(body)
        make, id_field = _KINDS[data["type"]]
        value = data.get("id")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedEventError("not an event of a known type") from error
    if id_field is None:
        return make()
    if type(value) is not int or not 0 < value < 2**63:
        raise MalformedEventError(f"{data['type']}: id is not a positive 64-bit integer")
    return make(value)


class Bus(Protocol):
    """What carries events: `LocalBus` within one process, `events_rabbitmq.RabbitBus` between processes."""

    def publish(self, event: Event) -> None: ...

    def subscribe(self, subscribers: Subscribers) -> None:
        """Begin to deliver to `subscribers`; called once, when the first one comes."""

    def close(self) -> None: ...


class Subscribers:
    """The callbacks of this process. One that raises is logged, and neither ends the thread nor starves the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: tuple[Callback, ...] = ()

    def __len__(self) -> int:
        return len(self._callbacks)

    def add(self, callback: Callback) -> None:
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

    def remove(self, callback: Callback) -> None:
        with self._lock:
            self._callbacks = tuple(each for each in self._callbacks if each is not callback)

    def tell(self, notice: Notice) -> None:
        for callback in self._callbacks:
            try:
                callback(notice)
            except Exception:
                log.exception("a subscriber failed on %s", notice)


class Subscription:
    """A running subscription; `close` ends it."""

    def __init__(self, subscribers: Subscribers, callback: Callback) -> None:
        self._subscribers = subscribers
        self._callback = callback

    def close(self) -> None:
        self._subscribers.remove(self._callback)


class LocalBus:
    """The in-process twin: one thread hands events on in order, so that a publisher never waits for a subscriber."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Event | None] = queue.Queue(MAX_WAITING)
        self._missed = False
        self._thread: threading.Thread | None = None

    def publish(self, event: Event) -> None:
        if self._thread is None:
            return  # nobody listens
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            if not self._missed:
                log.warning("events come faster than they are handled; some were dropped")
            self._missed = True

    def subscribe(self, subscribers: Subscribers) -> None:
        self._thread = threading.Thread(target=self._run, args=(subscribers,), name="events", daemon=True)
        self._thread.start()

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        if thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def _run(self, subscribers: Subscribers) -> None:
        while (event := self._queue.get()) is not None:
            subscribers.tell(event)
            if self._missed and self._queue.empty():
                self._missed = False
                subscribers.tell(Resumed())


class _Process:
    """The events of this process: which bus, and who listens."""

    def __init__(self, rabbitmq_url: str | None) -> None:
        self.rabbitmq_url = rabbitmq_url
        self.lock = threading.Lock()
        self.subscribers = Subscribers()
        self.listening = False
        self.bus: Bus = LocalBus() if rabbitmq_url is None else _rabbit_bus(rabbitmq_url)


def _rabbit_bus(url: str) -> Bus:
    from events_rabbitmq import RabbitBus  # embedded mode needs no pika

    return RabbitBus(url)


_process = _Process(None)


def configure(rabbitmq_url: str | None) -> None:
    """Choose the bus: the broker at this address, or this process alone. Ends what was configured before."""
    global _process
    former, _process = _process, _Process(rabbitmq_url)
    former.bus.close()


def publish(event: Event) -> None:
    """Tell everyone. Returns at once and never raises: with the broker away the event is dropped."""
    _process.bus.publish(event)


def subscribe(callback: Callback) -> Subscription:
    """Call `callback` for every event from now on, in one thread of this process; keep it short."""
    process = _process
    process.subscribers.add(callback)
    with process.lock:
        if not process.listening:
            process.listening = True
            process.bus.subscribe(process.subscribers)
    return Subscription(process.subscribers, callback)


def close() -> None:
    """Hand over what waits, within CLOSE_SECONDS, and end the threads. A later publish starts afresh."""
    configure(_process.rabbitmq_url)


def _after_fork() -> None:
    """A child has none of its parent's threads, and must not write on its sockets."""
    global _process
    _process = _Process(_process.rabbitmq_url)


os.register_at_fork(after_in_child=_after_fork)
