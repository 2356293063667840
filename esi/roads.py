"""The gates that block requests to ESI, why they are closed, and what the log says of gates and buckets.

A gate is a row of `gates` that closes a group of routes, or all of them, until a time. The invariant: each closing of a
gate or a bucket (`killmail:ip`) is one line in the log, and so is its opening where the same process finds it open.
"""

from __future__ import annotations

import heapq
import logging
import math
import threading
from datetime import UTC, datetime

from esi.rate_limit import ERRORS, STATUS, Doubt, RateGroup, back_off
from esi.rate_store import Gate, View

logger = logging.getLogger(__name__)

#: Gates over all routes. A gate named for a group (`killmail`) closes that group's routes.
DOWNTIME = "downtime"
ERROR_LIMIT = "error-limit"

USED_UP = "ESI's allowance is used up"
DOWN = "ESI is down"
UNSURE = "requests to ESI fail; asking whether it is up"
TOO_MANY_ERRORS = "ESI reported too many errors and asks everybody to wait"
OUR_ERRORS = "ESI gave so many errors that asking on could reach its error limit"
TOLD_TO_WAIT = "ESI asks us to wait"
CROWDED = "other requests to ESI go first"

#: Errors a minute that names, prices and the like leave to killmails and their lists.
ERRORS_RESERVED = ERRORS.allowance // 2
#: Errors a minute that background leaves to those for whom a pilot waits.
ERRORS_OF_INTERACTIVE = ERRORS.allowance // 4
#: Seconds after its time within which a gate or bucket that is closed again was never open.
STILL_CLOSED_SECONDS = 60.0
#: Closings that are forgotten with one permit, so that none of them is held up by a thousand.
FORGOTTEN_AT_A_TIME = 10
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


def closed_gate(view: View, group: RateGroup, *, background: bool = False, doubt: Doubt = Doubt.NONE) -> Closed | None:
    """The gate that keeps the group's requests back longest, or None where none does. `doubt`: about the request."""
    on_the_way = ((name, view.gates.get(name)) for name in (DOWNTIME, ERROR_LIMIT, group.name))
    closed = [(gate, name) for name, gate in on_the_way if gate is not None and gate.closed_until > view.now]
    if group == STATUS:  # it finds out whether ESI is up
        closed = [(gate, name) for gate, name in closed if gate.reason != UNSURE]
    # Killmails and their lists continue where names have met too many unknown ids, or killmails too many refusals.
    reserve = max(doubt, 0 if group.bucketed else ERRORS_RESERVED, ERRORS_OF_INTERACTIVE if background else 0)
    if not view.errors.allows(view.now, ERRORS.cost, reserve):
        closed.append((Gate(view.errors.reopens_at(view.now, ERRORS.cost, reserve), OUR_ERRORS, 0), ERRORS.name))
    if not closed:
        return None
    gate, name = max(closed, key=lambda pair: pair[0].closed_until)
    return Closed(gate.closed_until, gate.reason, name)


def is_down(gate: Gate | None) -> bool:
    """Whether whoever goes next is a probe: nothing has succeeded since ESI was found to be down."""
    return gate is not None and gate.failures >= DOWNTIME_FAILURES


def is_on_trial(gate: Gate | None) -> bool:
    """Whether the next request finds out if the gate of a group may stay open: it was closed, and has let none pass."""
    return gate is not None and gate.failures > 0 and gate.closed_until > 0


def probe_pause(failures: int) -> float:
    """Seconds until the next probe after so many failures in a row."""
    return back_off(FIRST_PROBE_SECONDS, LONGEST_PROBE_SECONDS, failures - DOWNTIME_FAILURES)


class ClosingLog:
    """Logs each closing and each opening once. Shared by the threads of a process.

    Keeps an entry for each closing until it is over, and no longer: another process may be the one that finds a bucket
    open again. A permit costs one comparison while no entry's time has come.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        #: (when to look at it, name) of each entry, the earliest first.
        self._due: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    def closed(self, name: str, now: float, until: float, reason: str) -> None:
        """A gate or bucket was closed. Closed again by the request that tried whether it is open: that is no news."""
        with self._lock:
            known = self._until.get(name, 0.0)
            if until > known:
                self._until[name] = until
                heapq.heappush(self._due, (_forgotten_at(name, until), name))
        if known <= now - STILL_CLOSED_SECONDS:
            opens = datetime.fromtimestamp(until, UTC).strftime("%H:%M:%S")
            logger.warning("%s: closed until %s UTC: %s", name, opens, reason)

    def opened(self, name: str) -> None:
        """A request found the gate or bucket open again."""
        with self._lock:
            self._until.pop(name, None)
        logger.info("%s: open again", name)

    def kept(self) -> int:
        """How many closings are remembered."""
        return max(len(self._until), len(self._due))

    def passed(self, now: float) -> None:
        """A request is about to be sent: gates whose time has come are open again, and old closings are forgotten."""
        next_due = self._due[:1]  # one step: another thread may take it
        if not next_due or next_due[0][0] > now:
            return
        over: list[str] = []
        with self._lock:
            while self._due and self._due[0][0] <= now and len(over) < FORGOTTEN_AT_A_TIME:
                over.append(heapq.heappop(self._due)[1])
            # One that was closed for longer since has a later entry.
            over = [name for name in dict.fromkeys(over) if _forgotten_at(name, self._until.get(name, math.inf)) <= now]
            for name in over:
                del self._until[name]
        for name in over:
            if _opens_by_itself(name):
                logger.info("%s: open again", name)


def _forgotten_at(name: str, until: float) -> float:
    """What opens with a success may be closed again by the request that tries it, which then is no news."""
    return until if _opens_by_itself(name) else until + STILL_CLOSED_SECONDS


def _opens_by_itself(name: str) -> bool:
    """Downtime ends with a success, and so does the closure of a bucket (`group:owner`)."""
    return name != DOWNTIME and ":" not in name
