"""The database's clock, as this process estimates it: all machines measure leases, ages and due times by one clock.

The invariant: reading it costs no statement. The offset between the database's clock and this process's monotonic
clock comes from the statement that narrowed it down most, so that neither a wait for a lock nor a busy interpreter
distorts it; a statement that contradicts it means that one of the two clocks was set, and is followed at once.
SQLite has no clock of its own: nothing is observed there, and this machine's clock is used.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from dataclasses import dataclass
from datetime import timedelta

logger = logging.getLogger(__name__)

#: What the clocks of two machines may differ by where both must be read: the age of a message, which is dated by the
#: machine that sent it; a stored time that lies ahead because the database's clock was set back.
CLOCKS_APART = timedelta(minutes=5)
#: Seconds per second by which two clocks may drift apart: the fastest at which NTP slews a clock (adjtimex(2)).
DRIFT = 500e-6
#: Seconds after which an offset is to be checked again: a database clock that was set is followed within this time.
OBSERVE_EVERY_SECONDS = 10.0
#: Seconds by which this machine's clock may differ from the database's without a warning.
SKEW_WARNING_SECONDS = 1.0
#: Seconds between this machine's two clocks that mean one was set, or the machine was suspended.
SET_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Observation:
    offset: float  # the database's time minus this process's monotonic clock, in seconds
    error: float  # the offset is wrong by this many seconds at most
    at: float  # monotonic

    def error_at(self, moment: float) -> float:
        """The largest error at a later monotonic moment: both clocks drift."""
        return self.error + DRIFT * max(0.0, moment - self.at)


class DatabaseClock:
    """Seconds since the epoch as the database counts them. Shared by the threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._best: _Observation | None = None
        self._looked_at: float | None = None  # monotonic: when a thread last took it on itself to look
        self._looked_wall = 0.0
        self._warned = False

    def now(self) -> float:
        """The database's time. Before anything was observed, this machine's."""
        best = self._best
        return time.time() if best is None else time.monotonic() + best.offset

    def skew(self) -> float:
        """Seconds by which this machine's clock is ahead of the database's. 0 before anything was observed."""
        best = self._best
        return 0.0 if best is None else _wall_offset()[0] - best.offset

    def observe(self, sent: float, epoch: float, received: float) -> None:
        """The database said `epoch` at some moment between two of `time.monotonic()`."""
        seen = _Observation(epoch - (sent + received) / 2, (received - sent) / 2, received)
        wall_offset, wall_error = _wall_offset()
        with self._lock:
            self._looked_at, self._looked_wall = received, wall_offset
            if self._best is None or self._is_better(seen, self._best):
                self._best = seen
        self._warn(wall_offset - seen.offset, seen.error + wall_error)

    def should_observe(self) -> bool:
        """Whether the caller is to observe now. Asks one thread at a time, and all of them before the first time."""
        moment, (wall_offset, _) = time.monotonic(), _wall_offset()
        with self._lock:
            if self._best is not None and self._looked_at is not None:
                was_set = abs(wall_offset - self._looked_wall) > SET_SECONDS
                if not was_set and moment < self._looked_at + OBSERVE_EVERY_SECONDS:
                    return False
            self._looked_at, self._looked_wall = moment, wall_offset
            return True

    def forget(self) -> None:
        """Another database is connected: what is known of the last one's clock says nothing about it."""
        with self._lock:
            self._best, self._looked_at, self._warned = None, None, False

    @staticmethod
    def _is_better(seen: _Observation, best: _Observation) -> bool:
        """It is more exact, or the two cannot both be true: a clock was set."""
        error = best.error_at(seen.at)
        return seen.error <= error or abs(seen.offset - best.offset) > seen.error + error

    def _warn(self, skew: float, error: float) -> None:
        """One line when this machine's clock is wrong by the database's, and another only after it was right again."""
        if abs(skew) - error <= SKEW_WARNING_SECONDS:
            if abs(skew) + error <= SKEW_WARNING_SECONDS:
                self._warned = False
            return
        with self._lock:
            if self._warned:
                return
            self._warned = True
        logger.warning(
            "the clock of machine %s is %.1f s %s the database's: leases and due times follow the database's; "
            "check NTP on both machines",
            socket.gethostname(),
            abs(skew),
            "ahead of" if skew > 0 else "behind",
        )


def _wall_offset() -> tuple[float, float]:
    """This machine's time minus its monotonic clock, and by how many seconds that may be wrong."""
    before = time.monotonic()
    wall = time.time()
    after = time.monotonic()
    return wall - (before + after) / 2, (after - before) / 2
