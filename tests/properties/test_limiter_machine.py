"""Whatever requests, answers, clocks and rules do: ESI's bucket is not overdrawn, and the road opens again.

Several processes, as far as memory goes, share one database; their machine's clock and ESI's are two. The bucket
beside them is ESI's own (`esi_bucket.py`), and knows of every charge what the limiter can know of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import clock
import database
from esi import limiter, rate_store
from esi.charges import CONFIRMATIONS, FIRST_BACK_OFF_SECONDS
from esi.limiter import TRIAL_SECONDS, Closed, Limiter
from esi.permit import RequestPermit
from esi.rate_headers import MAX_WAIT_SECONDS
from esi.rate_limit import SLICES, Bucket, RateGroup
from tests.properties.budget import budget
from tests.properties.esi_bucket import COSTS, Charge, EsiBucket, FakeTime
from tests.properties.stepping import interleave
from tests.properties.table import wipe

RATE = 1000.0
#: Seconds after which the client gives up on an answer: below every window.
TIMEOUT = 45.0
PROCESSES = 3
ANSWERS = (200, 200, 200, 304, 304, 404, 422, 500, 502)

which = st.integers(0, 20)
allowances, windows = st.integers(2, 40), st.sampled_from([60, 300, 900])


@dataclass(eq=False)
class Flight:
    """A request on its way. `status` and `headers` once ESI has answered."""

    permit: RequestPermit
    left_at: float
    reserved: int
    rule_known: tuple[int, int]
    status: int | None = None
    headers: dict[str, str] | None = None
    rule: tuple[int, int] = (0, 0)
    charge: Charge | None = None
    forgiven: float = 0.0

    @property
    def unheard_of(self) -> int:
        """What it cost more than was reserved, as long as nobody has heard of it."""
        return 0 if self.status is None else max(0, COSTS[self.status] - self.reserved)


class LimiterMachine(RuleBasedStateMachine):
    time: FakeTime  # of the run

    @initialize(
        allowance=allowances,
        window=windows,
        offset=st.floats(0, 900, allow_nan=False),
        clock=st.booleans(),
        rule=st.booleans(),
        per_owner=st.booleans(),
    )
    def begin(self, allowance: int, window: int, offset: float, clock: bool, rule: bool, per_owner: bool) -> None:
        """`clock`, `rule`: whether these change, which excuses some of what the limiter does next. `per_owner`: the
        bucket is a pilot's, so that a refusal by the game server closes the bucket and not the gate."""
        wipe()
        self.clock_changes, self.rule_changes = clock, rule
        self.time.true, self.time.wrong_by = FakeTime.true + offset, 0.0
        self.limiters = [Limiter(RATE) for _ in range(PROCESSES)]
        self.group = RateGroup("killmail", allowance, window, per_owner=per_owner)
        self.esi = EsiBucket(allowance, window)
        self.flights: list[Flight] = []
        self.closed_until = 0.0  # true time; what ESI has told us
        self.tried_at: float | None = None  # the one request that goes first afterwards
        self.excused_until = 0.0  # ESI's rule is not what the limiter could know
        self.set_back = False
        self.told: list[tuple[int, int]] = []  # the rules, other than the known one, that ESI stated in a row

    # Requests

    @rule(pick=which, background=st.booleans(), conditional=st.booleans())
    def ask(self, pick: int, background: bool = False, conditional: bool = False) -> None:
        bucket = self._bucket()
        try:
            permit = self.limiters[pick % PROCESSES].acquire(
                self.group, "ip", background=background, conditional=conditional
            )
        except Closed as closed:
            assert closed.until > self.time.time() - 1
            return
        now = self.time.true
        assert now >= self.closed_until, "ESI asked to wait"
        assert permit.slot_at >= self.time.time() - 1, "and it leaves now"
        if bucket is not None and bucket.on_trial:
            assert self.tried_at is None or now >= self.tried_at + TRIAL_SECONDS, "one goes first"
            self.tried_at = now
        known = self.group.allowance, self.group.window_seconds
        if bucket is not None:
            known = bucket.allowance, bucket.window_seconds
        self.flights.append(Flight(permit, now, 1 if conditional else 2, known))

    @rule(pick=which, times=st.integers(2, 30))
    def ask_for_many(self, pick: int, times: int) -> None:
        for turn in range(times):
            self.ask(pick + turn)

    @rule(status=st.sampled_from(ANSWERS), times=st.integers(1, 20), pick=which, with_bucket=st.booleans())
    def all_goes_well(self, status: int, times: int, pick: int, with_bucket: bool) -> None:
        """One after the other, each answered at once."""
        for turn in range(times):
            before = len(self.flights)
            self.ask(pick + turn)
            if len(self.flights) == before:
                return
            self._is_charged(self.flights[-1], status, with_bucket=with_bucket, wait="seconds")
            self._is_heard(self.flights[-1])

    @precondition(lambda self: any(flight.status is None for flight in self.flights))
    @rule(
        pick=which,
        status=st.sampled_from(ANSWERS),
        with_bucket=st.booleans(),
        wait=st.sampled_from(["seconds", "date", None]),
    )
    def esi_charges(self, pick: int, status: int, with_bucket: bool, wait: str | None) -> None:
        self._is_charged(self._on_the_way(pick), status, with_bucket=with_bucket, wait=wait)

    @precondition(lambda self: any(flight.status is None for flight in self.flights))
    @rule(pick=which, wait=st.sampled_from(["5", "30", "0", None]))
    def the_game_server_refuses(self, pick: int, wait: str | None) -> None:
        """429 without the bucket's headers, and without a charge."""
        flight = self._on_the_way(pick)
        flight.status, flight.headers = 429, {"Retry-After": wait} if wait else {}

    @precondition(lambda self: any(flight.status is not None for flight in self.flights))
    @rule(pick=which)
    def an_answer_is_heard(self, pick: int) -> None:
        answered = [flight for flight in self.flights if flight.status is not None]
        self._is_heard(answered[pick % len(answered)])

    @precondition(lambda self: self.flights)
    @rule(pick=which, charged=st.booleans())
    def an_answer_never_comes(self, pick: int, charged: bool) -> None:
        flight = self.flights[pick % len(self.flights)]
        if flight.status is None and charged:
            self.esi.charge(self.time.true, flight.reserved).forgiven = flight.forgiven
        self._is_lost(flight)
        flight.permit.unanswered()

    @precondition(lambda self: any(flight.status is None for flight in self.flights))
    @rule(pick=which)
    def a_request_never_leaves(self, pick: int) -> None:
        flight = self._on_the_way(pick)
        self.flights.remove(flight)
        flight.permit.unsent()

    @precondition(lambda self: self.flights)
    @rule(pick=which, charged=st.booleans())
    def a_process_dies(self, pick: int, charged: bool) -> None:
        """Between asking and hearing. What ESI charges for it so late that nobody could tell is another's."""
        flight = self.flights[pick % len(self.flights)]
        if flight.status is None and charged:
            in_time = self.time.true <= flight.left_at + 0.5
            self.esi.charge(self.time.true, flight.reserved, known=in_time).forgiven = flight.forgiven
        self._is_lost(flight)
        self.limiters[pick % PROCESSES] = Limiter(RATE)

    # Others, clocks and rules

    @rule(tokens=st.integers(1, 40))
    def others_spend(self, tokens: int) -> None:
        left = self.esi.remaining(self.time.true)
        self.esi.charge(self.time.true, max(0, min(tokens, left)), known=False)

    @rule(part=st.sampled_from([0.0001, 0.01, 0.06, 0.3, 0.7, 1.0]))
    def time_passes(self, part: float) -> None:
        self._wait(part * self.esi.window)

    def _wait(self, seconds: float) -> None:
        self.time.true += max(0.0, seconds)
        for flight in [flight for flight in self.flights if flight.left_at + TIMEOUT < self.time.true]:
            self._is_lost(flight)
            flight.permit.unanswered()

    @precondition(lambda self: self.esi.charges)
    @rule(pick=which)
    def a_cost_is_about_to_return(self, pick: int) -> None:
        """One of those that the limiter counts, by its own clock."""
        charge = self.esi.charges[pick % len(self.esi.charges)]
        self._wait(charge.at + self.esi.window - charge.forgiven - self.time.true - 0.01)

    @precondition(lambda self: self.clock_changes)
    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0, 600.0, 7000.0]), forward=st.booleans())
    def the_clock_is_set(self, seconds: float, forward: bool) -> None:
        """What the limiter takes for returned when it is set forward it cannot know better."""
        if forward:
            self.time.wrong_by += seconds
            if self.set_back and self.flights:
                # A spend that was drawn to the wrong time is taken for returned, and its refund for another's.
                self.excused_until = self.time.true + 900
            for charge in self.esi.charges:
                charge.forgiven += seconds
            for flight in self.flights:
                flight.forgiven += seconds
            self.closed_until -= seconds
            self.tried_at = None if self.tried_at is None else self.tried_at - seconds
        else:
            self.time.wrong_by -= seconds
            self.set_back = True
            if seconds > MAX_WAIT_SECONDS:
                self.closed_until = 0.0  # ESI's words cannot be told from the mark of a clock that was wrong

    @precondition(lambda self: self.rule_changes)
    @rule(allowance=allowances, window=windows, other_group=st.booleans())
    def esi_changes_its_rule(self, allowance: int, window: int, other_group: bool) -> None:
        self.esi.changes(self.time.true, allowance, window, other_group=other_group)

    # What is always so

    @invariant()
    def no_more_is_promised_than_esi_has(self) -> None:
        bucket = self._bucket()
        if bucket is None:
            return
        if bucket.window_seconds != self.esi.window:
            self.excused_until = self.time.true + 900
        if (bucket.allowance, bucket.window_seconds) != self.esi.rule or self.time.true < self.excused_until:
            return
        to_come = sum(flight.reserved for flight in self.flights if flight.status is None and not flight.forgiven)
        unheard_of = sum(flight.unheard_of for flight in self.flights)
        left = self.esi.allowance - self.esi.known_to_be_spent(self.time.true)
        assert bucket.remaining(self.time.time()) <= left - to_come + unheard_of

    def teardown(self) -> None:
        """Nobody answers any more, and nothing is asked: within its time the road is open again, all of it."""
        if not hasattr(self, "limiters"):
            return
        began = self.time.true
        bucket = self._bucket()
        window = max(self.esi.window, bucket.window_seconds if bucket else 0)
        # ESI's words, the errors' minute, the probes of a downtime; and what a clock that was set back makes of them.
        longest = max(window, 900) * (1 + 1 / SLICES) + TRIAL_SECONDS + 60
        longest += MAX_WAIT_SECONDS if self.set_back else 0
        for _ in range(50):
            try:
                permit = self.limiters[0].acquire(self.group, "ip", background=False)
            except Closed as closed:
                assert self.time.true - began <= longest, f"closed for ever: {closed}"
                self.time.true += max(0.01, closed.until - self.time.time())
                continue
            permit.answered(200, {})
            break
        else:
            raise AssertionError("asked fifty times, and still closed")

    def _on_the_way(self, pick: int) -> Flight:
        flights = [flight for flight in self.flights if flight.status is None]
        return flights[pick % len(flights)]

    def _is_charged(self, flight: Flight, status: int, *, with_bucket: bool, wait: str | None) -> None:
        now = self.time.true
        flight.status = status if self.esi.remaining(now) > 0 else 429
        flight.charge = self.esi.charge(now, COSTS[flight.status])
        flight.charge.forgiven = flight.forgiven
        flight.headers = self.esi.headers(now, flight.status, with_bucket=with_bucket, wait=wait)
        flight.rule = self.esi.rule

    def _is_heard(self, flight: Flight) -> None:
        assert flight.status is not None
        assert flight.headers is not None
        self.flights.remove(flight)
        flight.permit.answered(flight.status, flight.headers)
        self._is_told_a_rule(flight)
        if flight.status == 429:
            self._has_to_wait(flight.headers)
        elif flight.status < 500:
            self.tried_at = None

    def _is_told_a_rule(self, flight: Flight) -> None:
        """A new rule is learned when enough answers in a row state it; another group's is none of ours."""
        assert flight.headers is not None
        is_ours = flight.headers.get("X-Ratelimit-Group") == self.group.name
        self.told = [*self.told, flight.rule] if is_ours and flight.rule != flight.rule_known else []
        bucket = self._bucket()
        if bucket is not None and len(self.told) >= CONFIRMATIONS and len(set(self.told[-CONFIRMATIONS:])) == 1:
            assert (bucket.allowance, bucket.window_seconds) == flight.rule, "another rule is learned"

    def _has_to_wait(self, headers: dict[str, str]) -> None:
        said = headers.get("Retry-After", "")
        seconds = float(said) if said.isdecimal() and said != "0" else FIRST_BACK_OFF_SECONDS
        self.closed_until = max(self.closed_until, self.time.true + seconds)
        self.tried_at = None

    def _is_lost(self, flight: Flight) -> None:
        """What it cost more than was reserved nobody will hear of: as if others had spent that."""
        self.flights.remove(flight)
        if flight.charge is not None and flight.unheard_of:
            flight.charge.cost = flight.reserved
            self.esi.charge(flight.charge.at, flight.unheard_of, known=False)

    def _bucket(self) -> Bucket | None:
        return rate_store.read("killmail:ip", database.clock).bucket


@pytest.fixture
def fake_time(sqlite_db: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTime]:
    """The limiter's time, on an empty database."""
    fake = FakeTime()
    for module in (clock, limiter, rate_store):
        monkeypatch.setattr(module, "time", fake)
    with database.db.connection_context():
        database.execute("PRAGMA synchronous = off")
        yield fake


def test_no_order_of_anything_overdraws_a_bucket_or_closes_it_for_ever(fake_time: FakeTime) -> None:
    machine = type("TimedLimiterMachine", (LimiterMachine,), {"time": fake_time})
    run_state_machine_as_test(machine, settings=budget(examples=200, steps=40))


#: Rare enough among all orders that the short form may miss them.
KILLMAIL = RateGroup("killmail", 100, 900)


def test_a_refusal_heard_after_the_clock_was_set_back_closes_by_the_clock_as_it_is(
    fake_time: FakeTime,
) -> None:
    process = Limiter(RATE)
    permit = process.acquire(KILLMAIL, "ip", background=False)
    fake_time.wrong_by -= 7000
    permit.answered(429, {"Retry-After": "30"})
    with pytest.raises(Closed) as closed:
        process.acquire(KILLMAIL, "ip", background=False)
    assert 29 < closed.value.until - fake_time.time() < 33


def test_an_answer_heard_after_the_clock_was_set_back_forgets_nobodys_spends(fake_time: FakeTime) -> None:
    permit = Limiter(RATE).acquire(KILLMAIL, "ip", background=False)
    fake_time.wrong_by -= 7000
    Limiter(RATE).acquire(KILLMAIL, "ip", background=False)
    permit.answered(404, {})
    assert _remaining() <= 100 - 2 - 5


def test_what_may_have_been_charged_after_the_clock_was_set_back_is_counted_from_its_end(fake_time: FakeTime) -> None:
    process = Limiter(RATE)
    permit = process.acquire(KILLMAIL, "ip", background=False)
    fake_time.wrong_by -= 7000
    process.acquire(KILLMAIL, "ip", background=False).unsent()
    fake_time.true += 40
    permit.unanswered()
    fake_time.true += 890
    assert _remaining() <= 98


def _remaining() -> int:
    view = rate_store.read("killmail:ip", database.clock)
    assert view.bucket is not None
    return view.bucket.remaining(view.now)


@pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)
@given(
    ends=st.lists(st.sampled_from(["unsent", "silent", 200, 304, 404, 500]), min_size=2, max_size=3),
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), max_size=8),
)
@budget(examples=60)
def test_processes_at_once_spend_no_token_twice_and_lose_none(
    quick_db: object, ends: list[str | int], turns: list[tuple[int, int]]
) -> None:
    """Each asks twice, cut into statements: the bucket ends as if one had come after the other."""
    wipe()
    group = RateGroup("killmail", 7, 900)
    spent: list[int] = []
    costs: dict[Any, int] = {"unsent": 0, "silent": 2, **COSTS}

    def ask_twice(end: str | int) -> None:
        process = Limiter(100_000)
        for _ in range(2):
            try:
                permit = process.acquire(group, "ip", background=False)
            except Closed:
                continue
            spent.append(costs[end])
            if end == "unsent":
                permit.unsent()
            elif end == "silent":
                permit.unanswered()
            else:
                permit.answered(int(end), {})

    order = [who for who, steps in turns for _ in range(steps)]
    interleave([lambda end=end: ask_twice(end) for end in ends], order)  # type: ignore[misc]
    assert _remaining() == 7 - sum(spent)
