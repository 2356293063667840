"""How full the queues are, and whether the broker can be reached."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any

import dramatiq
import pika
import pika.exceptions
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import dq_name, xq_name

import embedded_lock
import row_counts
import settings
from actors import queues
from actors.dispatching import EMBEDDED_THREADS
from actors.messages import CheckedRabbitmqBroker
from models import FetchState, SyncState
from rabbitmq import why_no_connection

#: Seconds until a broker that does not answer counts as unreachable.
CONNECT_TIMEOUT = 3.0
#: Seconds that a blocked connection is waited for: a look must not take long.
BLOCKED_TIMEOUT = 1.0
#: A routing key that no queue has.
PROBE = "killmail-sync.no-queue"
#: AMQP's reply code for a queue that is declared with other arguments.
PRECONDITION_FAILED = 406


@dataclass(frozen=True, slots=True)
class QueueCount:
    """One queue: messages ready, delayed and dead, and who consumes it."""

    queue_name: str
    message_count: int
    consumer_count: int
    delayed_count: int
    dead_count: int


class BrokerUnreachable(RuntimeError):
    """The broker does not answer; the text says why, without its address. `state` is one word for /readyz."""

    state = "unreachable"


class PublishingBlocked(BrokerUnreachable):
    """RabbitMQ answers, and takes no messages."""

    state = "blocked"

    def __init__(self) -> None:
        super().__init__(
            "RabbitMQ takes no messages: it is short of memory or disk (`rabbitmq-diagnostics alarms` says which)"
        )


class QueueRefused(BrokerUnreachable):
    """A queue of ours was declared by another program, or another version, with other arguments."""

    state = "queue refused"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"RabbitMQ's queue {name} has other arguments than this version's, so no worker can use it: delete it "
            f"(`rabbitmqctl delete_queue {name}`, with `-p` and the virtual host); nothing is lost, because the "
            "database has all work"
        )


def queue_counts() -> list[QueueCount]:
    """Depth, consumers, delayed and dead-lettered messages of every queue. Raises BrokerUnreachable."""
    broker = dramatiq.get_broker()
    return _rabbitmq_counts(broker) if isinstance(broker, RabbitmqBroker) else _embedded_counts()


def messages_in(queue_name: str) -> int:
    """How many messages stand in one queue, delayed ones not included. Raises BrokerUnreachable."""
    broker = dramatiq.get_broker()
    if not isinstance(broker, RabbitmqBroker):
        queue: Any = broker.queues[queue_name]
        # Those that a worker of this process holds are counted as well: they are not lost.
        return int(queue.unfinished_tasks)
    connection = connect(broker)
    try:
        return _passive(connection, queue_name)[0]
    except pika.exceptions.AMQPError as error:
        raise BrokerUnreachable(f"RabbitMQ broke off ({type(error).__name__})") from None
    finally:
        if connection.is_open:
            connection.close()


def check_broker() -> None:
    """Whether messages can be sent: declares our queues, and publishes one message to no queue.

    Raises BrokerUnreachable, PublishingBlocked or QueueRefused.
    """
    broker = dramatiq.get_broker()
    if not isinstance(broker, CheckedRabbitmqBroker):
        return
    connection = connect(broker, BLOCKED_TIMEOUT)
    try:
        _declare(connection, broker)
        channel = connection.channel()
        channel.confirm_delivery()
        # RabbitMQ says only to those who publish that it takes no messages. What goes to no queue is dropped.
        channel.basic_publish("", PROBE, b"")
        connection.close()  # waits for RabbitMQ: it may have taken the one message before it blocked us
    except pika.exceptions.ConnectionBlockedTimeout:
        raise PublishingBlocked from None
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BrokerUnreachable(_broke_off(error)) from None
    finally:
        with suppress(pika.exceptions.AMQPError, OSError):
            if connection.is_open:
                connection.close()


def _declare(connection: pika.BlockingConnection, broker: CheckedRabbitmqBroker) -> None:
    """Raises QueueRefused. A queue that is not there yet is made, as its first user would."""
    channel = connection.channel()
    for name, arguments in broker.declarations():
        try:
            channel.queue_declare(name, durable=True, arguments=arguments)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != PRECONDITION_FAILED:
                raise
            raise QueueRefused(name) from None


def connect(rabbitmq: RabbitmqBroker, blocked_timeout: float = CONNECT_TIMEOUT) -> pika.BlockingConnection:
    """A connection of the caller's own, to be closed by it. Raises BrokerUnreachable."""
    # A connection of its own: the broker's belong to the threads that send.
    parameters: Any = copy(rabbitmq.parameters)
    parameters.socket_timeout = CONNECT_TIMEOUT
    parameters.blocked_connection_timeout = blocked_timeout
    try:
        return pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BrokerUnreachable(why_no_connection(error)) from None


def _rabbitmq_counts(rabbitmq: RabbitmqBroker) -> list[QueueCount]:
    connection = connect(rabbitmq)
    try:
        return [
            QueueCount(
                name,
                *_passive(connection, name),
                delayed_count=_passive(connection, dq_name(name))[0],
                dead_count=_passive(connection, xq_name(name))[0],
            )
            for name in queues.ALL
        ]
    except pika.exceptions.AMQPError as error:
        raise BrokerUnreachable(_broke_off(error)) from None
    finally:
        if connection.is_open:
            connection.close()


def _broke_off(error: Exception) -> str:
    return f"RabbitMQ broke off ({type(error).__name__})"


def _passive(connection: pika.BlockingConnection, name: str) -> tuple[int, int]:
    """Messages and consumers; a queue that nobody declared yet is empty."""
    channel = connection.channel()
    try:
        frame = channel.queue_declare(name, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return 0, 0
    channel.close()
    return frame.method.message_count, frame.method.consumer_count


def _embedded_counts() -> list[QueueCount]:
    """One process: what is under way is in the tables, also when the asking process is another one. Of more than
    10,000 rows as the tick counted them last, up to a minute ago."""
    counts = row_counts.read((row_counts.ACTIVE_SYNCS, row_counts.LEDGER))
    syncs, ledger = counts[row_counts.ACTIVE_SYNCS.name], counts[row_counts.LEDGER.name]
    threads = EMBEDDED_THREADS if embedded_lock.is_held(settings.current().database_url) else 0
    return [
        QueueCount(queues.SYNCS, syncs.of(SyncState.QUEUED, SyncState.LISTING), threads, 0, 0),
        QueueCount(
            queues.KILLMAILS,
            ledger.of(FetchState.SENT, FetchState.FETCHING),
            threads,
            ledger.of(FetchState.DEFERRED),
            ledger.of(FetchState.REJECTED),
        ),
        QueueCount(queues.NAMES, 0, threads, 0, 0),
        QueueCount(queues.MAINTENANCE, 0, threads, 0, 0),
    ]
