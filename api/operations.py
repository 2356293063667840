"""The state of the whole system for its operator, and for anybody: counts, budgets and gates, no user and no killmail.

Whatever it takes to answer is done at most once every few seconds, because the page is open. A broker that does not
answer is itself an answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flask import current_app

from accounts import TOKEN_STATE_SQL
from api.system import QueueCount, Road, System
from database import execute, from_epoch, utcnow
from esi import rate_store

#: Seconds an answer is shown again.
FRESH_SECONDS = 3.0
EXTENSION = "killmail-sync.operations"
#: The queue whose consumers are counted as workers: each worker process listens to it once.
WORK_QUEUE = "esi_killmail_details_queue"


@dataclass(frozen=True, slots=True)
class Budget:
    """The emptiest bucket of one of ESI's groups. Tokens return `window_minutes` after they were spent."""

    name: str
    allowance: int
    remaining: int
    window_minutes: float
    full_at: datetime | None
    closed_until: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Gate:
    """A closed road."""

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
    killmails: int
    ledger: dict[str, int]
    syncs: dict[str, int]
    users: dict[str, int]
    names_unknown: int

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
        killmails=execute("SELECT COUNT(*) FROM killmails").fetchone()[0],
        ledger=_counts("SELECT state, COUNT(*) FROM ledger GROUP BY state"),
        syncs=_counts("SELECT state, COUNT(*) FROM syncs WHERE finished_at IS NULL GROUP BY state"),
        users=_counts(f"SELECT REPLACE(LOWER({TOKEN_STATE_SQL}), '_', ' '), COUNT(*) FROM users GROUP BY 1"),
        names_unknown=execute("SELECT COUNT(*) FROM names WHERE name IS NULL").fetchone()[0],
    )


def _queues(system: System) -> Sequence[QueueCount] | None:
    try:
        return system.queue_counts()
    except (RuntimeError, OSError):
        return None


def _budgets(roads: Sequence[Road]) -> list[Budget]:
    full_at = _full_at()
    return [
        Budget(
            name=road.name,
            allowance=road.allowance,
            remaining=road.remaining or 0,
            window_minutes=full_at.get(road.name, (0.0, None))[0],
            full_at=full_at.get(road.name, (0.0, None))[1],
            closed_until=None if road.closed_until is None else from_epoch(road.closed_until),
            reason=road.reason,
        )
        for road in roads
        if road.allowance is not None
    ]


def _full_at() -> dict[str, tuple[float, datetime | None]]:
    """Group to its window in minutes, and the time at which all of its buckets are full again; None: they are."""
    now = time.time()
    groups: dict[str, tuple[float, datetime | None]] = {}
    for key, bucket in rate_store.buckets():
        name = key.partition(":")[0]
        at = bucket.reopens_at(now, bucket.allowance)
        full_at = from_epoch(at) if at > now else None
        _, other = groups.get(name, (0.0, None))
        latest = max((each for each in (full_at, other) if each is not None), default=None)
        groups[name] = (bucket.window_seconds / 60, latest)
    return groups


def _counts(statement: str) -> dict[str, int]:
    return dict(execute(statement).fetchall())
