"""The real worker on the real in-memory broker, run until there is nothing to do and then stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import Worker

from tests.actors.post import Post, fresh_queues

#: Seconds after which a drain that does not come to an end is a failure of the test.
LIMIT_SECONDS = 20.0


@dataclass
class Crew:
    """Runs what is in the queues. Between two runs no thread of a worker is alive, so a test may look around in peace.

    Messages whose time has not come when a run ends are forgotten, as in a process that ends.
    """

    broker: StubBroker

    def drain(self, threads: int = 1) -> None:
        """Until every queue is empty and every message has been dealt with. Delayed ones are not waited for."""
        self.until(self._is_idle, threads)

    def until(self, condition: Callable[[], object], threads: int = 1, seconds: float = LIMIT_SECONDS) -> None:
        """Until the condition holds and nothing is in hand; fails the test if that takes longer than the limit."""
        middleware = list(self.broker.middleware)
        worker = Worker(self.broker, worker_threads=threads, worker_timeout=10)
        worker.start()
        try:
            deadline = time.monotonic() + seconds
            while not (condition() and self._is_idle()):
                assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {self._waiting()}"
                time.sleep(0.005)
        finally:
            worker.stop(timeout=10_000)
            self.broker.middleware[:] = middleware
            for queue in self.broker.queues.values():
                # Dramatiq counts a message twice that a stopping worker hands back: a delayed one that has just come.
                queue.unfinished_tasks = queue.qsize()

    def stop_when(self, condition: Callable[[], object], post: Post, seconds: float = LIMIT_SECONDS) -> None:
        """Tell the worker to stop in the middle of its work, as soon as the condition holds. Its process ends, and with
        it what stood in the queues."""
        middleware = list(self.broker.middleware)
        worker = Worker(self.broker, worker_threads=1, worker_timeout=10)
        worker.start()
        try:
            deadline = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {self._waiting()}"
                time.sleep(0.005)
        finally:
            worker.stop(timeout=10_000)
            self.broker.middleware[:] = middleware
            fresh_queues(self.broker, post)

    @property
    def dead(self) -> list[str]:
        """The actors of messages that failed for good, and why."""
        return [f"{message.actor_name}: {message._exception!r}" for message in self.broker.dead_letters]

    def _is_idle(self) -> bool:
        return not any(queue.unfinished_tasks for name, queue in self.broker.queues.items() if ".DQ" not in name)

    def _waiting(self) -> dict[str, int]:
        return {name: queue.unfinished_tasks for name, queue in self.broker.queues.items() if queue.unfinished_tasks}
