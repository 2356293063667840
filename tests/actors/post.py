"""What leaves through the broker, and what may go wrong with it, without touching the code that sends.

`Post` is a middleware of the real in-memory broker: it writes down every message, and at the actors it is told to it
refuses the message (the broker is away), ends the sender on the spot (the process died between its commit and its
send), or loses the message after it was taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import ConnectionClosed
from dramatiq.middleware import Middleware, MiddlewareError

from actors.memory import PriorityMessages


class Refused(MiddlewareError, ConnectionClosed):
    """The broker is away: what dramatiq's RabbitMQ broker raises when it has tried often enough."""

    def __init__(self) -> None:
        ConnectionClosed.__init__(self, "the broker is away")


class Died(BaseException):
    """The process ended here. No handler of ours may take it for an error to be dealt with."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message as it was handed to the broker. `delay` in milliseconds."""

    actor: str
    args: tuple[Any, ...]
    priority: int | None
    delay: int | None
    options: dict[str, Any]


@dataclass
class Post(Middleware):
    """Every message sent in this test, and the faults of the way."""

    messages: list[Sent] = field(default_factory=list)
    _faults: dict[str, str] = field(default_factory=dict)
    _left: Counter[str] = field(default_factory=Counter)

    def refuse(self, actor: str, times: int = 1_000) -> None:
        self._fault(actor, "refuse", times)

    def die_at(self, actor: str, times: int = 1) -> None:
        self._fault(actor, "die", times)

    def lose(self, actor: str, times: int = 1) -> None:
        self._fault(actor, "lose", times)

    def mend(self) -> None:
        self._faults.clear()

    def to(self, actor: str) -> list[Sent]:
        """What was sent to this actor, oldest first; a delayed message counts when it is sent, not when it is due."""
        return [message for message in self.messages if message.actor == actor]

    def loses(self, actor: str) -> bool:
        """Asked by the queue, once a message."""
        return self._strikes(actor, "lose")

    def before_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        if self._strikes(message.actor_name, "refuse"):
            raise Refused
        if self._strikes(message.actor_name, "die"):
            raise Died(message.actor_name)
        options = dict(message.options)
        sent = Sent(message.actor_name, message.args, options.get("broker_priority"), delay, options)
        self.messages.append(sent)

    def _fault(self, actor: str, kind: str, times: int) -> None:
        self._faults[actor] = kind
        self._left[actor] = times

    def _strikes(self, actor: str, kind: str) -> bool:
        if self._faults.get(actor) != kind or self._left[actor] <= 0:
            return False
        self._left[actor] -= 1
        return True


class _LossyQueue(PriorityMessages):
    """A queue of the in-memory broker that forgets what `Post` says it loses."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self._post = post

    def put(self, item: bytes, block: bool = True, timeout: float | None = None) -> None:
        if not self._post.loses(dramatiq.Message.decode(item).actor_name):
            super().put(item, block, timeout)


def fresh_queues(broker: StubBroker, post: Post) -> None:
    """Empty queues in place of whatever a test before this one has left."""
    for name in list(broker.queues):
        broker.queues[name] = _LossyQueue(post)
    broker.dead_letters_by_queue.clear()
