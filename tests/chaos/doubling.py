"""`dramatiq tests.chaos.doubling`: the system's own workers behind a broker that delivers everything twice.

Each message is published a second time, every tenth of them half a minute late: long after its work is done.
"""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq.common import dq_name

import actors

#: Milliseconds by which a late copy comes.
LATE_MS = 30_000
#: One copy in so many is a late one.
LATE_EVERY = 10


class Doubling(dramatiq.Middleware):
    """Publishes a copy of every message that was enqueued here; copies are marked, or there would be no end."""

    COPY = "chaos_copy"

    def __init__(self) -> None:
        self._count = 0

    def after_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        if message.options.get(self.COPY) or message.queue_name == dq_name(message.queue_name):
            return
        self._count += 1
        late = LATE_MS if self._count % LATE_EVERY == 0 else None
        broker.enqueue(message.copy(options={self.COPY: True}), delay=late)


broker = actors.broker
broker.add_middleware(Doubling())
