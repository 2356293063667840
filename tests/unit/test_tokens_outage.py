"""tokens/ while the SSO is away or our setup is wrong: one finds out for all, and everybody hears why."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from database import db
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoUnavailable
from esi.sso_road import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, PROBE_SECONDS
from models import User
from tests.unit.esi.limiting import time_passes
from tests.unit.fake_sso import expire, log_in, pilot
from tokens import TokenUnavailable, access_token
from tokens.errors import ASKS_TO_WAIT, NO_ANSWER, OUR_FAULT
from tokens.refresh import FAULT_PAUSE

DOWN = SsoUnavailable("token refresh: no answer within the read timeout")
WRONG_SECRET = SsoConfiguration("token refresh: the SSO answered invalid_client; check EVE_CLIENT_ID")
OUR_CLOCK = SsoInvalidToken("expiry", "it has expired")


@pytest.fixture
def users(any_db, sso, cipher) -> list[User]:
    """Pilots whose access tokens have run out."""
    users = [log_in(sso, cipher, pilot(90_000_001 + index)) for index in range(4)]
    for user in users:
        expire(user)
    return users


def refused(user: User, sso, cipher) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    return raised.value


def fail_with(sso, error: SsoError | None) -> None:
    """From now on the SSO answers so: at the token endpoint, or with a token that does not verify."""
    sso.failure = None if isinstance(error, SsoInvalidToken) else error
    sso.verify_failure = error if isinstance(error, SsoInvalidToken) else None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DOWN, NO_ANSWER),
        (SsoUnavailable("token refresh: the SSO answered 429", retry_after=20.0), ASKS_TO_WAIT),
        (WRONG_SECRET, f"{OUR_FAULT}: {WRONG_SECRET}"),
        (OUR_CLOCK, f"{OUR_FAULT}: {OUR_CLOCK}"),
    ],
    ids=["down", "429", "secret", "clock"],
)
def test_one_failure_speaks_for_all_and_says_why(users, sso, cipher, caplog, error, reason):
    caplog.set_level(logging.ERROR)
    fail_with(sso, error)
    heard = [refused(user, sso, cipher) for user in users for _ in range(2)]

    assert len(sso.calls) == 1
    assert {str(failure) for failure in heard} == {reason}
    pause = error.retry_after or FIRST_PAUSE_SECONDS
    assert all(pause - 10 < failure.retry_after <= pause for failure in heard[1:])
    assert heard[0].retry_after > pause, "another one's token is tried next: this one may be at fault itself"
    assert len(caplog.records) == (0 if isinstance(error, SsoUnavailable) else 1)
    assert all(user.refresh_claimed_until is None for user in User.select())


def test_when_the_pause_is_over_one_tries_for_all(users, sso, cipher):
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    trying, tried = threading.Event(), threading.Event()

    def hang() -> None:
        trying.set()
        assert tried.wait(20)

    def probe() -> TokenUnavailable:
        with db.connection_context():
            return refused(users[1], sso, cipher)

    sso.meanwhile = hang
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        assert trying.wait(20)
        others = [refused(user, sso, cipher) for user in users[2:]]
        tried.set()
        probing.result(20)

    assert len(sso.calls) == 2
    assert all(str(other) == NO_ANSWER and 0 < other.retry_after <= PROBE_SECONDS for other in others)


def test_the_pause_grows_while_it_lasts_and_the_first_success_ends_it(users, sso, cipher):
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    pauses = []
    for _ in range(5):
        time_passes(LONGEST_PAUSE_SECONDS)
        refused(users[0], sso, cipher)
        pauses.append(round(refused(users[1], sso, cipher).retry_after))
    assert pauses == [60, 120, 240, 300, 300]
    assert len(sso.calls) == 6

    fail_with(sso, None)
    time_passes(LONGEST_PAUSE_SECONDS)
    assert all(access_token(user.id, sso, cipher) for user in users)
    for user in users:
        expire(user)
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    assert round(refused(users[1], sso, cipher).retry_after) == FIRST_PAUSE_SECONDS


def test_a_later_reason_takes_the_place_of_the_first(users, sso, cipher):
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    fail_with(sso, WRONG_SECRET)
    refused(users[0], sso, cipher)
    assert str(WRONG_SECRET) in str(refused(users[1], sso, cipher))


def test_who_asked_before_the_road_was_closed_makes_the_pause_no_longer(users, sso, cipher):
    fail_with(sso, DOWN)

    def meanwhile() -> None:
        sso.meanwhile = lambda: None
        refused(users[1], sso, cipher)

    sso.meanwhile = meanwhile
    refused(users[0], sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    refused(users[2], sso, cipher)
    assert round(refused(users[3], sso, cipher).retry_after) == 2 * FIRST_PAUSE_SECONDS


def test_a_refusal_is_an_answer_and_opens_the_road(users, sso, cipher):
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    fail_with(sso, None)
    sso.refuse(cipher.decrypt(users[1].refresh_token))
    with pytest.raises(Exception, match="Log in again"):
        access_token(users[1].id, sso, cipher)
    assert access_token(users[0].id, sso, cipher)


def test_a_token_that_is_wrong_in_itself_holds_up_nobody_else(users, sso, cipher):
    fail_with(sso, SsoInvalidToken("owner", "owner is not text"))
    assert refused(users[0], sso, cipher).retry_after == FAULT_PAUSE
    fail_with(sso, None)
    assert access_token(users[1].id, sso, cipher)


def test_a_login_needs_no_open_road(users, sso, cipher):
    fail_with(sso, DOWN)
    refused(users[0], sso, cipher)
    fail_with(sso, None)
    user = log_in(sso, cipher, pilot(90_000_001))
    assert access_token(user.id, sso, cipher) == cipher.decrypt(user.access_token)
