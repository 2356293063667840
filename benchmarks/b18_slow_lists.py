"""B18: the lists of 100,000 linked users are due, and ESI takes 8 s for each answer: how many messages RabbitMQ holds.

Two processes of eight threads read two lists a second, so that the scheduler finds far more users due than are ever
read. The messages of all queues are counted every half second, those that wait for a delay included; those that
workers hold already are not in RabbitMQ's count, and are read from the rows of syncs. Neither may ever exceed two
windows. The pilots whose lists come first are the simulator's, with tokens; the others are rows, and are not reached.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pika
import pika.exceptions
from dramatiq.common import dq_name

from actors import queues
from benchmarks import bulk, linked
from benchmarks.b05_nothing_new import QUEUE_DUE_USERS
from benchmarks.harness import OPEN_BUCKETS, Cluster, send, system
from benchmarks.report import Figure, Report, run
from database import utcnow
from tests import rabbitmq

USERS = 100_000
#: Pilots with tokens: more than two lists a second read in the longest form.
READABLE = 1_500
LATENCY_MS = "8000-8000"
#: Seconds between two counts, and between two looks for due users (the scheduler's own come every few minutes).
EVERY, LOOK_EVERY = 0.5, 15.0
WINDOWS = 2
#: Syncs whose messages are out.
OUT = "SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL AND sent_at IS NOT NULL"
LISTED = "SELECT COUNT(*) FROM syncs WHERE finished_at IS NOT NULL"
OPENED = "SELECT COUNT(*) FROM syncs"


def measure(quick: bool) -> Report:
    everyone, seconds = (20_000, 75.0) if quick else (USERS, 600.0)
    tokens = ("--token-seconds", str(linked.TOKEN_SECONDS))
    readable = READABLE // 5 if quick else READABLE
    with system("--pilots", str(readable), "--killmails-count", "0", *tokens, *OPEN_BUCKETS) as made:
        linked.users(made, utcnow() - timedelta(hours=1))  # longest due, and so read first
        bulk.users(everyone - readable, everyone - readable)
        made.simulated.post("settings", {"latency_ms": LATENCY_MS})
        made.start_scheduler()
        made.start_workers(processes=2, threads=8)
        with queue_counts() as count:
            counted = watch(made, count, seconds)
        opened, read = int(made.scalar(OPENED)), int(made.scalar(LISTED))
        window = window_of(made)
    if opened < 4 * window or not read:
        raise RuntimeError(f"void: {opened} syncs were opened and {read} lists read")
    bound = float(WINDOWS * window)
    return Report(
        [
            Figure("messages in RabbitMQ, most", max(messages for messages, _ in counted), bound),
            Figure("syncs with a message out, most", max(out for _, out in counted), bound),
            Figure("syncs opened", opened),
            Figure("lists read", read),
        ],
        {"users": everyone, "seconds": seconds, "window": window, "counts": len(counted)},
    )


def window_of(made: Cluster) -> int:
    """The system's own window: it depends on its settings, which are not this process's."""
    asked = made.processes.run([sys.executable, "-c", "from actors.dispatching import window; print(window())"])
    return int(asked.stdout)


def watch(made: Cluster, count: Counter, seconds: float) -> list[tuple[float, float]]:
    """Messages in RabbitMQ, and syncs whose message is out, again and again for so long."""
    counted = []
    began, looked_at = time.monotonic(), float("-inf")
    while (now := time.monotonic()) < began + seconds:
        if now >= looked_at + LOOK_EVERY:
            send(made, QUEUE_DUE_USERS)
            looked_at = now
        counted.append((float(count.messages()), float(made.scalar(OUT))))
        time.sleep(EVERY)
    return counted


class Counter:
    """Counts the messages in all queues of this run's virtual host, by passive declarations on one connection."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection

    def messages(self) -> int:
        """Messages that are ready, and messages that wait for a delay."""
        return sum(self._in(name) for queue in queues.ALL for name in (queue, dq_name(queue)))

    def _in(self, name: str) -> int:
        channel = self._connection.channel()
        try:
            frame = channel.queue_declare(name, passive=True)
        except pika.exceptions.ChannelClosedByBroker:  # no process has declared it yet
            return 0
        channel.close()
        return int(frame.method.message_count)


@contextmanager
def queue_counts() -> Iterator[Counter]:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address()))
    try:
        yield Counter(connection)
    finally:
        connection.close()


if __name__ == "__main__":
    run("B18", "a hundred thousand lists due while ESI is slow", measure)
