"""tokens/ while the SSO is away or our setup is wrong: several pilots' failures close the gate, one pilot's do not."""

from __future__ import annotations

import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from database import db
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoUnavailable
from esi.sso_gate import (
    AFTER_THE_OTHERS,
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PROBE_SECONDS,
    USERS_THAT_CLOSE,
)
from models import FailingOwner, Gate, RefreshSlot, User
from tests.unit.esi.limiting import time_passes
from tests.unit.fake_sso import expire, log_in, pilot
from tokens import TokenUnavailable, access_token
from tokens.errors import ASKS_TO_WAIT, NO_ANSWER, OUR_FAULT

DOWN = SsoUnavailable("token refresh: no answer within the read timeout")
NO_CONNECTION = SsoUnavailable("token refresh: no connection", whole_service=True)
WRONG_SECRET = SsoConfiguration("token refresh: the SSO answered invalid_client; check EVE_CLIENT_ID")
OUR_CLOCK = SsoInvalidToken("expiry", "it has expired")
#: What the SSO may answer for one pilot alone.
ODD = {
    "500": SsoUnavailable("token refresh: the SSO answered 500; try again later"),
    "invalid_token": SsoUnavailable("token refresh: the SSO answered 400; try again later"),
    "invalid_scope": SsoConfiguration("token refresh: the SSO answered invalid_scope"),
    "unauthorized_client": SsoConfiguration("token refresh: the SSO answered unauthorized_client"),
    "429": SsoUnavailable("token refresh: the SSO answered 429; try again later", retry_after=600.0),
    "malformed": SsoUnavailable("token refresh: the answer is broken", answer_lost=True),
    "timeout": SsoUnavailable("token refresh: no answer within the read timeout", answer_lost=True),
}


@pytest.fixture
def users(any_db, sso, cipher) -> list[User]:
    """Pilots whose access tokens have run out: as many as close the gate, and three more."""
    users = [log_in(sso, cipher, pilot(90_000_001 + index)) for index in range(USERS_THAT_CLOSE + 3)]
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


def close_gate(users: list[User], sso, cipher, error: SsoError = DOWN) -> list[TokenUnavailable]:
    """So many pilots fail in a row that the gate closes; returns what they heard."""
    fail_with(sso, error)
    return [refused(user, sso, cipher) for user in users[:USERS_THAT_CLOSE]]


def is_closed() -> bool:
    return bool(Gate.select().where(Gate.failures > 0).exists())


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
def test_several_pilots_failures_in_a_row_speak_for_all_and_say_why(users, sso, cipher, caplog, error, reason):
    caplog.set_level(logging.WARNING)
    *first, last = close_gate(users, sso, cipher, error)
    heard = [refused(user, sso, cipher) for user in users[USERS_THAT_CLOSE:]]

    assert len(sso.calls) == USERS_THAT_CLOSE
    assert [failure.own_fault for failure in first] == [True] * (USERS_THAT_CLOSE - 1)
    assert {str(failure) for failure in [last, *heard]} == {reason}
    assert not any(failure.own_fault for failure in [last, *heard]), "waiting at a closed gate costs no attempt"
    pause = error.retry_after or FIRST_PAUSE_SECONDS
    assert all(pause - 10 < failure.retry_after <= pause for failure in heard)
    assert last.retry_after > pause, "another one's token is tried next: this one may be at fault itself"
    level = logging.WARNING if isinstance(error, SsoUnavailable) else logging.ERROR
    assert [record.levelno for record in caplog.records] == [level], "one line, when the gate closes"
    assert all(user.refresh_claimed_until is None for user in User.select())
    assert all(slot.held_until == 0 for slot in RefreshSlot.select())


@pytest.mark.parametrize("error", ODD.values(), ids=ODD.keys())
def test_an_odd_answer_for_one_pilot_delays_no_other(users, sso, cipher, error):
    """Given one pilot whose refreshes always fail, When all refresh again and again, Then only that one waits."""
    odd, *healthy = users
    sso.failures[cipher.decrypt(odd.refresh_token)] = [error]
    for _ in range(4):
        for user in healthy:
            for _ in range(3):  # ever so often
                failure = refused(odd, sso, cipher)
                assert (failure.own_fault, str(error) in str(failure)) == (True, True)
                assert failure.retry_after == (error.retry_after or 0.0)
            expire(user)
            assert access_token(user.id, sso, cipher).startswith("access-")
    assert not is_closed()


def test_refreshes_that_fail_at_random_never_close_the_gate(users, sso, cipher):
    """One in a hundred, of any pilot."""
    chance = random.Random(1)
    failed = 0
    for _ in range(50):
        for user in users:
            expire(user)
            sso.failure = DOWN if chance.random() < 0.01 else None
            if sso.failure is None:
                access_token(user.id, sso, cipher)
            else:
                refused(user, sso, cipher)
                failed += 1
            assert not is_closed()
    assert failed > 1


def test_failures_that_no_pilot_can_cause_close_the_gate_for_a_single_pilot_too(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    fail_with(sso, NO_CONNECTION)
    heard = [refused(user, sso, cipher).own_fault for _ in range(USERS_THAT_CLOSE)]
    assert heard == [True] * (USERS_THAT_CLOSE - 1) + [False]
    fail_with(sso, None)
    time_passes(FIRST_PAUSE_SECONDS)
    assert access_token(user.id, sso, cipher).startswith("access-")
    assert (is_closed(), FailingOwner.select().count()) == (False, 0)


def test_a_pilot_whose_refresh_failed_lets_the_others_probe_first(users, sso, cipher):
    close_gate(users, sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    asked = len(sso.calls)
    assert 0 < refused(users[0], sso, cipher).retry_after <= AFTER_THE_OTHERS
    assert len(sso.calls) == asked
    fail_with(sso, None)
    assert access_token(users[-1].id, sso, cipher).startswith("access-")
    assert access_token(users[0].id, sso, cipher).startswith("access-"), "all of them are forgotten"


def test_when_the_pause_is_over_one_tries_for_all(users, sso, cipher):
    close_gate(users, sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    trying, tried = threading.Event(), threading.Event()

    def hang() -> None:
        trying.set()
        assert tried.wait(20)

    def probe() -> TokenUnavailable:
        with db.connection_context():
            return refused(users[-1], sso, cipher)

    sso.meanwhile = hang
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(probe)
        assert trying.wait(20)
        others = [refused(user, sso, cipher) for user in users[:-1]]
        tried.set()
        probing.result(20)

    assert len(sso.calls) == USERS_THAT_CLOSE + 1
    assert all(str(other) == NO_ANSWER and 0 < other.retry_after <= PROBE_SECONDS for other in others)


def test_the_pause_grows_while_it_lasts_and_the_first_success_ends_it(users, sso, cipher):
    close_gate(users, sso, cipher)
    pauses = []
    for _ in range(5):
        time_passes(LONGEST_PAUSE_SECONDS + AFTER_THE_OTHERS)
        refused(users[0], sso, cipher)
        pauses.append(round(refused(users[1], sso, cipher).retry_after))
    assert pauses == [60, 120, 240, 300, 300]
    assert len(sso.calls) == USERS_THAT_CLOSE + 5

    fail_with(sso, None)
    time_passes(LONGEST_PAUSE_SECONDS)
    assert all(access_token(user.id, sso, cipher) for user in reversed(users))
    for user in users:
        expire(user)
    close_gate(users, sso, cipher)
    assert round(refused(users[-1], sso, cipher).retry_after) == FIRST_PAUSE_SECONDS


def test_a_later_reason_takes_the_place_of_the_first(users, sso, cipher):
    close_gate(users, sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    fail_with(sso, WRONG_SECRET)
    refused(users[-1], sso, cipher)
    assert str(WRONG_SECRET) in str(refused(users[-2], sso, cipher))


def test_a_failure_sent_before_the_gate_closed_makes_the_pause_no_longer(users, sso, cipher):
    fail_with(sso, DOWN)

    def others_fail() -> None:
        sso.meanwhile = lambda: None
        close_gate(users, sso, cipher)

    sso.meanwhile = others_fail
    assert refused(users[-1], sso, cipher).own_fault is False
    time_passes(FIRST_PAUSE_SECONDS)
    refused(users[-2], sso, cipher)
    assert round(refused(users[-3], sso, cipher).retry_after) == 2 * FIRST_PAUSE_SECONDS


def test_a_refusal_is_an_answer_and_opens_the_gate(users, sso, cipher):
    close_gate(users, sso, cipher)
    time_passes(FIRST_PAUSE_SECONDS)
    fail_with(sso, None)
    sso.refuse(cipher.decrypt(users[-1].refresh_token))
    with pytest.raises(Exception, match="Log in again"):
        access_token(users[-1].id, sso, cipher)
    assert access_token(users[0].id, sso, cipher)


def test_a_login_needs_no_open_gate(users, sso, cipher):
    close_gate(users, sso, cipher)
    fail_with(sso, None)
    user = log_in(sso, cipher, pilot(90_000_001))
    assert access_token(user.id, sso, cipher) == cipher.decrypt(user.access_token)


def test_a_long_retry_after_closes_the_gate_no_longer_than_its_longest_pause(users, sso, cipher):
    """All of it is for the pilot who got it."""
    heard = close_gate(users, sso, cipher, SsoUnavailable("token refresh: the SSO answered 429", retry_after=3600.0))
    assert all(failure.retry_after >= 3600 for failure in heard)
    assert round(refused(users[-1], sso, cipher).retry_after) == LONGEST_PAUSE_SECONDS
    # And so does a probe
    time_passes(LONGEST_PAUSE_SECONDS)
    assert refused(users[-1], sso, cipher).retry_after >= 3600
    assert round(refused(users[-2], sso, cipher).retry_after) == LONGEST_PAUSE_SECONDS
