"""A permit to send one request, and what its outcome means for the requests that come after it.

The invariants: every outcome is told to the bucket (`charges.py` says what it changes there) and to the gates; an
answer in the normal course writes nothing; and one owner's refusals never close a gate. A 429 that is not a bucket's
own, from a limiter inside the game server, concerns the owner it was sent to: a pilot's bucket is closed, a killmail is
deferred by its actor. The group's gate closes only when several owners got one with no success in between. Whether a
request may go is decided in `limiter.py`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from clock import DatabaseClock
from esi import charges, downtime, failing_owners, rate_store, told_to_wait
from esi.bucket_states import why_closed
from esi.charges import MARGIN_SECONDS, Change, Spent
from esi.rate_headers import RateHeaders, parse_rate_headers
from esi.rate_limit import (
    ERRORS,
    LONGEST_ERROR_LIMIT_SECONDS,
    STATUS,
    UNBUCKETED,
    Bucket,
    RateGroup,
    is_counted_error,
)
from esi.rate_store import Gate
from esi.roads import (
    DOWNTIME,
    ERROR_LIMIT,
    FAILED_AGAIN,
    OUR_ERRORS,
    SILENCE_SECONDS,
    TOLD_TO_WAIT,
    TOO_MANY_ERRORS,
    ClosingLog,
)

logger = logging.getLogger(__name__)

#: Statuses of a server that is not there (ESI docs; esi-issues 640 and 797).
UNREACHABLE = frozenset({502, 503, 504})
#: Errors left in the minute at which requests without a bucket stop: other threads' are on their way.
ERRORS_KEPT = 20
#: Seconds of a 420 that does not say for how long: the error limit's window (ESI docs).
ERROR_WINDOW_SECONDS = 60.0
#: Groups whose answers have named another group: one line in the log of each process.
_misnamed: set[str] = set()
#: Different owners in a row whose 429s close the gate of their group. Two may be a coincidence among a thousand pilots.
OWNERS_REFUSED = 3
#: Seconds for which several owners' 429s close the gate of their group at most, whatever they ask for: what ESI told
#: each of them is kept by their own lists and killmails, and the next request finds out whether it still holds for all.
LONGEST_GROUP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was taken for one request, and what was known when it was.

    `spent`: None where the group has no bucket. `probe`: this request finds out whether ESI is up again.
    `group_trial`: it finds out whether the group's gate may be open again.
    `failed_before`: the same request has failed already. `subject`: the owner that a refusal of this request concerns
    (a character's id); None: it was sent for all alike.
    """

    group: RateGroup
    key: str
    clock: DatabaseClock
    gates: Mapping[str, Gate]
    spent: Spent | None
    probe: bool
    failed_before: bool = False
    subject: int | None = None
    group_trial: bool = False

    def failures(self, gate: str) -> int:
        """Failures in a row at that gate, as read when the request was let go."""
        seen = self.gates.get(gate)
        return 0 if seen is None else seen.failures


class RequestPermit:
    """Permission to send one request now. Report its outcome exactly once.

    `slot_at`: when the request is to reach ESI's door (seconds since the epoch, the database's clock).
    """

    def __init__(self, reservation: Reservation, slot_at: float, log: ClosingLog) -> None:
        self.slot_at = slot_at
        self._reservation = reservation
        self._log = log
        self._used = False
        #: Whether ESI asked everyone to wait because of this pilot's request alone (`told_to_wait.py`).
        self.own_refusal = False

    @property
    def is_probe(self) -> bool:
        """Whether this request finds out if ESI is up again: if it fails, the road stays closed for its failure."""
        return self._reservation.probe

    @property
    def is_vouched(self) -> bool:
        """Whether `/status` has just answered, so that what fails now may be this request's own fault."""
        gate = self._reservation.gates.get(DOWNTIME)
        return self.is_probe and gate is not None and gate.closed_until == 0

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """ESI answered. Closes roads, corrects what was reserved, learns a changed rule."""
        self._use()
        reserved, now = self._reservation, self._reservation.clock.now()
        rates = _of_its_group(parse_rate_headers(headers), reserved.group.name)
        if reserved.spent is not None:
            change = charges.after_answer(reserved.spent, status, rates, now, reserved.group)
            if charges.is_refusal(status, rates) and self._is_refused_alone(_bucket_of(reserved), now):
                change = charges.never_sent(reserved.spent)  # a 429 costs nothing, and the others' tokens are there
            if change is not None:
                before, after = change_bucket(reserved, change)
                now = reserved.clock.now()  # observed again by change_bucket
                self._tell_log(before, after, now)
                if before.on_trial and not after.on_trial:
                    told_to_wait.succeeded(_bucket_of(reserved))
        if is_counted_error(status, bucketed=reserved.group.bucketed):
            self._count_error(now)
        self._tell_gates(status, rates, now)

    def unsent(self) -> None:
        """Nothing reached ESI, nothing was charged."""
        self._use()
        give_back(self._reservation)

    def unanswered(self) -> None:
        """ESI may have charged it, at any time until now: what was reserved stays spent.

        Silence is no better than a 504; a connection that breaks at once tells of itself.
        """
        self._use()
        reserved, now = self._reservation, self._reservation.clock.now()
        change = charges.after_silence(reserved.spent, now, reserved.group.cost) if reserved.spent else None
        if change is not None:
            change_bucket(reserved, change)
        if now - self.slot_at >= SILENCE_SECONDS:
            self._count_downtime(now)

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a permit is good for one request")
        self._used = True

    def _tell_log(self, before: Bucket, after: Bucket, now: float) -> None:
        if after.closed_until > before.closed_until:
            self._log.closed(self._reservation.key, now, after.closed_until, why_closed(after, now))
        elif before.on_trial and not after.on_trial:
            self._log.opened(self._reservation.key)

    def _tell_gates(self, status: int, rates: RateHeaders, now: float) -> None:
        if status == 420:
            self._take_error_limit(rates.error_reset or rates.retry_after or ERROR_WINDOW_SECONDS, now)
        elif rates.error_remain is not None and rates.error_remain <= ERRORS_KEPT:
            wait = min(rates.error_reset or ERROR_WINDOW_SECONDS, LONGEST_ERROR_LIMIT_SECONDS)
            until = now + wait + MARGIN_SECONDS
            self._close(UNBUCKETED.name, now, until, TOO_MANY_ERRORS)
        if status in UNREACHABLE:
            self._count_downtime(now)
            return
        if status < 400 and self._reservation.failures(ERROR_LIMIT):
            self._forget_error_limit(now)
        group = self._reservation.group.name
        if status == 429 and not (charges.is_refusal(status, rates) and self._reservation.spent):
            self._count_refusal(rates.retry_after, now)
        elif status < 400 and self._reservation.failures(group):
            self._forget_refusals(math.inf if self._reservation.group_trial else now)
        if status < 500 and self._reservation.failures(DOWNTIME):
            self._end_downtime()

    def _take_error_limit(self, wait: float, now: float) -> None:
        """All routes wait, unless others succeed where this pilot is refused."""
        if self._is_refused_alone(ERROR_LIMIT, now):
            rate_store.note_failure(ERROR_LIMIT, TOO_MANY_ERRORS)
            return
        until = now + min(wait, LONGEST_ERROR_LIMIT_SECONDS) + MARGIN_SECONDS
        self._close(ERROR_LIMIT, now, until, TOO_MANY_ERRORS)

    def _is_refused_alone(self, limit: str, now: float) -> bool:
        """Whether the limit that this request met holds for no other pilot. A bucket of its owner holds for none."""
        subject = self._reservation.subject
        if subject is None or (limit != ERROR_LIMIT and self._reservation.group.per_owner):
            return False
        refused = told_to_wait.count(limit, subject, self.slot_at, now)
        self.own_refusal = refused.own
        return refused.alone

    def _forget_error_limit(self, now: float) -> None:
        if rate_store.forget_failures(ERROR_LIMIT, closed_before=now):
            told_to_wait.succeeded(ERROR_LIMIT)

    def _count_refusal(self, retry_after: float | None, now: float) -> None:
        """A 429 that is not a bucket's own closes the gate of its group once several owners got one in a row; at once
        where it has no owner, who alone could be meant."""
        group, subject = self._reservation.group, self._reservation.subject
        failures = self._reservation.failures(group.name)
        if group.per_owner or subject is not None:
            refused = 1 if subject is None else failing_owners.add(group.name, subject, now)
            rate_store.note_failure(group.name, TOLD_TO_WAIT)
            if refused < OWNERS_REFUSED:
                return
            failures -= 1  # the one that was noted without closing the gate
        wait = charges.wait_after_refusals(retry_after, failures)
        longest = wait if subject is None else LONGEST_GROUP_SECONDS
        self._close(group.name, now, now + min(wait, longest), TOLD_TO_WAIT)

    def _forget_refusals(self, closed_before: float) -> None:
        """The gate first: a refusal is counted first and noted at the gate after that, so that no count stays behind
        without a note for the next success."""
        group = self._reservation.group.name
        if rate_store.forget_failures(group, closed_before=closed_before):
            failing_owners.forget(group)

    def _count_error(self, now: float) -> None:
        left = rate_store.count_error(now)
        if not left.allows(now, ERRORS.cost):
            self._log.closed(ERRORS.name, now, left.reopens_at(now, ERRORS.cost), OUR_ERRORS)

    def _close(self, gate: str, now: float, until: float, reason: str) -> None:
        if rate_store.close_gate(gate, now, until, reason):
            self._log.closed(gate, now, until, reason)

    def _count_downtime(self, now: float) -> None:
        reserved, gate = self._reservation, self._reservation.gates.get(DOWNTIME)
        if reserved.subject is not None and not reserved.group.per_owner and now - self.slot_at >= SILENCE_SECONDS:
            downtime.took_long(reserved.subject, now)
        if reserved.probe and gate is not None:
            pilot = reserved.subject if self.is_vouched else None
            downtime.probe_failed(self._log, now, gate, vouched_pilot=pilot)
        elif reserved.failures(DOWNTIME) or not reserved.failed_before:
            weight = FAILED_AGAIN if reserved.failed_before else 1
            downtime.count(self._log, now, subject=reserved.subject, weight=weight)
        # Else others have succeeded since it failed first: it tells of itself, and not of ESI.

    def _end_downtime(self) -> None:
        reserved, gate = self._reservation, self._reservation.gates[DOWNTIME]
        if not reserved.probe:
            downtime.succeeded_before()
        elif reserved.group == STATUS:
            downtime.status_answered(self._log, gate)
        else:
            downtime.succeeded(self._log, gate)


def _of_its_group(rates: RateHeaders, group: str) -> RateHeaders:
    """What an answer says of the bucket of its group."""
    if rates.bucket_of_another(group) and group not in _misnamed:
        _misnamed.add(group)
        logger.warning(
            "%s: an answer names the rate limit group %s; its limits are ignored, here and from now on",
            group,
            rates.group,
        )
    return rates.for_group(group)


def _bucket_of(reserved: Reservation) -> str:
    """The name under which refusals of the reservation's bucket are counted: those of its group's gate are others."""
    return f"{reserved.group.name} bucket"


def give_back(reserved: Reservation) -> None:
    """Return the tokens of a request that never left."""
    if reserved.spent is not None:
        change_bucket(reserved, charges.never_sent(reserved.spent))


def change_bucket(reserved: Reservation, change: Change) -> tuple[Bucket, Bucket]:
    """Change the reservation's bucket with its row locked; returns it before and after.

    A row that was idle may have been deleted while the request was on its way: it is made again, with the rule that was
    known and nothing spent, which is what the deleted one held.
    """
    with rate_store.transaction():
        rate_store.lock_bucket(reserved.key)
        view = rate_store.read(reserved.key, reserved.clock)
        before = view.bucket
        if before is None:
            rate_store.create_bucket(reserved.key, _with_known_rule(reserved))
            rate_store.lock_bucket(reserved.key)
            view = rate_store.read(reserved.key, reserved.clock)
            before = view.bucket
        if before is None:
            raise LookupError(f"the bucket {reserved.key} was deleted although its row was locked")
        after = change(before, view.now)
        if after != before:
            rate_store.store_bucket(reserved.key, after)
    return before, after


def _with_known_rule(reserved: Reservation) -> RateGroup:
    if reserved.spent is None:
        return reserved.group
    known = reserved.spent.bucket
    return replace(reserved.group, allowance=known.allowance, window_seconds=known.window_seconds)
