"""The gate for ESI's downtime: which failures close it, and who finds out whether ESI is up again.

The invariant: the failures of one or two pilots keep no other pilot out for longer than `/status` takes to answer.
Five failures in a row that concern a pilot make every request wait while `/status` is asked. If it fails, ESI is down:
the gate stays closed, and is probed with growing pauses. If it answers and few pilots failed, their failures are their
own: the gate opens, and they pay for them like for any other. If it answers and several pilots failed, a part of ESI
may be down: one request after another is a probe, each of another pilot, and the gate closes again when the probes of
several pilots have failed. Any success opens it. What fails for no pilot in particular closes the gate as it is.

A pilot whose killmails take many seconds to fail is remembered as slow: each of them holds a worker thread for as long,
so that the ledger keeps but a few of them on their way (`ledger/dispatching.py`).
"""

from __future__ import annotations

import math

from esi import failing_owners, rate_store
from esi.rate_store import Gate
from esi.roads import DOWN, DOWNTIME, DOWNTIME_FAILURES, FIRST_PROBE_SECONDS, UNSURE, ClosingLog, probe_pause

#: Different pilots that have to fail in a row before ESI is taken for down although `/status` answers.
PILOTS_FAILED = 3
#: Under these names `failing_owners` keeps pilots: those whose probes failed since `/status` answered, and slow ones.
PROBES, SLOW = "downtime probes", "slow killmails"
#: How old what is known of slow pilots may be: a killmail that hangs does so for longer.
SLOW_READ_SECONDS = 1.0
#: Seconds for which requests wait for the answer of `/status`, should it not be asked.
ASKING_SECONDS = 5.0


def count(log: ClosingLog, now: float, *, subject: int | None = None, weight: int = 1) -> None:
    """A request failed as in a downtime, `weight` times in a row; five of them close the gate.

    `subject`: the pilot it concerns. None: it was for no pilot, and tells of ESI.
    """
    if subject is None:
        until = now + probe_pause(DOWNTIME_FAILURES)
        if rate_store.count_failure(DOWNTIME, DOWNTIME_FAILURES, until, DOWN, weight):
            log.closed(DOWNTIME, now, until, DOWN)
        return
    failing_owners.add(DOWNTIME, subject, now)
    rate_store.count_failure(DOWNTIME, DOWNTIME_FAILURES, now + ASKING_SECONDS, UNSURE, weight)


def probe_failed(log: ClosingLog, now: float, gate: Gate, *, vouched_pilot: int | None = None) -> None:
    """What was to find out whether ESI is up has failed. `gate`: as it was when that request was let go.

    `vouched_pilot`: the pilot it concerns, if `/status` had just answered: the next pilot's request is a probe as well.
    """
    if vouched_pilot is not None:
        failing_owners.add(DOWNTIME, vouched_pilot, now)
        tried = failing_owners.includes(PROBES, vouched_pilot)
        several = failing_owners.add(PROBES, vouched_pilot, now) >= PILOTS_FAILED
        # A pause that does not grow: ESI is up, and the next pilot who comes may have nothing to do with this.
        at = now + FIRST_PROBE_SECONDS if several or tried else 0.0
        rate_store.reopen(DOWNTIME, at, at_least=DOWNTIME_FAILURES)
        return
    failing_owners.forget(SLOW)  # ESI was, and not these pilots
    until = now + probe_pause(gate.failures + 1)
    rate_store.keep_closed(DOWNTIME, until, DOWN, at_least=DOWNTIME_FAILURES)
    log.closed(DOWNTIME, now, until, DOWN)


def status_answered(log: ClosingLog, gate: Gate) -> None:
    """ESI is up. `gate`: as it was when `/status` was asked."""
    failing_owners.forget(PROBES)
    if failing_owners.count(DOWNTIME) >= PILOTS_FAILED:
        rate_store.reopen(DOWNTIME, at_least=DOWNTIME_FAILURES)
    else:
        succeeded(log, gate)


def succeeded(log: ClosingLog, gate: Gate) -> None:
    """What was to find out whether ESI is up has succeeded."""
    if rate_store.forget_failures(DOWNTIME):
        _forget_pilots()
        if gate.reason != UNSURE:
            log.opened(DOWNTIME)


def succeeded_before() -> None:
    """A request succeeded that was let go while the gate was open: tells nothing if it has been closed since."""
    if rate_store.forget_failures(DOWNTIME, fewer_than=DOWNTIME_FAILURES):
        _forget_pilots()


def failing_pilots() -> list[int]:
    """The characters whose requests failed since anyone's last succeeded."""
    return failing_owners.owners(DOWNTIME)


def took_long(subject: int, now: float) -> None:
    """A killmail of this pilot failed after many seconds."""
    failing_owners.add(SLOW, subject, now)


class SlowPilots:
    """Whose killmails have failed after many seconds, some minutes ago or less. Safe to share between threads.

    There are hardly ever any: they are read once a second, not with a statement for each killmail.
    """

    def __init__(self) -> None:
        self._pilots: frozenset[int] = frozenset()
        self._read_at = -math.inf

    def includes(self, subject: int, now: float) -> bool:
        """`now`: seconds since the epoch, the database's clock."""
        if not 0.0 <= now - self._read_at < SLOW_READ_SECONDS:
            since = now - failing_owners.REMEMBERED_SECONDS
            self._pilots, self._read_at = frozenset(failing_owners.owners(SLOW, since=since)), now
        return subject in self._pilots


def _forget_pilots() -> None:
    """The gate first: a pilot is noted first and counted at the gate after that."""
    failing_owners.forget(DOWNTIME)
    failing_owners.forget(PROBES)
