"""What ESI is likely to refuse leaves a part of the errors that we allow ourselves in a minute to the others."""

from __future__ import annotations

import pytest

from esi.limiter import Closed, Limiter
from esi.rate_limit import CHAR_KILLMAIL, ERRORS, KILLMAIL, UNBUCKETED, Doubt, cost_of

pytestmark = pytest.mark.usefixtures("any_db")

ALL = ERRORS.allowance


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(1000)


def meet_errors(limiter, count: int) -> None:
    for _ in range(count):
        limiter.acquire(KILLMAIL, "ip", background=False).answered(422, {})


@pytest.mark.parametrize("doubt", [Doubt.SOME, Doubt.MUCH])
def test_doubtful_requests_wait_once_their_part_of_the_errors_is_used_and_others_go_on(limiter, doubt):
    meet_errors(limiter, ALL - doubt - 1)
    limiter.acquire(KILLMAIL, "ip", background=False, doubt=doubt).answered(422, {})
    with pytest.raises(Closed) as closed:
        limiter.acquire(KILLMAIL, "ip", background=False, doubt=doubt)
    assert closed.value.road == ERRORS.name
    limiter.acquire(KILLMAIL, "ip", background=False, failed_before=True).answered(200, {})


def test_what_is_refused_often_leaves_names_and_what_was_refused_once_their_errors(limiter):
    with pytest.raises(Closed):
        for _ in range(ALL):
            limiter.acquire(KILLMAIL, "ip", background=False, doubt=Doubt.MUCH).answered(422, {})
    limiter.acquire(KILLMAIL, "ip", background=False, doubt=Doubt.SOME).answered(200, {})
    limiter.acquire(UNBUCKETED, "ip", background=True).answered(200, {})


def test_what_is_refused_often_costs_no_more_than_a_quarter_of_the_killmails_tokens(limiter):
    # Given as many refusals, minute after minute, as what is refused often may have
    refused = 0
    with pytest.raises(Closed):
        while True:
            limiter.acquire(KILLMAIL, "ip", background=False, doubt=Doubt.MUCH).answered(422, {})
            refused += 1
    minutes = KILLMAIL.window_seconds / ERRORS.window_seconds
    # Then a window of them leaves three quarters of the tokens to others
    assert refused * cost_of(422) * minutes <= KILLMAIL.allowance / 4


def test_background_that_fails_leaves_errors_to_those_for_whom_a_pilot_waits(limiter):
    with pytest.raises(Closed):
        for character_id in range(1, ALL + 1):
            limiter.acquire(CHAR_KILLMAIL, str(character_id), background=True).answered(403, {})
    assert limiter.allowance(KILLMAIL, "ip", background=True).requests == 0
    assert limiter.allowance(KILLMAIL, "ip", background=False).requests > 0
    limiter.acquire(CHAR_KILLMAIL, "1000", background=False).answered(200, {})


def test_the_allowance_says_how_many_doubtful_requests_may_be_made_and_when_again(limiter):
    allowance = limiter.allowance(KILLMAIL, "ip", background=False)
    assert (allowance.doubtful, allowance.behind, allowance.behind_at) == (ALL - Doubt.SOME, ALL - Doubt.MUCH, None)
    assert not limiter.is_short_of_errors()
    meet_errors(limiter, 10)
    allowance = limiter.allowance(KILLMAIL, "ip", background=False)
    assert (allowance.doubtful, allowance.behind, allowance.behind_at) == (20, 2, None)
    meet_errors(limiter, 10)
    allowance = limiter.allowance(KILLMAIL, "ip", background=False)
    assert allowance.requests > 0
    assert (allowance.doubtful, allowance.behind) == (10, 0)
    assert allowance.behind_at is not None
    meet_errors(limiter, 10)
    assert limiter.is_short_of_errors()
