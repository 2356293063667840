"""Many pilots whose own refreshes fail, few whose refreshes succeed: the SSO is not taken to be away for that."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from database import utcnow
from esi import rate_store, sso_gate
from esi.errors import SsoConfiguration, SsoUnavailable
from esi.sso_gate import AFTER_THE_OTHERS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, USERS_THAT_CLOSE
from ledger.rules import LIST_BACKOFF
from models import FailingOwner, Gate, User
from tests.unit.esi.limiting import time_passes
from tests.unit.fake_sso import FakeSso, expire, log_in, pilot
from tokens import TokenCipher, TokenUnavailable, access_token, witnesses

WITHDRAWN = SsoConfiguration("token refresh: the SSO answered invalid_scope")
OWN_500 = SsoUnavailable("token refresh: the SSO answered 500; try again later")
DOWN = SsoUnavailable("token refresh: the SSO answered 503; try again later")
HOUR, POLL_SECONDS = 3600.0, 300.0


@dataclass
class Hour:
    """An hour of syncs, from event to event. Odd pilots retry as their syncs do; healthy ones are due at each poll."""

    sso: FakeSso
    cipher: TokenCipher
    odd: list[User]
    healthy: list[User]
    now: float = 0.0
    closed_seconds: float = 0.0
    longest_wait: float = 0.0
    attempts: dict[int, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)

    def run(self, first_healthy: float) -> None:
        events = [(index / 100, user.id, index / 100) for index, user in enumerate(self.odd)]
        spacing = POLL_SECONDS / len(self.healthy)
        events += [
            (first_healthy + n * spacing, user.id, first_healthy + n * spacing) for n, user in enumerate(self.healthy)
        ]
        heapq.heapify(events)
        while events and events[0][0] < HOUR:
            at, user_id, due = heapq.heappop(events)
            self._pass(at - self.now)
            again = self._sync(user_id, due)
            if again is not None:
                heapq.heappush(events, (again[0], user_id, again[1]))

    def _pass(self, seconds: float) -> None:
        now, gate = rate_store.read_gate(sso_gate.GATE)
        if gate.failures:
            self.closed_seconds += min(seconds, max(0.0, gate.closed_until - now))
        time_passes(seconds)
        self.now += seconds

    def _sync(self, user_id: int, due: float) -> tuple[float, float] | None:
        """The next event of this user: when, and since when it is due."""
        User.update(expires_at=utcnow()).where(User.id == user_id).execute()
        try:
            access_token(user_id, self.sso, self.cipher)
        except TokenUnavailable as error:
            if not error.own_fault:
                return self.now + error.retry_after, due
            attempts = self.attempts[user_id] = self.attempts.get(user_id, 0) + 1
            if attempts > len(LIST_BACKOFF):
                self.ended[user_id] = str(error)
                return None
            wait = max(LIST_BACKOFF[attempts - 1].total_seconds(), error.retry_after)
            return self.now + wait, due
        self.longest_wait = max(self.longest_wait, self.now - due)
        User.update(last_killmail_sync_at=utcnow()).where(User.id == user_id).execute()
        return self.now + POLL_SECONDS, self.now + POLL_SECONDS


@pytest.fixture
def crowd(any_db, sso, cipher):
    """Makes so many pilots who have all been synced, and whose tokens have run out."""

    def make(count: int) -> list[User]:
        made = []
        for _ in range(count):
            user = log_in(sso, cipher, pilot(90_000_001 + User.select().count()))
            User.update(last_killmail_sync_at=utcnow()).where(User.id == user.id).execute()
            expire(user)
            made.append(user)
        return made

    return make


def be_odd(users: list[User], sso, cipher, *errors) -> None:
    for index, user in enumerate(users):
        sso.failures[cipher.decrypt(user.refresh_token)] = [errors[index % len(errors)]]


def refused(user: User, sso, cipher) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    return raised.value


def is_closed() -> bool:
    return bool(Gate.select().where(Gate.failures > 0).exists())


def known_to_fail() -> set[int]:
    return {user.id for user in User.select().where(User.refresh_fails_since.is_null(False))}


@pytest.mark.parametrize("first_healthy", [0.0, 4.0, 100.0, 290.0])
@pytest.mark.parametrize("count", [USERS_THAT_CLOSE, 20])
def test_many_odd_pilots_delay_no_other_and_end_with_their_own_error(crowd, sso, cipher, count, first_healthy):
    """Given an hour, odd pilots who all begin at once, and three healthy ones who are polled every five minutes."""
    odd, healthy = crowd(count), crowd(3)
    hour = an_hour(sso, cipher, odd, healthy, first_healthy)
    assert (hour.closed_seconds, hour.longest_wait) == (0.0, 0.0)


@pytest.mark.parametrize("first_healthy", [4.0, 290.0])
def test_where_all_witnesses_are_odd_pilots_too_the_gate_closes_once(crowd, sso, cipher, first_healthy):
    """Given 20 odd pilots whose syncs all ended after those of the healthy ones."""
    healthy, odd = crowd(3), crowd(20)
    hour = an_hour(sso, cipher, odd, healthy, first_healthy)
    assert hour.closed_seconds < HOUR * 0.02
    assert hour.longest_wait <= FIRST_PAUSE_SECONDS


def an_hour(sso, cipher, odd: list[User], healthy: list[User], first_healthy: float) -> Hour:
    be_odd(odd, sso, cipher, WITHDRAWN, OWN_500)
    hour = Hour(sso, cipher, odd, healthy)
    hour.run(first_healthy)
    assert set(hour.ended) == {user.id for user in odd}
    assert all("gave no usable access token" in error for error in hour.ended.values())
    assert known_to_fail() == {user.id for user in odd}
    return hour


def test_an_outage_closes_the_gate_after_five_pilots_and_their_witnesses(crowd, sso, cipher):
    """Given odd pilots known as such, When the SSO goes away, Then five others close the gate; no odd one counts."""
    odd, healthy = crowd(USERS_THAT_CLOSE), crowd(USERS_THAT_CLOSE + 2)
    be_odd(odd, sso, cipher, WITHDRAWN)
    assert all(refused(user, sso, cipher).own_fault for user in odd)
    assert not is_closed()
    assert known_to_fail() == {user.id for user in odd}

    sso.failure = DOWN
    for user in healthy:
        expire(user)  # one was a witness
    for user in odd:
        assert refused(user, sso, cipher).own_fault
    heard = [refused(user, sso, cipher).own_fault for user in healthy[:USERS_THAT_CLOSE]]
    assert heard == [True] * (USERS_THAT_CLOSE - 1) + [False]
    assert is_closed()
    assert not refused(odd[0], sso, cipher).own_fault, "a closed gate costs an odd pilot nothing either"

    # A probe of an odd pilot is that pilot's own failure: the pause is no longer, and the next one may try at once.
    time_passes(FIRST_PAUSE_SECONDS + AFTER_THE_OTHERS)
    before = Gate.get_by_id(sso_gate.GATE).failures
    assert refused(odd[0], sso, cipher).own_fault
    assert Gate.get_by_id(sso_gate.GATE).failures == before
    # One of another pilot keeps it closed, for longer
    probed = refused(healthy[-1], sso, cipher)
    assert (probed.own_fault, probed.retry_after > FIRST_PAUSE_SECONDS) == (False, True)
    time_passes(LONGEST_PAUSE_SECONDS)
    sso.failure = None
    assert access_token(healthy[-1].id, sso, cipher).startswith("access-")
    assert not is_closed()
    for user in healthy:
        assert access_token(user.id, sso, cipher).startswith("access-")
    assert known_to_fail() == {user.id for user in odd}, "an outage is no pilot's own"


def test_a_witness_opens_a_gate_that_an_odd_pilot_found_closed(crowd, sso, cipher):
    """Given a gate that an outage closed, When the SSO is back and an odd pilot is the first to try."""
    odd, healthy = crowd(1), crowd(USERS_THAT_CLOSE + 1)
    sso.failure = DOWN
    for user in healthy[:USERS_THAT_CLOSE]:
        refused(user, sso, cipher)
    assert is_closed()
    sso.failure = None
    be_odd(odd, sso, cipher, WITHDRAWN)
    time_passes(FIRST_PAUSE_SECONDS)
    assert refused(odd[0], sso, cipher).own_fault
    assert not is_closed()
    assert odd[0].id in known_to_fail()


def test_where_all_pilots_are_odd_the_gate_closes_and_the_first_whose_refresh_succeeds_opens_it(crowd, sso, cipher):
    odd = crowd(USERS_THAT_CLOSE + 1)
    be_odd(odd, sso, cipher, WITHDRAWN)
    for user in odd[:USERS_THAT_CLOSE]:
        refused(user, sso, cipher)
    assert is_closed()
    time_passes(FIRST_PAUSE_SECONDS)
    sso.failures.clear()
    assert access_token(odd[-1].id, sso, cipher).startswith("access-")
    assert not is_closed()


def test_a_pilot_is_known_to_fail_until_a_refresh_of_their_own_or_a_login(crowd, sso, cipher):
    first, second, healthy = crowd(3)
    be_odd([first, second], sso, cipher, WITHDRAWN)
    for user in (first, second):
        refused(user, sso, cipher)
    access_token(healthy.id, sso, cipher)
    assert known_to_fail() == {first.id, second.id}
    assert FailingOwner.select().count() == 0
    refused(first, sso, cipher)
    assert FailingOwner.select().count() == 0, "it counts for nothing"

    sso.failures.clear()
    access_token(first.id, sso, cipher)
    assert known_to_fail() == {second.id}
    log_in(sso, cipher, pilot(second.character_id))
    assert known_to_fail() == set()


def test_what_no_pilot_can_cause_counts_for_a_pilot_known_to_fail_as_well(crowd, sso, cipher):
    [user] = crowd(1)
    User.update(refresh_fails_since=utcnow()).execute()
    sso.failure = SsoUnavailable("token refresh: no connection", whole_service=True)
    for _ in range(USERS_THAT_CLOSE):
        refused(user, sso, cipher)
    assert is_closed()


def test_a_sso_that_hangs_is_asked_for_one_witness(crowd, sso, cipher, monkeypatch):
    crowd(USERS_THAT_CLOSE)
    users = crowd(USERS_THAT_CLOSE)
    monkeypatch.setattr(witnesses, "SECONDS", 0.0)
    sso.failure = DOWN
    for user in users:
        refused(user, sso, cipher)
    assert is_closed()
    assert len(sso.calls) == USERS_THAT_CLOSE + 1


def test_a_witness_that_another_caller_refreshes_is_left_alone(crowd, sso, cipher):
    users = crowd(USERS_THAT_CLOSE + 1)
    lease = utcnow() + timedelta(seconds=60)
    User.update(refresh_claimed_until=lease).where(User.id == users[-1].id).execute()
    sso.failure = DOWN
    for user in users[:-1]:
        refused(user, sso, cipher)
    assert cipher.decrypt(users[-1].refresh_token) not in sso.calls
    assert User.get_by_id(users[-1].id).refresh_claimed_until == lease
