"""Dead letters: messages that no actor could take, or whose actor ended in an error nobody expected.

They wait in `<queue>.XQ` for seven days. Nothing is lost with one: what it meant is in the ledger, and the tick sends
it again. Looking at them tells what went wrong; sending them again is safe, for every actor is idempotent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dramatiq
import pika
import pika.exceptions
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import current_millis, xq_name
from dramatiq.errors import BrokerConnectionError, DecodeError

from actors import queues
from actors.counts import BrokerUnreachable, connect
from actors.expired import SENT_AT
from database import from_epoch

#: Dead letters looked at in one go.
MOST = 10_000
#: Options that belong to the failed run, not to the message.
SPENT_OPTIONS = ("traceback", "retries", "requeue_timestamp", "eta", SENT_AT)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message. Without an `actor` it cannot be read, and is nothing that could be sent again."""

    queue_name: str
    actor: str | None
    arguments: tuple[Any, ...]
    sent_at: datetime | None
    error: str


def dead_letters() -> list[DeadLetter]:
    """What lies in the dead-letter queues; it stays there. Raises BrokerUnreachable; empty in embedded mode."""
    found = []
    with _channel() as channel:
        for queue_name in queues.ALL if channel is not None else ():
            for _, body in _messages(channel, queue_name):
                found.append(_read(queue_name, body))
        # Closing the channel gives back whatever was not acknowledged: all of it.
    return found


def replay() -> tuple[int, int]:
    """Send every readable dead letter again; returns how many were sent and how many stay because nobody can read them.

    Each is taken from its queue only when the broker has it again. Raises BrokerUnreachable.
    """
    sent = unreadable = 0
    broker = dramatiq.get_broker()
    with _channel() as channel:
        for queue_name in queues.ALL if channel is not None else ():
            for tag, body in _messages(channel, queue_name):
                message = _decode(body)
                if message is None or message.actor_name not in broker.get_declared_actors():
                    unreadable += 1
                    continue
                options = {name: value for name, value in message.options.items() if name not in SPENT_OPTIONS}
                if not _can_be_sent(options):
                    unreadable += 1
                    continue
                # Dated now: as old as it is, it would be skipped.
                changes = {"queue_name": queue_name, "options": options, "message_timestamp": current_millis()}
                broker.enqueue(dramatiq.Message(**{**message.asdict(), **changes}))
                channel.basic_ack(tag)
                sent += 1
    return sent, unreadable


def _can_be_sent(options: dict[str, Any]) -> bool:
    """Whether RabbitMQ's client takes the priority that a stranger wrote."""
    priority = options.get("broker_priority")
    return priority is None or (type(priority) is int and 0 <= priority <= queues.MAX_PRIORITY)


@contextmanager
def _channel() -> Iterator[Any]:
    broker = dramatiq.get_broker()
    if not isinstance(broker, RabbitmqBroker):
        yield None
        return
    connection = connect(broker)
    try:
        yield connection.channel()
    except (pika.exceptions.AMQPError, BrokerConnectionError) as error:  # of reading, and of sending again
        raise BrokerUnreachable(f"RabbitMQ broke off ({type(error).__name__})") from None
    finally:
        if connection.is_open:
            connection.close()


def _messages(channel: Any, queue_name: str) -> Iterator[tuple[int, bytes]]:
    """What lies in one dead-letter queue now, unacknowledged. A queue that nobody declared yet holds nothing."""
    probe = channel.connection.channel()
    try:
        count = probe.queue_declare(xq_name(queue_name), passive=True).method.message_count
    except pika.exceptions.ChannelClosedByBroker:
        return
    probe.close()
    for _ in range(min(count, MOST)):
        frame, _, body = channel.basic_get(xq_name(queue_name))
        if frame is None:
            return
        yield frame.delivery_tag, body


def _read(queue_name: str, body: bytes) -> DeadLetter:
    message = _decode(body)
    if message is None:
        return DeadLetter(queue_name, None, (), None, f"{len(body)} bytes that are no message")
    known = message.actor_name in dramatiq.get_broker().get_declared_actors()
    reason = "its actor failed; the log of that time says why" if known else "no actor of this name"
    traceback = str(message.options.get("traceback") or "")
    error = _exception(traceback) or reason
    actor = _printable(message.actor_name)
    return DeadLetter(queue_name, actor, tuple(message.args), _sent_at(message), _printable(error[:200]))


def _printable(text: str) -> str:
    """What a stranger wrote, fit for a terminal: no escape sequences, and nothing that cannot be encoded."""
    return text if text.isprintable() else ascii(text)


def _sent_at(message: dramatiq.Message[Any]) -> datetime | None:
    try:
        return from_epoch(message.message_timestamp / 1000)
    except (ValueError, OverflowError, OSError):  # no time that there is: somebody else's unit
        return None


def _exception(traceback: str) -> str:
    """The first line of a traceback's last exception: a database's error goes on with the statement, and a caret."""
    lines = traceback.splitlines()
    last_frame = max((n for n, line in enumerate(lines) if line.startswith("  File ")), default=-1)
    return next((line.strip() for line in lines[last_frame + 1 :] if line.strip() and not line.startswith(" ")), "")


def _decode(body: bytes) -> dramatiq.Message[Any] | None:
    try:
        message = dramatiq.Message.decode(body)
    except DecodeError:
        return None
    well_formed = isinstance(message.actor_name, str) and isinstance(message.message_timestamp, int | float)
    return message if well_formed and isinstance(message.options, dict) else None
