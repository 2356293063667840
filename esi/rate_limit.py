"""ESI's rules of rate limiting as arithmetic: what a request costs, what is left of a bucket, when there is more.

Pure: no I/O and no clock, `now` is passed in (seconds since the epoch). The invariant of `Bucket`: a cost returns one
window after ESI charged it, or later, never earlier. So whoever spends only what `remaining` shows is never over ESI's
limit, whatever the interleaving. The state is packed into one text, which the database keeps for all processes;
reading and writing it, slots and gates are left to `rate_store.py` and `limiter.py`.

Source of the rules: ESI docs, "Rate limiting" (https://developers.eveonline.com/docs/services/esi/rate-limiting/);
the groups and their numbers are the OpenAPI document's of 2026-08-18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import accumulate

from esi.rate_headers import RateHeaders, parse_rate_headers

__all__ = [
    "CHAR_KILLMAIL",
    "ERRORS",
    "KILLMAIL",
    "STATUS",
    "UNBUCKETED",
    "Bucket",
    "RateGroup",
    "RateHeaders",
    "back_off",
    "cost_of",
    "is_counted_error",
    "parse_rate_headers",
    "reserve_of",
]

#: Parts a window is kept in. A cost returns up to one part late: with 128 that is half a percent of the allowance on
#: average, and a row of half a kilobyte.
SLICES = 128
#: Seconds for which what has returned is remembered, so that an answer on its way is compared with what was true when
#: its request left (see `lower_to`).
GRACE_SECONDS = 4.0
#: A spend so many seconds ahead of now was written by a clock that has been set back since.
CLOCK_SLACK_SECONDS = 60.0
#: Added to the time at which tokens return, so that rounding cannot make it a moment too early.
_ROUNDING_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class RateGroup:
    """Routes that share a bucket. `allowance` tokens a window, until ESI's headers say otherwise; 0: no bucket.

    `cost`: what is reserved for a request before its answer is known, the price of a success. `per_owner`: each owner
    (a character) has a bucket; otherwise there is one for this address.
    """

    name: str
    allowance: int
    window_seconds: int
    cost: int = 2
    per_owner: bool = False

    @property
    def bucketed(self) -> bool:
        return self.allowance > 0


KILLMAIL = RateGroup("killmail", 3600, 900)
CHAR_KILLMAIL = RateGroup("char-killmail", 30, 900, per_owner=True)
STATUS = RateGroup("status", 600, 900)
#: Our own count of errors of all routes, in the shape of a bucket. ESI bears 100 a minute, in windows of its own; what
#: is on its way when this one is empty, and others at this address, have the rest.
ERRORS = RateGroup("errors", 60, 60, 1)


class Doubt(IntEnum):
    """How likely ESI is to refuse a request. The value: how many of our errors a minute it leaves to the others.

    What is refused often leaves more than names do (`roads.ERRORS_RESERVED`), or it would keep them from ever being
    known; what was refused once is asked for again though somebody else's killmails are refused often.
    """

    NONE = 0
    SOME = ERRORS.allowance // 2
    #: Twelve are left for these. At 5 tokens each that is a quarter of what the killmails' bucket gets in a minute.
    MUCH = ERRORS.allowance * 4 // 5


#: Seconds for which an error limit is believed at most: its window is a minute.
LONGEST_ERROR_LIMIT_SECONDS = 120.0
#: Names, characters, prices: nothing but the legacy error limit.
UNBUCKETED = RateGroup("unbucketed", 0, 0, 0)


def cost_of(status: int) -> int:
    """Tokens that ESI charges for an answer: 2xx 2, 3xx 1, 4xx 5 (429 nothing), 5xx nothing."""
    if status == 429:
        return 0
    return {3: 1, 4: 5, 5: 0}.get(status // 100, 2)


def is_counted_error(status: int, *, bucketed: bool) -> bool:
    """Whether ESI may count an answer towards its error limit (ESI docs: 100 that are no 2xx or 3xx a minute).

    Meant for routes without a bucket; whether 4xx of the others count, nobody says. 420 and 429 are limits themselves.
    """
    if status in (420, 429):
        return False
    return 400 <= status < 500 if bucketed else status >= 400


def reserve_of(allowance: int, *, background: bool) -> int:
    """Tokens that a class leaves to others: background work leaves a quarter to people who wait."""
    return allowance // 4 if background else 0


def back_off(first: float, longest: float, times: int) -> float:
    """Seconds to wait after `times` waits that did not help: doubling from `first`, `longest` at most."""
    return min(longest, first * 2.0 ** min(max(times, 0), 16))


@dataclass(frozen=True, slots=True)
class Bucket:
    """One of ESI's token buckets, as far as we know it. A value: every change makes a new one.

    `costs[i]` was spent in the slice `first + i`. Slice n covers the seconds from n to n + 1 times `slice_seconds`
    since the epoch, and its costs return one window after its *end*. `refusals`: answers 429 in a row that were not
    the bucket's own and concern its owner. `doubts`: answers in a row that stated a limit which is not believed yet.
    `tried_every`: the limit may be wrong, so that the bucket is tried every so many seconds while it is empty; 0: not.
    """

    allowance: int
    window_seconds: int
    first: int = 0
    costs: tuple[int, ...] = ()
    closed_until: float = 0.0
    refusals: int = 0
    doubts: int = 0
    tried_every: int = 0

    @classmethod
    def unpack(
        cls,
        allowance: int,
        window_seconds: int,
        spends: str,
        closed_until: float = 0.0,
        refusals: int = 0,
        doubts: int = 0,
        tried_every: int = 0,
    ) -> Bucket:
        """From the columns of its row. A text that is none of ours counts as nothing spent; ESI's next answer
        (`X-Ratelimit-Remaining`) puts that right. So does a closure that is no time."""
        if not isinstance(closed_until, int | float):
            closed_until = 0.0
        empty = cls(allowance, window_seconds, 0, (), closed_until, refusals, doubts, tried_every)
        try:
            first, *costs = map(int, spends.split())
        except ValueError:
            return empty
        return empty if min(costs, default=0) < 0 else replace(empty, first=first, costs=tuple(costs))

    def pack(self) -> str:
        """`first cost cost …`, or nothing."""
        return " ".join(map(str, (self.first, *self.costs))) if self.costs else ""

    @property
    def slice_seconds(self) -> float:
        return self.window_seconds / SLICES

    @property
    def grace_seconds(self) -> float:
        """For how long an answer may be on its way and still be compared exactly."""
        return max(GRACE_SECONDS, 4 * self.slice_seconds)

    def remaining(self, now: float) -> int:
        """Tokens that may be spent; negative where a rule changed or errors cost more than was reserved."""
        counted_from = max(0, self._slice(now) - SLICES - self.first)
        return self.allowance - sum(self.costs[counted_from:])

    def allows(self, now: float, cost: int, reserve: int = 0) -> bool:
        """Whether `cost` may be spent with `reserve` left untouched, or an empty bucket be tried."""
        return not self.is_closed(now) and (self._holds(now, cost, reserve) or self.is_tried(now, cost))

    def is_tried(self, now: float, cost: int) -> bool:
        """Whether it is empty by a limit that may be wrong, so that a request is let through now and then."""
        return self.tried_every > 0 and not self._holds(now, cost, 0)

    def is_closed(self, now: float) -> bool:
        """Whether ESI told us to wait (`Retry-After`), whatever the tokens say."""
        return self.closed_until > now

    def reopens_at(self, now: float, cost: int, reserve: int = 0) -> float:
        """The earliest time at which `allows` says yes if nothing else is spent; `now` if it does already."""
        if self.is_tried(now, cost):
            return max(now, self.closed_until)
        return max(self._returned_at(now, cost, reserve), self.closed_until)

    def _returned_at(self, now: float, cost: int, reserve: int) -> float:
        """When enough tokens have returned, whatever the bucket is closed for."""
        missing = self._payable(cost, reserve) + reserve - self.remaining(now)
        if missing <= 0:
            return now
        counted_from = max(0, self._slice(now) - SLICES - self.first)
        returned = accumulate(self.costs[counted_from:])
        enough = next((index for index, total in enumerate(returned) if total >= missing), len(self.costs))
        last = self.first + counted_from + enough
        return (last + 1 + SLICES) * self.slice_seconds + _ROUNDING_SECONDS

    def spend(self, now: float, cost: int) -> Bucket:
        """`cost` more, charged by ESI at `now` or earlier. Forgets what returned longer than the grace ago."""
        here = self._slice(now)
        costs = list(self.costs) if self.costs else [0]
        first = self.first if self.costs else here
        stale = self._slice(now - self.grace_seconds) - SLICES - first
        if stale > 0:
            costs, first = costs[stale:] or [0], first + stale if stale < len(costs) else here
        here = max(here, first)
        costs.extend([0] * (here - first - len(costs) + 1))
        costs[here - first] += cost
        return replace(self, first=first, costs=tuple(costs))

    def refund(self, at: float, cost: int) -> Bucket:
        """Take back `cost` of what was spent with `spend(at, …)`. What has returned already is not returned twice."""
        index = self._slice(at) - self.first
        if index < 0:
            return self
        costs = list(self.costs)
        # A changed window moves costs to later slices, never to earlier ones.
        while cost > 0 and index < len(costs):
            taken = min(cost, costs[index])
            costs[index] -= taken
            cost -= taken
            index += 1
        return replace(self, costs=tuple(costs))

    def charged_by(self, at: float) -> float:
        """Until when ESI may charge what was spent with `spend(at, …)` and still have it back before us."""
        return (self._slice(at) + 1) * self.slice_seconds

    def lower_to(self, now: float, remaining: int, as_of: float) -> Bucket:
        """ESI said that `remaining` tokens are left. Less than we thought: others spend from this bucket, too.

        `as_of`: when the request left. What returned to us since then may not have returned to ESI when it counted.
        When the others' spends return is not known: one window from now is never too early. Never raises the estimate.
        """
        unknown = self.remaining(as_of) - remaining
        return self.spend(now, unknown) if unknown > 0 else self

    def learn(self, allowance: int, window_seconds: int) -> Bucket:
        """ESI's rule is this now. What was spent stays spent, and returns after the new window."""
        if window_seconds == self.window_seconds:
            return replace(self, allowance=allowance)
        learned = replace(self, allowance=allowance, window_seconds=window_seconds, first=0, costs=())
        for index, cost in enumerate(self.costs):
            if cost:
                learned = learned._add((self.first + index + 1) * self.slice_seconds, cost)
        return learned

    def close(self, until: float) -> Bucket:
        """Nothing more before `until`; an earlier time changes nothing. After it the bucket is `on_trial`."""
        return replace(self, closed_until=max(self.closed_until, until))

    def hold_if_empty(self, now: float, cost: int) -> Bucket:
        """Closed until the next try, or until enough has returned, where an empty bucket `is_tried`."""
        if not self.is_tried(now, cost):
            return self
        return self.close(min(now + self.tried_every, self._returned_at(now, cost, 0)))

    def is_idle(self, now: float) -> bool:
        """Whether a new bucket would be the same: everything has returned, also what others may have spent of it
        before it was closed."""
        return self.remaining(now) == self.allowance and self.closed_until + self.window_seconds <= now

    @property
    def on_trial(self) -> bool:
        """Whether it was closed and nothing has succeeded since: then one request goes first, and the others wait.

        A bucket that ESI found empty was emptied by someone we do not know of, and so nobody knows what is in it.
        """
        return self.closed_until > 0.0

    def open(self, closed_until: float) -> Bucket:
        """A request of the trial succeeded. No effect if the bucket has been closed for longer since."""
        return replace(self, closed_until=0.0, refusals=0) if self.closed_until <= closed_until else self

    def settled(self, now: float, longest_closure: float) -> Bucket:
        """As it is to be read at `now`: marks of a clock that has been set back since are drawn to now.

        Without this an hour set back would close the bucket for an hour and a window.
        """
        bucket = self
        if self.closed_until > now + longest_closure + CLOCK_SLACK_SECONDS:
            bucket = replace(bucket, closed_until=0.0)
        latest = self._slice(now + CLOCK_SLACK_SECONDS)
        if self.costs and self.first + len(self.costs) - 1 > latest:
            ahead = sum(cost for index, cost in enumerate(self.costs) if self.first + index > latest)
            known = self.costs[: max(0, latest + 1 - self.first)]
            bucket = (
                replace(bucket, costs=known).spend(now, ahead)
                if known
                else replace(bucket, first=self._slice(now), costs=(ahead,))
            )
        return bucket

    def _add(self, at: float, cost: int) -> Bucket:
        """Like `spend`, and forgets nothing. `at` not before the first slice."""
        here = self._slice(at)
        if not self.costs:
            return replace(self, first=here, costs=(cost,))
        costs = [*self.costs, *[0] * (here - self.first - len(self.costs) + 1)]
        costs[here - self.first] += cost
        return replace(self, costs=tuple(costs))

    def _holds(self, now: float, cost: int, reserve: int) -> bool:
        return self.remaining(now) - reserve >= self._payable(cost, reserve)

    def _payable(self, cost: int, reserve: int) -> int:
        """A cost above the whole allowance could never be paid: then everything has to be free."""
        return max(1, min(cost, self.allowance - reserve))

    def _slice(self, at: float) -> int:
        return math.floor(at / self.slice_seconds)
