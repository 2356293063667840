"""The state of the whole system for its operator, and for anyone: counts, budgets and gates, no user and no killmail.

The page is public, so the state is read at most once every few seconds, and reading costs the same however many pilots
and killmails there are (`row_counts.py`, `esi/bucket_states.py`). A broker that does not answer is itself an answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flask import current_app

import row_counts
from api.system import QueueCount, Road, System
from database import from_epoch, utcnow
from esi.rate_limit import CHAR_KILLMAIL, ERRORS, KILLMAIL, STATUS
from row_counts import Count

#: Seconds an answer is shown again.
FRESH_SECONDS = 3.0
EXTENSION = "killmail-sync.operations"
#: The queue whose consumers are counted as workers: each worker process listens to it once.
WORK_QUEUE = "esi_killmail_details_queue"
#: What a group is for, and whose its buckets are.
_SUBJECTS = {
    KILLMAIL.name: "killmails, of this address",
    CHAR_KILLMAIL.name: "lists, of each character",
    STATUS.name: "ESI's state, of this address",
    ERRORS.name: "errors, of this address",
}


@dataclass(frozen=True, slots=True)
class Budget:
    """The buckets of one of ESI's groups: one for this address, or one for each character, of which nothing is told
    but how many they are, how many of them are `closed`, and how it stands with the emptiest.

    Tokens return `window_minutes` after they were spent: the emptiest has more at `more_at`, and all are full at
    `full_at`; None: they are. Where there are too many buckets to look at each, all but their number is true of
    `sampled` of them; `more_buckets`: they were not even counted to the end.
    """

    name: str
    subject: str
    buckets: int
    closed: int
    allowance: int
    remaining: int
    window_minutes: float
    more_at: datetime | None
    full_at: datetime | None
    closed_until: datetime | None
    sampled: int = 0
    more_buckets: bool = False


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that is closed."""

    name: str
    closed_until: datetime
    reason: str | None


@dataclass(frozen=True, slots=True)
class Operations:
    """`queues` is None, and `workers` with it, while the broker does not answer."""

    at: datetime
    embedded: bool
    queues: Sequence[QueueCount] | None
    budgets: Sequence[Budget]
    gates: Sequence[Gate]
    killmails: Count
    ledger: Count
    syncs: Count
    users: Count
    names_unknown: Count

    @property
    def workers(self) -> int | None:
        if self.queues is None:
            return None
        return next((queue.consumer_count for queue in self.queues if queue.queue_name == WORK_QUEUE), 0)


class Remembered:
    """The last reading, of one app."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._lock = threading.Lock()
        self._reading: Operations | None = None
        self._stale_at = 0.0

    def __call__(self) -> Operations:
        with self._lock:
            if self._reading is None or time.monotonic() >= self._stale_at:
                self._reading = read(self._system)
                self._stale_at = time.monotonic() + FRESH_SECONDS
            return self._reading


def of_this_app(system: System) -> Operations:
    """For a page."""
    remembered: Remembered = current_app.extensions.setdefault(EXTENSION, Remembered(system))
    return remembered()


def read(system: System) -> Operations:
    """Everything, now."""
    roads = system.roads()
    counts = row_counts.read()
    users = counts["users"]
    return Operations(
        at=utcnow(),
        embedded=system.settings.embedded,
        queues=_queues(system),
        budgets=_budgets(roads),
        gates=[
            Gate(road.name, from_epoch(road.closed_until), road.reason)
            for road in roads
            if road.allowance is None and road.closed_until is not None
        ],
        killmails=counts["killmails"],
        ledger=counts["ledger"],
        syncs=counts["active syncs"],
        users=replace(users, rows={_words(label): number for label, number in users.rows.items()}),
        names_unknown=counts["unknown names"],
    )


def _queues(system: System) -> Sequence[QueueCount] | None:
    try:
        return system.queue_counts()
    except (RuntimeError, OSError):
        return None


def _budgets(roads: Sequence[Road]) -> list[Budget]:
    return [
        Budget(
            name=road.name,
            subject=_SUBJECTS.get(road.name, ""),
            buckets=road.buckets,
            closed=road.closed,
            allowance=road.allowance,
            remaining=road.remaining or 0,
            window_minutes=road.window_seconds / 60,
            more_at=_time(road.more_at),
            full_at=_time(road.full_at),
            closed_until=_time(road.closed_until),
            sampled=road.sampled,
            more_buckets=road.more_buckets,
        )
        for road in roads
        if road.allowance is not None
    ]


def _time(at: float | None) -> datetime | None:
    return None if at is None else from_epoch(at)


def _words(label: str) -> str:
    """`NEEDS_LOGIN` as a reader wants it."""
    return label.lower().replace("_", " ")
