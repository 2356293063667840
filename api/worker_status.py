"""The queues' depths, asked of the broker at most once a second however many ask here: they are open to anybody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from api.errors import Unavailable
from api.system import QueueCount, System

#: Seconds an answer, or the lack of one, is shown again. Each new one costs a connection to the broker.
FRESH_SECONDS = 1.0


class Remembered:
    """`ask` for everybody: while one thread asks, the others wait for its answer. Raises what `ask` raised."""

    def __init__(self, ask: Callable[[], Sequence[QueueCount]], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Sequence[QueueCount] = ()
        self._failure: str | None = None
        self._stale_at: float | None = None

    def __call__(self) -> Sequence[QueueCount]:
        with self._lock:
            if self._stale_at is None or self._clock() >= self._stale_at:
                self._renew()
            if self._failure is not None:
                raise RuntimeError(self._failure)
            return self._counts

    def _renew(self) -> None:
        self._failure = None
        try:
            self._counts = self._ask()
        except (RuntimeError, OSError) as error:
            self._failure = str(error)
        self._stale_at = self._clock() + FRESH_SECONDS


def queue_status(system: System) -> Sequence[QueueCount]:
    """For a resolver. Raises Unavailable while the broker does not answer."""
    try:
        return system.queue_counts()
    except (RuntimeError, OSError):
        raise Unavailable("The broker does not answer right now. Nothing is lost.") from None
