"""tokens/, several callers at a time: one refresh, and the newest login wins whoever is late."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from datetime import timedelta
from typing import Any

import pytest

import accounts
from database import db, utcnow
from esi import refresh_slots
from esi.errors import SsoUnavailable
from esi.refresh_slots import KEPT_FOR_INTERACTIVE, SLOTS
from models import RefreshSlot, User
from tests.unit.fake_sso import InterruptedCipher, expire, log_in, pilot
from tokens import NeedsLogin, TokenUnavailable, access_token
from tokens.errors import BUSY, NOT_LINKED, REFUSED
from tokens.rows import LEASE

#: Seconds any wait in here may take before the test fails.
LIMIT = 20.0


def in_own_connection(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a worker's thread does: one connection for one piece of work."""
    with db.connection_context():
        return function(*args, **kwargs)


def in_another_thread(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(in_own_connection, function, *args, **kwargs).result(LIMIT)


def test_eight_at_once_make_one_refresh_and_get_one_token(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    start = threading.Barrier(8)
    all_asked = threading.Event()
    sso.rotates = True
    sso.meanwhile = lambda: wait_for(all_asked)  # the SSO answers when everybody has had time to come

    def ask() -> str:
        start.wait(LIMIT)
        return str(access_token(user.id, sso, cipher, wait_seconds=LIMIT))

    with ThreadPoolExecutor(8) as pool:
        askers: list[Future[str]] = [pool.submit(in_own_connection, ask) for _ in range(8)]
        threading.Timer(0.3, all_asked.set).start()
        answers = {asker.result(LIMIT) for asker in askers}
    assert len(sso.calls) == 1
    assert answers == {cipher.decrypt(User.get_by_id(user.id).access_token)}


@pytest.mark.parametrize("interactive", [False, True])
def test_of_eight_pilots_refreshes_at_most_four_are_at_the_sso_at_once(any_db, sso, cipher, interactive):
    """Given eight expired tokens and eight threads, Then all are refreshed, and one slot is left for who waits."""
    users = [log_in(sso, cipher, pilot(90_000_001 + number)) for number in range(8)]
    for user in users:
        expire(user)
    most = SLOTS if interactive else SLOTS - KEPT_FOR_INTERACTIVE
    start, one_too_many = threading.Barrier(8), threading.Barrier(most + 1)

    def answer() -> None:
        """When one request too many has arrived, or after half a second."""
        with contextlib.suppress(threading.BrokenBarrierError):
            one_too_many.wait(0.5)

    sso.meanwhile = answer

    def ask(user: User) -> str:
        start.wait(LIMIT)
        while True:
            with contextlib.suppress(TokenUnavailable):  # no slot in time: as the sync does, come again
                return str(access_token(user.id, sso, cipher, interactive=interactive))

    with ThreadPoolExecutor(8) as pool:
        tokens = [asker.result(LIMIT) for asker in [pool.submit(in_own_connection, ask, user) for user in users]]
    assert len(set(tokens)) == len(sso.calls) == 8
    assert sso.most_at_once == most
    assert all(slot.held_until == 0 for slot in RefreshSlot.select())


def test_a_pilot_who_waits_finds_a_slot_while_the_background_holds_all_of_its_own(any_db, sso, cipher):
    users = [log_in(sso, cipher, pilot(90_000_001 + number)) for number in range(2)]
    for user in users:
        expire(user)
    while refresh_slots.take(None, ("", ""), interactive=False):
        pass
    with pytest.raises(TokenUnavailable, match=BUSY):
        access_token(users[0].id, sso, cipher)
    assert access_token(users[1].id, sso, cipher, interactive=True).startswith("access-")


@pytest.mark.parametrize("interactive", [False, True])
def test_users_whose_refreshes_hang_hold_up_no_others(any_db, sso, cipher, interactive):
    """Given six users who are known to fail, and whose refreshes hang, Then another one's finds a slot."""
    hanging = [log_in(sso, cipher, pilot(90_000_001 + number)) for number in range(6)]
    healthy = log_in(sso, cipher, pilot(90_000_100))
    User.update(refresh_fails_since=utcnow(), expires_at=utcnow()).where(User.id != healthy.id).execute()
    expire(healthy)
    hangs, others_gave_up = threading.Semaphore(0), threading.Event()

    def hang() -> None:
        hangs.release()
        others_gave_up.wait(LIMIT)

    sso.meanwhile = hang
    with ThreadPoolExecutor(6) as pool:
        askers = [
            pool.submit(in_own_connection, access_token, user.id, sso, cipher, interactive=interactive)
            for user in hanging
        ]
        assert hangs.acquire(timeout=LIMIT)
        busy = 0
        with contextlib.suppress(TimeoutError):
            for asker in as_completed(askers, timeout=5):
                busy += isinstance(asker.exception(), TokenUnavailable)
                if busy == len(hanging) - 1:
                    break
        sso.meanwhile = lambda: None
        try:
            assert access_token(healthy.id, sso, cipher).startswith("access-")
        finally:
            others_gave_up.set()
    assert (busy, sso.most_at_once) == (5, 2)


def test_a_refresh_that_ended_between_the_look_and_the_claim_is_not_repeated(any_db, sso, cipher, token_key):
    user = log_in(sso, cipher)
    expire(user)
    late = InterruptedCipher(token_key, lambda: in_another_thread(access_token, user.id, sso, cipher))
    token = access_token(user.id, sso, late)
    assert token == cipher.decrypt(User.get_by_id(user.id).access_token)
    assert len(sso.calls) == 1


def test_eight_at_once_during_an_outage_ask_once_and_all_hear_of_it(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    all_asked = threading.Event()
    sso.meanwhile = lambda: wait_for(all_asked)
    sso.failure = SsoUnavailable("token refresh: no answer")
    with ThreadPoolExecutor(8) as pool:
        askers = [
            pool.submit(in_own_connection, access_token, user.id, sso, cipher, wait_seconds=LIMIT) for _ in range(8)
        ]
        threading.Timer(0.3, all_asked.set).start()
        failures = [asker.exception(LIMIT) for asker in askers]
    assert all(isinstance(failure, TokenUnavailable) for failure in failures)
    assert len(sso.calls) == 1


def test_a_login_during_a_refresh_wins(any_db, sso, cipher):
    # Given a refresh that is waiting for the SSO
    user = log_in(sso, cipher)
    expire(user)
    sso.rotates = True
    # When the pilot logs in meanwhile
    sso.meanwhile = lambda: in_another_thread(log_in, sso, cipher)
    token = access_token(user.id, sso, cipher)
    # Then the login's tokens are what is stored and handed out
    after = User.get_by_id(user.id)
    assert after.token_version == user.token_version + 1
    assert token == cipher.decrypt(after.access_token)
    assert sso.verify(token).owner_hash == "owner-one"
    # And its refresh token is the one in use
    sso.meanwhile = lambda: None
    expire(user)
    access_token(user.id, sso, cipher)
    assert sso.calls[-1] == cipher.decrypt(after.refresh_token)


def test_a_login_during_a_refresh_that_is_refused_wins(any_db, sso, cipher):
    """A login with other scopes kills the earlier refresh token: its refusal says nothing about the new one."""
    user = log_in(sso, cipher)
    expire(user)
    sso.refuse(cipher.decrypt(user.refresh_token))
    sso.meanwhile = lambda: in_another_thread(log_in, sso, cipher)
    token = access_token(user.id, sso, cipher)
    after = User.get_by_id(user.id)
    assert token == cipher.decrypt(after.access_token)
    assert accounts.token_state(after) is accounts.TokenState.OK
    assert after.next_sync_at is not None


def test_being_refused_a_token_that_another_process_has_rotated_marks_nobody(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.rotates = True

    def rotated_elsewhere() -> None:
        fresh = sso.login(pilot()).refresh_token
        User.update(refresh_token=cipher.encrypt(str(fresh))).where(User.id == user.id).execute()
        sso.meanwhile = lambda: None

    sso.refuse(cipher.decrypt(user.refresh_token))
    sso.meanwhile = lambda: in_another_thread(rotated_elsewhere)
    with pytest.raises(TokenUnavailable):
        access_token(user.id, sso, cipher)
    after = User.get_by_id(user.id)
    assert accounts.token_state(after) is accounts.TokenState.OK
    assert after.next_sync_at is not None
    # And the rotated token serves the next call
    assert access_token(user.id, sso, cipher).startswith("access-")


def test_the_new_owners_login_during_a_refresh_wins(any_db, sso, cipher):
    """The former owner's row is gone when the refresh comes back: it stores nothing and gives out nothing."""
    user = log_in(sso, cipher)
    expire(user)
    sso.sell(cipher.decrypt(user.refresh_token), "owner-two")
    sso.meanwhile = lambda: in_another_thread(log_in, sso, cipher, pilot(owner_hash="owner-two"))
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.reason == NOT_LINKED
    (newcomer,) = User.select()
    assert newcomer.owner_hash == "owner-two"
    assert accounts.token_state(newcomer) is accounts.TokenState.OK
    assert newcomer.session_epoch != user.session_epoch


def test_a_reused_id_is_not_mistaken_for_the_user_who_left(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)

    def another_takes_the_id() -> None:
        accounts.unlink(user.id, sso, cipher)
        log_in(sso, cipher, pilot(90_000_002))
        User.update(id=user.id).execute()  # what SQLite does by itself

    sso.meanwhile = lambda: in_another_thread(another_takes_the_id)
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    newcomer = User.get()
    assert sso.verify(cipher.decrypt(newcomer.access_token)).character_id == 90_000_002
    assert sso.verify(access_token(user.id, sso, cipher)).character_id == 90_000_002


def test_a_lease_that_is_held_is_waited_for_only_so_long(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    User.update(refresh_claimed_until=utcnow() + LEASE).execute()
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher, wait_seconds=0)
    assert sso.calls == []
    assert 20 < raised.value.retry_after <= LEASE.total_seconds()


def test_who_overran_its_lease_and_failed_does_not_give_back_anothers(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    others = utcnow() + timedelta(minutes=7)
    sso.meanwhile = lambda: User.update(refresh_claimed_until=others).execute()
    sso.failure = SsoUnavailable("token refresh: no answer")
    with pytest.raises(TokenUnavailable):
        access_token(user.id, sso, cipher)
    assert User.get_by_id(user.id).refresh_claimed_until == others


def test_the_lease_of_a_process_that_died_runs_out(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    User.update(refresh_claimed_until=utcnow() - timedelta(milliseconds=1)).execute()
    assert access_token(user.id, sso, cipher).startswith("access-")
    assert len(sso.calls) == 1


def test_a_process_killed_after_the_answer_does_not_lose_a_token_that_was_not_rotated(any_db, sso, cipher):
    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    user = log_in(sso, cipher)
    expire(user)
    sso.meanwhile = die
    with pytest.raises(Killed):
        access_token(user.id, sso, cipher)
    sso.meanwhile = lambda: None
    assert access_token(user.id, sso, cipher).startswith("access-")


def test_who_overran_its_lease_heals_the_refusal_it_caused(any_db, sso, cipher):
    """A slow process used up the rotating token; the next one is refused for it; the slow answer is the truth."""
    user = log_in(sso, cipher)
    expire(user)
    calls = iter([True])

    def overrun() -> None:
        if next(calls, False):  # only the slow process's call
            User.update(refresh_claimed_until=utcnow() - timedelta(seconds=1)).execute()
            sso.refuse(sso.calls[0])
            with pytest.raises(NeedsLogin):
                in_another_thread(access_token, user.id, sso, cipher)
            assert User.get_by_id(user.id).needs_login_reason == REFUSED

    sso.meanwhile = overrun
    token = access_token(user.id, sso, cipher)
    after = User.get_by_id(user.id)
    assert token == cipher.decrypt(after.access_token)
    assert accounts.token_state(after) is accounts.TokenState.OK
    assert after.next_sync_at is not None


def wait_for(event: threading.Event) -> None:
    assert event.wait(LIMIT)
