"""The system's own processes behind a broker that delivers everything twice, whoever sends it.

`dramatiq tests.chaos.doubling`, `periodiq tests.chaos.doubling`, and for the web `python -m tests.chaos.doubling`.
Each message is published a second time, every tenth of them half a minute late: long after its work is done. What was
doubled is written, a line a copy, to the file that CHAOS_COPIES names: it outlives whoever is killed.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.common import dq_name

import actors
from tests.chaos.copies import note_copy

#: Milliseconds by which a late copy comes.
LATE_MS = 30_000
#: One copy in so many is a late one.
LATE_EVERY = 10


class Doubling(dramatiq.Middleware):
    """Publishes a copy of every message that was enqueued here; copies are marked, or there would be no end."""

    COPY = "chaos_copy"

    def __init__(self) -> None:
        self._number = count(1)
        #: `dramatiq`, `periodiq`, or this file for the web.
        self._sender = Path(sys.argv[0]).stem

    def after_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        if message.options.get(self.COPY) or message.queue_name == dq_name(message.queue_name):
            return
        late = LATE_MS if next(self._number) % LATE_EVERY == 0 else None
        broker.enqueue(message.copy(options={self.COPY: True}), delay=late)
        note_copy(self._sender, message.actor_name)


broker = actors.broker
broker.add_middleware(Doubling())

if __name__ == "__main__":
    from app import main  # the other two import no web

    sys.exit(main())
