"""Send a message, from whichever thread. A broker that is down costs nothing: the row is there, and the tick sends it.

RabbitMQ's client opens one connection a thread and keeps those of dead threads. A process with many short-lived threads
(the web) calls `through_one_thread` once, and then all its messages leave through one connection.
"""

from __future__ import annotations

import logging
import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import dramatiq
from dramatiq.errors import BrokerError

from database import db

logger = logging.getLogger(__name__)

#: Seconds a request waits for the broker to take its message before it leaves it to the background.
PATIENCE_SECONDS = 2.0

_publisher: ThreadPoolExecutor | None = None


def through_one_thread() -> None:
    """From now on this process publishes from a thread of its own."""
    global _publisher
    if _publisher is None:
        _publisher = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")


def send(
    actor: dramatiq.Actor[Any, Any],
    *args: int,
    priority: int | None = None,
    delay_seconds: float | None = None,
    **options: Any,
) -> bool:
    """Send one message; False where the broker did not take it (or not yet).

    Raises RuntimeError within a transaction: a worker might take it up before the commit, or for what is rolled back.
    """
    if db.in_transaction():
        raise RuntimeError("a message is sent after the commit, not before")
    if priority is not None:
        options["broker_priority"] = priority
    delay = None if delay_seconds is None else max(0, math.ceil(delay_seconds * 1000))
    message = actor.message_with_options(args=args, **options)
    if _publisher is None:
        return _enqueue(message, delay)
    future: Future[bool] = _publisher.submit(_enqueue, message, delay)
    try:
        return future.result(timeout=PATIENCE_SECONDS)
    except TimeoutError:
        return False


def _enqueue(message: dramatiq.Message[Any], delay: int | None) -> bool:
    try:
        dramatiq.get_broker().enqueue(message, delay=delay)
    except (BrokerError, OSError) as error:
        logger.warning("broker did not take %s; the tick will send it: %s", message.actor_name, type(error).__name__)
        return False
    return True
