"""Permits and buckets, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
import time

import pytest

import database
from esi import rate_store
from esi.bucket_states import COUNTED, SAMPLE
from esi.limiter import HORIZON_SECONDS, Allowance, Closed, Limiter
from esi.rate_limit import CHAR_KILLMAIL, ERRORS, KILLMAIL, UNBUCKETED, Bucket, RateGroup
from esi.roads import TOLD_TO_WAIT
from tests.unit.esi.limiting import RATE, a_window_later, answer, counted_statements, refused, remaining, time_passes

pytestmark = pytest.mark.usefixtures("any_db")

SMALL = RateGroup("small", 20, 900)


@pytest.fixture
def limiter():
    return Limiter(RATE)


@pytest.mark.parametrize(("status", "cost"), [(200, 2), (304, 1), (404, 5), (422, 5), (429, 0), (500, 0), (503, 0)])
def test_an_answer_costs_what_esi_charges(limiter, status, cost):
    # When a request is answered so
    answer(limiter, status)
    # Then just that is spent
    assert remaining(limiter) == KILLMAIL.allowance - cost


def test_what_is_on_its_way_is_spent(limiter):
    limiter.acquire(KILLMAIL, "ip", background=False)
    assert remaining(limiter) == KILLMAIL.allowance - 2


def test_a_request_that_never_left_costs_nothing(limiter):
    limiter.acquire(KILLMAIL, "ip", background=False).unsent()
    assert remaining(limiter) == KILLMAIL.allowance


def test_a_request_that_was_not_answered_may_have_been_charged(limiter):
    limiter.acquire(KILLMAIL, "ip", background=False).unanswered()
    assert remaining(limiter) == KILLMAIL.allowance - 2


def test_a_permit_is_good_for_one_request(limiter):
    permit = limiter.acquire(KILLMAIL, "ip", background=False)
    permit.answered(304, {})
    with pytest.raises(RuntimeError):
        permit.unsent()
    assert remaining(limiter) == KILLMAIL.allowance - 1


def test_a_bucket_is_never_overdrawn_and_says_when_there_is_more(limiter):
    # Given everything spent
    before = time.time()
    for _ in range(10):
        answer(limiter, 200, group=SMALL)
    # When one more is asked for
    closed = refused(limiter, SMALL)
    # Then it is told when: one window after the first, and hardly later
    assert closed.reason == "ESI's allowance is used up"
    assert before + 900 <= closed.until <= time.time() + 900 + 10
    assert limiter.allowance(SMALL, "ip", background=False).requests == 0


def test_background_work_stops_at_a_quarter_and_people_do_not(limiter):
    # Given background work that takes what it gets
    for _ in range(7):
        answer(limiter, 200, group=SMALL, background=True)
    # Then the last quarter (5 of 20 tokens; 6 are left) is not for it
    refused(limiter, SMALL, background=True)
    assert limiter.allowance(SMALL, "ip", background=True).requests == 0
    assert limiter.allowance(SMALL, "ip", background=False) == Allowance(3, None, None)
    for _ in range(3):
        answer(limiter, 200, group=SMALL)
    refused(limiter, SMALL)


def test_owners_have_buckets_of_their_own(limiter):
    for _ in range(15):
        answer(limiter, 200, group=CHAR_KILLMAIL, owner="90000001")
    refused(limiter, CHAR_KILLMAIL, "90000001")
    answer(limiter, 200, group=CHAR_KILLMAIL, owner="90000002")


def test_what_is_upcoming_is_taken_off_the_allowance(limiter):
    # Given messages on their way that will make requests
    assert limiter.allowance(SMALL, "ip", background=False, upcoming=4) == Allowance(6, None, None)
    # When they will use up everything
    nothing = limiter.allowance(SMALL, "ip", background=False, upcoming=10)
    # Then there is more when theirs returns, a window from now
    assert (nothing.requests, nothing.reason) == (0, "ESI's allowance is used up")
    assert nothing.reopens_at is not None
    assert time.time() + 899 <= nothing.reopens_at <= time.time() + 908


def test_a_group_without_a_bucket_is_not_counted(limiter):
    answer(limiter, 200, group=UNBUCKETED)
    assert limiter.allowance(UNBUCKETED, "ip", background=True).requests > 1000
    assert limiter.snapshot() == []


def test_a_changed_rule_is_obeyed(limiter):
    # When ESI advertises another rule than we knew
    for left in ("10", "8", "6"):
        answer(limiter, 200, {"X-Ratelimit-Limit": "12/1m", "X-Ratelimit-Remaining": left})
    # Then the next requests keep it
    for _ in range(3):
        answer(limiter, 200)
    # The first spend was kept in a slice of seven seconds: it returns that much late, this once.
    assert time.time() + 59 <= refused(limiter).until < time.time() + 70


def test_less_left_than_we_thought_is_believed_and_more_is_not(limiter):
    answer(limiter, 200, {"X-Ratelimit-Limit": "3600/15m", "X-Ratelimit-Remaining": "100"})
    assert remaining(limiter) == 100
    answer(limiter, 200, {"X-Ratelimit-Limit": "3600/15m", "X-Ratelimit-Remaining": "3598"})
    assert remaining(limiter) == 98


def test_a_refusal_closes_the_bucket_for_all_until_retry_after(limiter):
    # When ESI finds the bucket empty
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "30"})
    # Then no process asks before that
    for each in (limiter, Limiter(RATE)):
        assert time.time() + 29 <= refused(each).until <= time.time() + 32
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests == 0
    # And other buckets are open
    answer(limiter, 200, group=CHAR_KILLMAIL)


def test_after_a_refusal_one_request_goes_first(limiter):
    # Given a bucket that ESI found empty, and the time has passed
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "30"})
    time_passes(32)
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests == 1
    # When one request is on its way
    first = limiter.acquire(KILLMAIL, "ip", background=False)
    # Then the others wait for what it finds
    refused(limiter)
    # And go on once it has succeeded
    first.answered(200, {"X-Ratelimit-Remaining": "3000"})
    answer(limiter, 200)


def test_a_trial_that_is_refused_closes_the_bucket_again(limiter):
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "30"})
    time_passes(32)
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "40"})
    assert refused(limiter).until > time.time() + 35


def test_a_trial_that_is_lost_is_followed_by_another(limiter):
    # Given a first request whose process died
    answer(limiter, 429, {"X-Ratelimit-Remaining": "0", "Retry-After": "30"})
    time_passes(32)
    limiter.acquire(KILLMAIL, "ip", background=False)
    refused(limiter)
    # When its time has passed
    time_passes(11)
    # Then the next one goes
    answer(limiter, 200)
    answer(limiter, 200)


def test_the_normal_course_is_three_statements_and_an_answer_none(limiter, any_db):
    # Given rows that exist
    answer(limiter, 200)
    # When a request is made and succeeds
    with counted_statements(any_db) as statements:
        answer(limiter, 200, {"X-Ratelimit-Limit": "3600/15m", "X-Ratelimit-Remaining": "3590"})
    # Then it cost one look, one spend, one slot, and nothing afterwards
    assert len(statements) == 3


def test_no_permit_within_a_transaction(limiter, any_db):
    with any_db.atomic(), pytest.raises(RuntimeError):
        limiter.acquire(KILLMAIL, "ip", background=False)


def test_a_slot_too_far_away_costs_nothing():
    # Given a ceiling whose next slots are taken
    slow = Limiter(1 / 60)
    slow.acquire(SMALL, "ip", background=False)
    # When one more is asked for
    started = time.monotonic()
    closed = refused(slow, SMALL)
    # Then it is refused without waiting, and no token was spent on it
    assert time.monotonic() - started < HORIZON_SECONDS
    assert closed.until > time.time() + 50
    assert remaining(slow, SMALL) == 18


def test_a_slot_of_a_clock_that_was_set_back_holds_nobody_up(limiter):
    answer(limiter, 200)
    database.execute("UPDATE rate_slots SET next_at = next_at + 7200")
    assert limiter.acquire(KILLMAIL, "ip", background=False).slot_at < time.time() + 1


@pytest.mark.parametrize("group", [SMALL, ERRORS])
def test_what_a_wrong_clock_spent_returns_a_window_after_the_first_look(limiter, group):
    # Given a bucket that was emptied by a clock two hours ahead
    rate_store.create_bucket(f"{group.name}:ip", group)
    ahead = Bucket(group.allowance, group.window_seconds).spend(time.time() + 7200, group.allowance)
    rate_store.store_bucket(f"{group.name}:ip", ahead)
    refused(limiter, SMALL)
    # When a window has passed since somebody looked
    a_window_later(group.window_seconds + 20)
    # Then the road is open again
    answer(limiter, 200, group=SMALL)


def test_what_a_wrong_clock_closed_is_not_closed_for_longer_than_any_header_may(limiter):
    # Given a gate that a clock closed that was more than an hour ahead
    answer(limiter, 429, {"Retry-After": "30"})
    database.execute("UPDATE gates SET closed_until = closed_until + 3700")
    # Then it is open
    answer(limiter, 200)


def test_threads_together_spend_no_token_twice_and_none_too_many(limiter):
    # Given a bucket for ten requests and eight threads that want five each
    granted, lock = [], threading.Lock()

    def work():
        with database.db.connection_context():
            for _ in range(5):
                try:
                    limiter.acquire(SMALL, "ip", background=False).answered(200, {})
                except Closed:
                    continue
                with lock:
                    granted.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Then ten went
    assert len(granted) == 10
    assert remaining(limiter, SMALL) == 0


def test_the_snapshot_names_no_owner(limiter):
    # Given buckets of two characters, one fuller than the other
    before = time.time()
    answer(limiter, 200, group=CHAR_KILLMAIL, owner="90000001")
    answer(limiter, 404, group=CHAR_KILLMAIL, owner="90000002")
    # Then the emptiest stands for its group
    (state, errors) = limiter.snapshot()
    assert (errors.name, errors.buckets, errors.remaining) == ("errors", 1, 59)
    assert (state.name, state.allowance, state.remaining, state.closed_until) == ("char-killmail", 30, 25, None)
    assert (state.buckets, state.closed, state.window_seconds) == (2, 0, 900)
    # And it is told when there will be more, and when all are full
    assert state.more_at is not None and state.full_at is not None
    assert before + 899 <= state.more_at <= state.full_at < before + 930


def test_the_snapshot_counts_what_is_closed(limiter):
    # Given three buckets of a group: one untouched since, one empty, one that ESI closed for longer
    for _ in range(10):
        answer(limiter, 200, group=SMALL, owner="1")
    answer(limiter, 200, group=SMALL, owner="2")
    answer(limiter, 200, group=SMALL, owner="3")
    answer(limiter, 429, {"Retry-After": "2000", "X-Ratelimit-Limit": "20/15m"}, group=SMALL, owner="3")
    # Then two are closed; the emptiest of them opens when its first tokens return
    state = next(state for state in limiter.snapshot() if state.name == SMALL.name)
    assert (state.buckets, state.closed, state.remaining) == (3, 2, 0)
    assert state.closed_until == state.more_at
    assert state.closed_until is not None and time.time() + 890 < state.closed_until < time.time() + 930
    assert state.full_at is not None and state.full_at > time.time() + 1900


def test_the_snapshot_tells_the_next_tokens_from_the_last(limiter):
    # Given a bucket of which something was spent ten minutes ago, and something one minute ago
    now = time.time()
    spent = Bucket(20, 900).spend(now - 600, 4).spend(now - 60, 6)
    rate_store.create_bucket("small:ip", SMALL)
    rate_store.store_bucket("small:ip", spent)
    # Then the first returns fifteen minutes after it was spent, and the last makes it full
    (state,) = limiter.snapshot()
    assert now + 299 <= state.more_at < now + 320
    assert now + 839 <= state.full_at < now + 860


def test_the_snapshot_of_what_is_full_has_nothing_to_wait_for(limiter):
    limiter.acquire(KILLMAIL, "ip", background=False).unsent()
    state = next(state for state in limiter.snapshot() if state.name == "killmail")
    assert (state.remaining, state.more_at, state.full_at) == (3600, None, None)


def _keys() -> set[str]:
    return {key for (key,) in database.execute("SELECT bucket FROM rate_buckets").fetchall()}


def test_a_characters_bucket_is_forgotten_when_everything_has_returned(limiter):
    for owner in ("1", "3"):
        answer(limiter, 200, group=CHAR_KILLMAIL, owner=owner)
    answer(limiter, 200)
    a_window_later()
    answer(limiter, 200, group=CHAR_KILLMAIL, owner="2")
    # One that ESI has closed until a moment ago: what others spent of it nobody knows
    database.execute("UPDATE rate_buckets SET closed_until = ? WHERE bucket = 'char-killmail:3'", (time.time() - 1,))
    limiter.forget_idle(CHAR_KILLMAIL)
    assert _keys() == {"char-killmail:2", "char-killmail:3", "killmail:ip"}
    # And it is as good as new
    limiter.acquire(CHAR_KILLMAIL, "1", background=False).answered(200, {})
    assert limiter.allowance(CHAR_KILLMAIL, "1", background=False).requests == 14


def test_a_request_on_its_way_keeps_its_bucket(limiter):
    permit = limiter.acquire(CHAR_KILLMAIL, "1", background=False)
    limiter.forget_idle(CHAR_KILLMAIL)
    permit.answered(200, {})
    assert limiter.allowance(CHAR_KILLMAIL, "1", background=False).requests == 14


def _create(owners: range) -> None:
    """A full bucket for each of these characters."""
    database.insert_rows(
        "rate_buckets",
        ("bucket", "allowance", "window_seconds", "spends", "closed_until"),
        [(f"char-killmail:{owner}", 30, 900, "", 0.0) for owner in owners],
    )


def test_sweeps_go_on_where_the_last_one_ended(limiter):
    owners = [str(number) for number in range(1, 8)]
    for owner in owners:
        answer(limiter, 200, group=CHAR_KILLMAIL, owner=owner)
    assert limiter.forget_idle(CHAR_KILLMAIL, batch=3) == 0  # finds the first three in use
    a_window_later()
    for owner in ("1", "6"):
        answer(limiter, 200, group=CHAR_KILLMAIL, owner=owner)
    assert limiter.forget_idle(CHAR_KILLMAIL, batch=3) == 3
    assert _keys() == {f"char-killmail:{owner}" for owner in ("1", "2", "3", "6")}
    assert limiter.forget_idle(CHAR_KILLMAIL, batch=3) == 2
    assert _keys() == {"char-killmail:1", "char-killmail:6"}


def test_one_sweep_deletes_as_many_as_polls_create_between_two(limiter):
    # Given 1,600 pilots whose lists were read a window ago, among 400 whose were read just now
    _create(range(90_000_000, 90_002_000))
    now = time.time()
    used = Bucket(30, 900).spend(now, 2).pack()
    database.execute(
        "UPDATE rate_buckets SET spends = ? WHERE bucket LIKE ? OR bucket LIKE ?",
        (used, "char-killmail:%7", "char-killmail:%3"),
    )
    # When the tick sweeps once
    assert limiter.forget_idle(CHAR_KILLMAIL) == 1600
    # Then nothing idle is left, and nothing else is gone
    assert len(_keys()) == 400


def test_a_sweep_of_buckets_in_use_looks_at_a_few(limiter, any_db):
    _create(range(90_000_000, 90_003_000))
    database.execute("UPDATE rate_buckets SET spends = ?", (Bucket(30, 900).spend(time.time(), 2).pack(),))
    limiter.is_down()  # makes the row of slots
    with counted_statements(any_db) as statements:
        assert limiter.forget_idle(CHAR_KILLMAIL) == 0
    assert len(statements) == 2


def test_the_snapshot_looks_at_a_sample_and_says_so(limiter, any_db):
    # Given the buckets of more pilots than are counted, one of which ESI has closed, and that of this address
    _create(range(90_000_000, 90_000_000 + COUNTED + 500))
    answer(limiter, 200)
    answer(limiter, 429, {"Retry-After": "2000"}, CHAR_KILLMAIL, "90010400")
    with counted_statements(any_db) as statements:
        states = {state.name: state for state in limiter.snapshot()}
    # Then that costs four statements, and finds the closed one through its index
    assert len(statements) <= 5
    lists = states["char-killmail"]
    assert lists.more_buckets
    assert (lists.closed, lists.sampled) == (1, SAMPLE + 1)
    assert lists.closed_until is not None and lists.closed_until > time.time() + 1900
    assert lists.reason == TOLD_TO_WAIT
    assert lists.buckets <= COUNTED + 1
    # And what there is one of is exact
    assert (states["killmail"].buckets, states["killmail"].sampled, states["killmail"].more_buckets) == (1, 0, False)


def test_the_sample_moves_on_until_all_were_looked_at(limiter):
    _create(range(90_000_000, 90_000_000 + 2 * SAMPLE + 100))
    empty = Bucket(30, 900).spend(time.time(), 30).pack()
    last = f"char-killmail:{90_000_000 + 2 * SAMPLE + 50}"
    database.execute("UPDATE rate_buckets SET spends = ? WHERE bucket = ?", (empty, last))
    found = [limiter.snapshot()[0] for _ in range(3)]
    assert [state.closed for state in found] == [0, 0, 1]
    assert [state.buckets for state in found] == [2 * SAMPLE + 100] * 3
    assert not any(state.more_buckets for state in found)
