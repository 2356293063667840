"""Who may ask ESI now, over all processes together: the ceiling, the buckets, and the roads that are closed.

The invariant: a request that got its permit, and leaves at once, breaks none of ESI's limits as far as they are known
here: no second holds more requests than the ceiling, no window more tokens than its bucket. Nothing is counted in
memory: every process decides on the same rows (`rate_store.py`). In the normal course that is three statements:
read everything, spend the tokens if nobody else did since, take the slot.

What an answer teaches is left to `permit.py`; waiting longer than HORIZON_SECONDS is left to the caller.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

from database import clock
from esi import downtime, rate_store
from esi.bucket_states import GroupState, Overview, why_closed
from esi.charges import Spent
from esi.permit import RequestPermit, Reservation, give_back
from esi.rate_limit import ERRORS, Bucket, Doubt, RateGroup, cost_of, reserve_of
from esi.rate_store import View
from esi.roads import (
    CROWDED,
    DOWN,
    DOWNTIME,
    DOWNTIME_FAILURES,
    FIRST_PROBE_SECONDS,
    UNSURE,
    Closed,
    ClosingLog,
    closed_gate,
    is_down,
    is_on_trial,
)

__all__ = ["Allowance", "Closed", "GroupState", "Limiter", "RequestPermit"]

#: Seconds a caller may be kept waiting for its slot. A slot further ahead is not taken.
HORIZON_SECONDS = 2.0
#: Slots are this much further apart than the ceiling says. At 50/s that is 20.8 ms: 51 slots span 1.04 s, so requests
#: may reach ESI's door up to 40 ms too late and no second holds more than 50. Measured: 20.0 ms let 52 through.
SPACING = 1.04
#: Seconds a thread may wake after its slot. Who is later takes another slot; a busy machine is allowed more each time,
#: or nobody would ever go, and never the whole 40 ms, part of which belongs to the network.
TOLERANCES = (0.010, 0.020, 0.030)
#: Seconds that are not worth a sleep.
SHORTEST_SLEEP = 0.0002
#: Seconds from the slot until ESI has usually charged the request. Who is slower is put right by `RequestPermit`.
TRANSIT_SECONDS = 0.5
#: Seconds the others wait for the first request through a bucket that was closed, should it not come back.
TRIAL_SECONDS = 10.0
#: And for the first request of a group whose gate was closed: no longer than any refusal closes it again.
GROUP_TRIAL_SECONDS = 5.0
#: Tries to spend without a lock before the row is locked.
UNLOCKED_TRIES = 3
#: Buckets looked at in one go by a sweep (a quarter of a megabyte), and at most by one sweep: a second's work.
SWEPT_AT_A_TIME, MOST_SWEPT = 500, 20_000
#: A sweep goes on while one bucket of so many was idle.
WORTH_SWEEPING = 4
#: Allowance of a group that has no bucket: more than anyone sends at once.
UNLIMITED = 1_000_000
#: A class whose allowance is used up is woken when a hundredth of it is back, not for every token.
WORTH_WAKING = 100
#: Doubtful requests are sent again when so many of them may be: one for each error that returns would be a crawl.
WORTH_DOUBTING = 5


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests may still be made now. With none, `reopens_at` (seconds since the epoch) and `reason` say
    when and why; both are None otherwise. `probe`: a gate was closed, and the one request finds out whether it may
    open. `doubtful`: how many of the requests may be ones that ESI has refused before; `behind`: how many of those may
    be ones that it refuses often. With none of the latter, `behind_at` says when a few may be made again."""

    requests: int
    reopens_at: float | None
    reason: str | None
    probe: bool = False
    doubtful: int = ERRORS.allowance - Doubt.SOME
    behind: int = ERRORS.allowance - Doubt.MUCH
    behind_at: float | None = None


class Limiter:
    """Hands out permits. Safe to share between threads; any number of processes work on one database."""

    def __init__(self, requests_per_second: float) -> None:
        self._interval = SPACING / requests_per_second
        self._clock = clock
        self._log = ClosingLog()
        self._overview = Overview(self._clock)
        self._swept = ""
        #: Threads of one process take turns: at once they would only make each other decide again.
        self._turn = threading.Lock()

    def acquire(
        self,
        group: RateGroup,
        owner: str,
        *,
        background: bool,
        failed_before: bool = False,
        conditional: bool = False,
        subject: int | None = None,
        doubt: Doubt = Doubt.NONE,
    ) -> RequestPermit:
        """A permit for one request of `owner` (a character's id, or one name for this address), to be sent now.

        `failed_before`: the same request has failed already, which may be its own fault and not ESI's. `conditional`:
        it is likely to be answered 304, whose price is reserved; only for a bucket that no other request uses until
        then, because what another answer costs more is counted only when it has come. `subject`: the character whom a
        refusal of this request concerns, where that is not the owner: the pilot who lists a killmail. `doubt`: how
        likely ESI is to refuse it.

        Sleeps until its slot, HORIZON_SECONDS at most. Raises Closed where it would have to wait for longer. Must not
        be called within a transaction: its locks would hold up every other process while this one sleeps.
        """
        if rate_store.in_transaction():
            raise RuntimeError("a permit is acquired outside of transactions")
        deadline = time.monotonic() + HORIZON_SECONDS
        cost = cost_of(304) if conditional else group.cost
        if subject is None and group.per_owner and owner.isdecimal():
            subject = int(owner)
        reserved = self._reserve(group, _key(group, owner), background, cost, doubt)
        reserved = replace(reserved, failed_before=failed_before, subject=subject)
        try:
            slot_at = self._await_slot(deadline)
        except BaseException:  # Closed, or the thread is being stopped: either way nothing is sent
            give_back(reserved)
            raise
        self._log.passed(slot_at)
        return RequestPermit(reserved, slot_at, self._log)

    def allowance(self, group: RateGroup, owner: str, *, background: bool, upcoming: int = 0) -> Allowance:
        """How many requests may be made now after the `upcoming` ones that are on their way. Reserves nothing."""
        view = rate_store.read(_key(group, owner), self._clock)
        closed = closed_gate(view, group, background=background)
        if closed is not None:
            return Allowance(0, closed.until, closed.reason)
        probe = is_down(view.gates.get(DOWNTIME)) or is_on_trial(view.gates.get(group.name))
        if not group.bucketed:
            return Allowance(1 if probe else UNLIMITED, None, None, probe)
        bucket = view.bucket or Bucket(group.allowance, group.window_seconds)
        # As if those on their way had left now: that is when theirs will return.
        left = bucket.spend(view.now, group.cost * upcoming)
        reserve = reserve_of(left.allowance, background=background)
        requests = (left.remaining(view.now) - reserve) // group.cost
        if not upcoming and left.is_tried(view.now, group.cost):
            requests = 1
        if requests > 0 and not left.is_closed(view.now):
            errors = view.errors.remaining(view.now)
            doubtful, behind = max(0, errors - Doubt.SOME), max(0, errors - Doubt.MUCH)
            again = None if behind else view.errors.reopens_at(view.now, WORTH_DOUBTING, Doubt.MUCH)
            return Allowance(1 if probe or left.on_trial else requests, None, None, probe, doubtful, behind, again)
        worth_waking = max(group.cost, left.allowance // WORTH_WAKING)
        return Allowance(0, left.reopens_at(view.now, worth_waking, reserve), why_closed(left, view.now))

    def is_down(self) -> bool:
        """Whether ESI was found down, and nothing has succeeded since."""
        return is_down(rate_store.read("", self._clock).gates.get(DOWNTIME))

    def is_short_of_errors(self) -> bool:
        """Whether so many errors came within a minute that what ESI is likely to refuse has to wait."""
        view = rate_store.read("", self._clock)
        return not view.errors.allows(view.now, ERRORS.cost, Doubt.SOME)

    def is_status_due(self) -> bool:
        """Whether `/status` is to be asked: for pilots' failures, or where ESI was found down, after each pause.

        It has three looks of four: it may fail by itself, and must not keep the others out for ever.
        """
        now, gate = rate_store.read_gate(DOWNTIME)
        its_turn = (gate.failures - DOWNTIME_FAILURES) % 4 < 3
        return is_down(gate) and (gate.reason == UNSURE or (0 < gate.closed_until <= now and its_turn))

    def unreachable(self) -> None:
        """ESI could not be connected to, before anything was reserved: it counts as a 503 does, whoever it was for."""
        now, gate = rate_store.read_gate(DOWNTIME)
        if not is_down(gate):
            downtime.count(self._log, now)
        elif gate.closed_until <= now or gate.reason == UNSURE:  # this one would have been the probe
            downtime.probe_failed(self._log, now, gate)

    def forget_idle(self, group: RateGroup, batch: int = SWEPT_AT_A_TIME) -> int:
        """Delete buckets of a group with one for each owner, where a new one would be the same; returns how many.

        Looks at a batch, and at another one as long as a quarter of the last was idle: so the work grows with what
        there is to delete, and rows do not pile up faster than they are deleted. The next call goes on from there;
        another process may look at the same ones, which does nothing twice.
        """
        now = rate_store.read("", self._clock).now
        forgotten = 0
        for _ in range(max(1, MOST_SWEPT // batch)):
            self._swept, idle = rate_store.forget_idle(_key(group, ""), self._swept, now, batch)
            forgotten += idle
            if not self._swept or idle * WORTH_SWEEPING < batch:
                break
        return forgotten

    def snapshot(self) -> list[GroupState]:
        """The state of every group's buckets, and every gate that is closed, for operators."""
        return self._overview.read()

    def _reserve(self, group: RateGroup, key: str, background: bool, cost: int, doubt: Doubt) -> Reservation:
        for _ in range(UNLOCKED_TRIES):
            with self._turn:
                reserved = self._try_to_reserve(group, key, background, cost, doubt)
            if reserved is not None:
                return reserved
        # Many want the same row: take turns.
        with rate_store.transaction():
            rate_store.lock_bucket(key)
            reserved = self._try_to_reserve(group, key, background, cost, doubt)
        if reserved is None:
            raise Closed(self._clock.now() + self._interval, CROWDED, key)
        return reserved

    def _try_to_reserve(
        self, group: RateGroup, key: str, background: bool, cost: int, doubt: Doubt
    ) -> Reservation | None:
        """None if somebody else changed something meanwhile. Raises Closed."""
        view = rate_store.read(key, self._clock)
        if group.bucketed and view.bucket is None:
            rate_store.create_bucket(key, group)
            return None
        self._refuse(view, group, key, background, doubt)
        spent = None
        if view.bucket is not None:
            spent = _spend(view.bucket, view, cost, group)
            if not rate_store.swap_bucket(key, view.row, spent.bucket):
                return None
        probe, trial = is_down(view.gates.get(DOWNTIME)), is_on_trial(view.gates.get(group.name))
        reserved = Reservation(group, key, self._clock, view.gates, spent, probe, group_trial=trial)
        taken = not trial or rate_store.take_probe(group.name, view.now, view.now + GROUP_TRIAL_SECONDS)
        if not taken or (probe and not _take_probe(view)):
            give_back(reserved)
            return None
        return reserved

    def _refuse(self, view: View, group: RateGroup, key: str, background: bool, doubt: Doubt) -> None:
        """Raise Closed unless every road is open."""
        closed = closed_gate(view, group, background=background, doubt=doubt)
        if closed is not None:
            raise closed
        bucket = view.bucket
        if bucket is not None:
            reserve = reserve_of(bucket.allowance, background=background)
            if not bucket.allows(view.now, group.cost, reserve):
                raise Closed(bucket.reopens_at(view.now, group.cost, reserve), why_closed(bucket, view.now), key)
        if view.next_slot_at >= view.now + HORIZON_SECONDS:
            raise Closed(view.next_slot_at - HORIZON_SECONDS + self._interval, CROWDED, rate_store.SLOTS)

    def _await_slot(self, deadline: float) -> float:
        """Sleep until a slot and return its time. Raises Closed if none comes before `deadline` (monotonic)."""
        attempt = 0
        while (horizon := deadline - time.monotonic()) > 0:
            slot = rate_store.take_slot(self._interval, horizon)
            if slot is None:
                break
            wait = slot - self._clock.now()
            if wait > SHORTEST_SLEEP:
                time.sleep(min(wait, horizon))
            if self._clock.now() - slot <= TOLERANCES[min(attempt, len(TOLERANCES) - 1)]:
                return slot
            attempt += 1
        raise Closed(self._clock.now() + self._interval, CROWDED, rate_store.SLOTS)


def _take_probe(view: View) -> bool:
    """Become the one that finds out whether ESI is up: of all that ask now."""
    until = view.now + FIRST_PROBE_SECONDS
    if view.gates[DOWNTIME].reason == UNSURE:
        return rate_store.take_question(DOWNTIME, until, UNSURE, DOWN)
    return rate_store.take_probe(DOWNTIME, view.now, until)


def _spend(bucket: Bucket, view: View, cost: int, group: RateGroup) -> Spent:
    charge_at = max(view.now, view.next_slot_at) + TRANSIT_SECONDS
    after = bucket.spend(charge_at, cost).hold_if_empty(view.now, group.cost)
    if bucket.on_trial:
        after = after.close(view.now + TRIAL_SECONDS)
    return Spent(after, cost, view.now, charge_at, bucket.on_trial)


def _key(group: RateGroup, owner: str) -> str:
    return f"{group.name}:{owner}"
