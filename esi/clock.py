"""The database's clock, as a process sees it: several machines agree on it, and it costs no statement to ask.

The invariant: the translation between the database's time and this process's monotonic clock comes from the statement
that took least time of the last few seconds, so that neither a wait for a lock nor a busy interpreter distorts it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

#: Seconds after which an observation is replaced by a worse one: the database's clock may have been set.
OBSERVATION_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Observation:
    offset: float  # the database's time minus the monotonic clock's
    uncertainty: float
    at: float  # monotonic


class DatabaseClock:
    """Seconds since the epoch as the database counts them. Shared by the threads of a process."""

    def __init__(self) -> None:
        self._best: _Observation | None = None

    def observe(self, sent: float, epoch: float, received: float) -> None:
        """The database said `epoch` somewhere between two moments of `time.monotonic()`."""
        best, uncertainty = self._best, received - sent
        if best is None or uncertainty <= best.uncertainty or received > best.at + OBSERVATION_SECONDS:
            self._best = _Observation(epoch - (sent + received) / 2, uncertainty, received)

    def now(self) -> float:
        """The database's time. Before anything was observed, this machine's."""
        return time.time() if self._best is None else time.monotonic() + self._best.offset
