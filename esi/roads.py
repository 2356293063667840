"""Roads to ESI that may be closed, and why: the words for pilots and for the log.

A road is a bucket (`killmail:ip`) or a gate: a row of `gates` that closes a group of routes, or all of them. The
invariant: of every closing there is one line in the log, and one when the same process finds the road open again.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from esi.rate_limit import ERRORS, RateGroup, back_off
from esi.rate_store import Gate, View

logger = logging.getLogger(__name__)

#: Gates over all routes. A gate named for a group (`killmail`) closes that group's routes.
DOWNTIME = "downtime"
ERROR_LIMIT = "error-limit"

USED_UP = "ESI's allowance is used up"
DOWN = "ESI is down"
TOO_MANY_ERRORS = "ESI reported too many errors and asks everybody to wait"
OUR_ERRORS = "ESI gave so many errors that asking on could reach its error limit"
TOLD_TO_WAIT = "ESI asks us to wait"
CROWDED = "other requests to ESI go first"

#: Seconds after its time within which a road that is closed again was never open.
STILL_CLOSED_SECONDS = 60.0
#: 502, 503, 504 or silence in a row, over all processes, that mean downtime and no accident.
DOWNTIME_FAILURES = 5
#: What a failed try counts for where the same request had failed before, and nothing has succeeded since: a killmail
#: that is alone finds a downtime out before its tries are used up (`ledger/rules.py`).
FAILED_AGAIN = 2
#: Seconds without an answer that are silence. A connection that breaks sooner is an accident.
SILENCE_SECONDS = 5.0
#: Seconds between two probes of a road that is down: ESI's daily restart takes a few minutes.
FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS = 15.0, 60.0


class Closed(Exception):
    """No request may be made now. `until`: when to ask again (seconds since the epoch). `reason`: for the pilot.

    Nothing failed: who gets this puts the work back and spends no attempt on it. `road`: which one is closed.
    """

    def __init__(self, until: float, reason: str, road: str) -> None:
        super().__init__(reason)
        self.until = until
        self.reason = reason
        self.road = road


def closed_gate(view: View, group: RateGroup) -> Closed | None:
    """The gate that keeps the group's requests back longest, or None where none does."""
    on_the_way = ((name, view.gates.get(name)) for name in (DOWNTIME, ERROR_LIMIT, group.name))
    closed = [(gate, name) for name, gate in on_the_way if gate is not None and gate.closed_until > view.now]
    # Killmails and their lists go on where names have met too many that nobody knows.
    reserve = 0 if group.bucketed else ERRORS.allowance // 2
    if not view.errors.allows(view.now, ERRORS.cost, reserve):
        closed.append((Gate(view.errors.reopens_at(view.now, ERRORS.cost, reserve), OUR_ERRORS, 0), ERRORS.name))
    if not closed:
        return None
    gate, name = max(closed, key=lambda pair: pair[0].closed_until)
    return Closed(gate.closed_until, gate.reason, name)


def is_down(gate: Gate | None) -> bool:
    """Whether whoever goes next is a probe: nothing has succeeded since ESI was found to be down."""
    return gate is not None and gate.failures >= DOWNTIME_FAILURES


def probe_pause(failures: int) -> float:
    """Seconds until the next probe after so many failures in a row."""
    return back_off(FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS, failures - DOWNTIME_FAILURES)


class RoadLog:
    """Tells of closings and openings once each. Shared by the threads of a process."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def closed(self, road: str, now: float, until: float, reason: str) -> None:
        """A road was closed, or closed again by who tried whether it is open: that is no news."""
        with self._lock:
            known = self._until.get(road, 0.0)
            self._until[road] = max(known, until)
        if known <= now - STILL_CLOSED_SECONDS:
            opens = datetime.fromtimestamp(until, UTC).strftime("%H:%M:%S")
            logger.warning("%s: closed until %s UTC: %s", road, opens, reason)

    def opened(self, road: str) -> None:
        """A request found the road open again."""
        with self._lock:
            self._until.pop(road, None)
        logger.info("%s: open again", road)

    def passed(self, now: float) -> None:
        """A request is on its way: gates whose time has come are open again."""
        if not self._until:
            return
        with self._lock:
            over = [road for road, until in self._until.items() if until <= now and _opens_by_itself(road)]
        for road in over:
            self.opened(road)


def _opens_by_itself(road: str) -> bool:
    """Downtime ends with a success, and so does the closure of a bucket (`group:owner`)."""
    return road != DOWNTIME and ":" not in road
