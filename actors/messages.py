"""What counts as a message: the shape that this version sends, on the queue that it names.

Dramatiq trusts what it reads. A message of another shape, or on another queue than its own, would stop a consumer or a
worker thread for good, in every process that is given it again; here it is told of once and goes to the dead letters.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pika.exceptions
from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL, RabbitmqBroker, _RabbitmqConsumer
from dramatiq.common import dq_name, xq_name
from dramatiq.errors import ConnectionClosed

from actors import queues

logger = logging.getLogger(__name__)

TEXTS = ("queue_name", "actor_name", "message_id")
#: Milliseconds ahead: longer than any message of ours waits. A consumer holds what is not due yet, and a few that never
#: are would be all that it may hold.
LATEST_ETA_MS = 30 * 60_000


class CheckedEncoder(dramatiq.JSONEncoder):
    """JSON, refused unless it has every field of a message in the type that Dramatiq will take it for."""

    def decode(self, data: bytes) -> dict[str, Any]:
        """Raises ValueError; Dramatiq makes a DecodeError of it, which is logged and dead-lettered."""
        fields: Any = super().decode(data)
        if not isinstance(fields, dict):
            raise ValueError("a message is an object")
        containers = (("args", list), ("kwargs", dict), ("options", dict))
        wrong = [name for name in TEXTS if not isinstance(fields.get(name), str)]
        wrong += [name for name, kind in containers if not isinstance(fields.get(name), kind)]
        if wrong:
            raise ValueError(f"not a message of this version: {', '.join(wrong)}")
        eta = fields["options"].get("eta", 0)
        if type(eta) is not int or type(fields.get("message_timestamp")) is not int:
            raise ValueError("not a message of this version: its times are no whole numbers")
        if eta > time.time() * 1000 + LATEST_ETA_MS:
            raise ValueError("not a message of this version: it is to wait for longer than any does")
        return fields


class OwnQueueConsumer(_RabbitmqConsumer):
    """Gives out only messages that say they belong where they came from."""

    def __next__(self) -> Any:
        message = super().__next__()  # type: ignore[no-untyped-call]
        if message is not None and message.queue_name != self.queue_name:
            logger.error("message %s lay on %s and names another queue", message.message_id, self.queue_name)
            self.nack(message)  # type: ignore[no-untyped-call]
            return None
        return message


class CheckedRabbitmqBroker(RabbitmqBroker):
    """RabbitMQ as Dramatiq speaks to it, with what comes in looked at first."""

    @property
    def consumer_class(self) -> type[OwnQueueConsumer]:
        return OwnQueueConsumer

    @property
    def connection(self) -> Any:
        """This thread's connection, opened where there is none."""
        return RabbitmqBroker.connection.fget(self)  # type: ignore[attr-defined]

    @connection.deleter
    def connection(self) -> None:
        """Drop this thread's connection. Dramatiq does that between two of its six tries to send: none follows where
        RabbitMQ blocked the connection, because each would wait for the whole timeout again."""
        RabbitmqBroker.connection.fdel(self)  # type: ignore[attr-defined]
        error = sys.exception()
        if isinstance(error, pika.exceptions.ConnectionBlockedTimeout):
            raise ConnectionClosed(error) from None

    def declarations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each of our queues in RabbitMQ, and the arguments that Dramatiq declares it with."""
        for name in queues.ALL:
            arguments = self._build_queue_arguments(name)  # type: ignore[no-untyped-call]
            yield name, arguments
            yield dq_name(name), arguments
            yield xq_name(name), {"x-message-ttl": DEAD_MESSAGE_TTL}
