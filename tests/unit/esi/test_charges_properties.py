"""Any interleaving of requests, answers, errors and clock steps against an exact floating window.

The reference is a list of (moment, cost): what ESI would count. Ours may never promise more than that holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from esi.charges import Change, Spent, after_answer, after_silence, never_sent
from esi.rate_headers import RateHeaders
from esi.rate_limit import Bucket, RateGroup, cost_of

START = 1_760_000_000.0
COST = 2
TRANSIT = 0.5
SUCCESSES = (200, 304, 500, 502)
ERRORS = (404, 422)


@dataclass
class Esi:
    """An exact floating window: each cost returns one window after it was charged."""

    allowance: int
    window: int
    charged: list[tuple[float, int]] = field(default_factory=list)

    def used(self, now: float) -> int:
        return sum(cost for at, cost in self.charged if at + self.window > now)

    def remaining(self, now: float) -> int:
        return self.allowance - self.used(now)


@dataclass
class InFlight:
    spent: Spent
    status: int | None = None  # once ESI has charged it
    remaining: int = 0


class Interleavings(RuleBasedStateMachine):
    @initialize(
        allowance=st.integers(2, 60), window=st.sampled_from([60, 900]), offset=st.floats(0, 900, allow_nan=False)
    )
    def start(self, allowance, window, offset):
        self.now = START + offset
        self.group = RateGroup("killmail", allowance, window)
        self.bucket = Bucket(allowance, window)
        self.esi = Esi(allowance, window)
        self.flights: list[InFlight] = []
        self.errors = False

    @rule(reserve=st.sampled_from([0, 0, 1, 5]))
    def let_go(self, reserve):
        if not self.bucket.allows(self.now, COST, reserve):
            return
        self.bucket = self.bucket.spend(self.now + TRANSIT, COST)
        self.flights.append(InFlight(Spent(self.bucket, COST, self.now, self.now + TRANSIT)))

    @precondition(lambda self: any(flight.status is None for flight in self.flights))
    @rule(data=st.data(), status=st.sampled_from(SUCCESSES * 3 + ERRORS))
    def charge(self, data, status):
        flight = data.draw(st.sampled_from([each for each in self.flights if each.status is None]))
        flight.status = status
        self.errors |= status in ERRORS
        self.esi.charged.append((self.now, cost_of(status)))
        flight.remaining = max(0, self.esi.remaining(self.now))
        # ESI would never have had to refuse, as long as no error cost more than was reserved.
        assert self.errors or self.esi.remaining(self.now) >= 0

    @precondition(lambda self: any(flight.status is not None for flight in self.flights))
    @rule(data=st.data(), told=st.booleans())
    def answer(self, data, told):
        flight = data.draw(st.sampled_from([each for each in self.flights if each.status is not None]))
        self.flights.remove(flight)
        rates = RateHeaders(self.esi.allowance, self.esi.window, flight.remaining) if told else RateHeaders()
        self._apply(after_answer(flight.spent, flight.status, rates, self.now, self.group))

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def lose(self, data):
        flight = data.draw(st.sampled_from(self.flights))
        assume(flight.status not in ERRORS)  # an error that nobody heard of costs three more than is known
        self.flights.remove(flight)
        self._apply(after_silence(flight.spent, self.now, 2))

    @precondition(lambda self: any(flight.status is None for flight in self.flights))
    @rule(data=st.data())
    def never_leave(self, data):
        flight = data.draw(st.sampled_from([each for each in self.flights if each.status is None]))
        self.flights.remove(flight)
        self._apply(never_sent(flight.spent))

    @rule(part=st.sampled_from([0.0001, 0.01, 0.06, 0.3, 0.7]))
    def wait(self, part):
        step = part * self.esi.window
        # No request is on its way for longer than its timeouts allow, which is less than a window.
        assume(all(self.now + step - flight.spent.decided_at < 0.9 * self.esi.window for flight in self.flights))
        self.now += step

    @rule()
    def keep_in_the_database(self):
        bucket = self.bucket
        self.bucket = Bucket.unpack(bucket.allowance, bucket.window_seconds, bucket.pack(), bucket.closed_until)

    @invariant()
    def ours_is_never_more_than_esis(self):
        to_come = sum(COST for flight in self.flights if flight.status is None)
        not_heard_of = sum(
            max(0, cost_of(flight.status) - COST) for flight in self.flights if flight.status is not None
        )
        assert self.bucket.remaining(self.now) <= self.esi.remaining(self.now) - to_come + not_heard_of

    def _apply(self, change: Change | None) -> None:
        if change is not None:
            self.bucket = change(self.bucket, self.now)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("window", [60, 900])
def test_a_stranger_on_the_same_address_is_noticed(window):
    # Given somebody else who spends half of the allowance, unseen by us
    esi, bucket, now = Esi(200, window, [(START, 100)]), Bucket(200, window), START
    group, refused = RateGroup("killmail", 200, window), 0
    for _ in range(100):
        if not bucket.allows(now, COST):
            break
        bucket = bucket.spend(now + TRANSIT, COST)
        spent = Spent(bucket, COST, now, now + TRANSIT)
        now += 0.1
        if esi.remaining(now) < COST:
            refused += 1
            break
        esi.charged.append((now, COST))
        # When ESI's answers say what is left
        change = after_answer(spent, 200, RateHeaders(200, window, esi.remaining(now)), now, group)
        bucket = bucket if change is None else change(bucket, now)
    # Then we stop in time
    assert refused == 0
    assert bucket.remaining(now) <= esi.remaining(now)
