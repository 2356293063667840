"""Dramatiq's in-memory broker with RabbitMQ's priorities: what embedded mode and the tests run on."""

from __future__ import annotations

import heapq
import queue
from itertools import count

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.common import dq_name


class PriorityMessages(queue.Queue[bytes]):
    """Encoded messages: the highest `broker_priority` first, and the oldest of those."""

    def _init(self, maxsize: int) -> None:
        self._waiting: list[tuple[int, int, bytes]] = []
        self._order = count()

    def _qsize(self) -> int:
        return len(self._waiting)

    def _put(self, item: bytes) -> None:
        priority = dramatiq.Message.decode(item).options.get("broker_priority") or 0
        heapq.heappush(self._waiting, (-priority, next(self._order), item))

    def _get(self) -> bytes:
        return heapq.heappop(self._waiting)[2]


class InMemoryBroker(StubBroker):
    """A queue is as empty as the process is young: nothing that matters stands in it alone."""

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            super().declare_queue(queue_name)
            self.queues[queue_name] = PriorityMessages()
            self.queues[dq_name(queue_name)] = PriorityMessages()
