"""Requests that ESI is likely to refuse may use half of the errors that we allow ourselves in a minute."""

from __future__ import annotations

import pytest

from esi.limiter import Closed, Limiter
from esi.rate_limit import ERRORS, KILLMAIL

pytestmark = pytest.mark.usefixtures("any_db")

HALF = ERRORS.allowance // 2


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(1000)


def meet_errors(limiter, count: int) -> None:
    for _ in range(count):
        limiter.acquire(KILLMAIL, "ip", background=False).answered(422, {})


def test_with_half_of_the_errors_used_only_doubtful_requests_wait(limiter):
    meet_errors(limiter, HALF - 1)
    limiter.acquire(KILLMAIL, "ip", background=False, doubtful=True).answered(422, {})
    with pytest.raises(Closed) as closed:
        limiter.acquire(KILLMAIL, "ip", background=False, doubtful=True)
    assert closed.value.road == ERRORS.name
    limiter.acquire(KILLMAIL, "ip", background=False, failed_before=True).answered(200, {})


def test_the_allowance_says_how_many_doubtful_requests_may_be_made_and_when_again(limiter):
    allowance = limiter.allowance(KILLMAIL, "ip", background=False)
    assert (allowance.doubtful, allowance.doubtful_at) == (HALF, None)
    meet_errors(limiter, HALF - 2)
    assert limiter.allowance(KILLMAIL, "ip", background=False).doubtful == 2
    meet_errors(limiter, 7)
    allowance = limiter.allowance(KILLMAIL, "ip", background=False)
    assert allowance.requests > 0
    assert allowance.doubtful == 0
    assert allowance.doubtful_at is not None
