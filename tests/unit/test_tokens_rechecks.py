"""Refusals, other owners, lost scopes: each is checked again before it is final; many at once are an incident."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

import tokens
from accounts import TokenState, token_state
from database import utcnow
from esi import owner_changes, verdict_rate
from esi.errors import SsoRefused, SsoUnavailable
from esi.sso_gate import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, USERS_THAT_CLOSE
from models import FailingOwner, Gate, User
from tests.unit.esi.limiting import time_passes
from tests.unit.fake_sso import FakeSso, expire, log_in, pilot
from tokens import NeedsLogin, TokenCipher, TokenUnavailable, access_token
from tokens.errors import INCIDENT, NO_SCOPE, OWNER_CHANGED, REFUSED
from tokens.rechecks import RECHECK_WAITS, RECHECKS_PER_TICK


@dataclass(frozen=True)
class Verdict:
    """A way in which the SSO turns a pilot away. `give` makes it do so; `take_back` is given what `give` returned."""

    reason: str
    state: TokenState
    give: Callable[[FakeSso, str], object]

    def take_back(self, sso: FakeSso, refresh_token: str, before: object) -> None:
        sso._owners[refresh_token] = before  # type: ignore[assignment]


VERDICTS = [
    Verdict(REFUSED, TokenState.NEEDS_LOGIN, lambda sso, token: sso._owners.pop(token)),
    Verdict(OWNER_CHANGED, TokenState.NEEDS_LOGIN, lambda sso, token: change(sso, token, owner_hash="owner-two")),
    Verdict(NO_SCOPE, TokenState.MISSING_SCOPE, lambda sso, token: change(sso, token, scopes=frozenset())),
]
each_verdict = pytest.mark.parametrize("verdict", VERDICTS, ids=["refused", "sold", "scope"])


def change(sso: FakeSso, refresh_token: str, **changes: object) -> object:
    before = sso._owners[refresh_token]
    sso._owners[refresh_token] = replace(before, **changes)  # type: ignore[arg-type]
    return before


@pytest.fixture
def users(any_db, sso, cipher) -> list[User]:
    """Pilots whose access tokens have run out: as many as make an incident, and three more."""
    users = [log_in(sso, cipher, pilot(90_000_001 + index)) for index in range(USERS_THAT_CLOSE + 3)]
    for user in users:
        expire(user)
    return users


def token_of(user: User, cipher: TokenCipher) -> str:
    return cipher.decrypt(User.get_by_id(user.id).refresh_token)


def turned_away(user: User, sso, cipher) -> str:
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    return raised.value.reason


def waits(user: User, sso, cipher) -> TokenUnavailable:
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    return raised.value


def passes(time: timedelta) -> None:
    time_passes(time.total_seconds())
    for user in User.select().where(User.recheck_at.is_null(False)):
        User.update(recheck_at=user.recheck_at - time).where(User.id == user.id).execute()


def an_hour_passes() -> None:
    passes(RECHECK_WAITS[0])


def serve(user: User, sso, cipher, *, among: int = 1) -> None:
    """One refresh that succeeds, among so many."""
    expire(user)
    assert access_token(user.id, sso, cipher)
    for _ in range(among - 1):
        verdict_rate.served()


def states(users: list[User]) -> list[TokenState]:
    return [token_state(User.get_by_id(user.id)) for user in users]


@each_verdict
def test_a_verdict_is_checked_three_times_within_a_day_and_then_final(users, sso, cipher, verdict):
    user = users[0]
    verdict.give(sso, token_of(user, cipher))
    assert turned_away(user, sso, cipher) == verdict.reason
    marked = User.get_by_id(user.id)
    assert (token_state(marked), marked.next_sync_at) == (verdict.state, None)
    assert marked.refresh_token is not None
    assert RECHECK_WAITS[0] - timedelta(minutes=1) < marked.recheck_at - utcnow() <= RECHECK_WAITS[0]
    # Not before its time
    assert tokens.start_due_rechecks() == 0
    assert turned_away(user, sso, cipher) == verdict.reason
    assert len(sso.calls) == 1

    for wait in RECHECK_WAITS:
        still = User.get_by_id(user.id)
        assert (still.refresh_token is None, still.recheck_at is None) == (False, False)
        passes(wait - timedelta(minutes=1))
        assert tokens.start_due_rechecks() == 0
        passes(timedelta(minutes=1))
        assert tokens.start_due_rechecks() == 1
        assert tokens.start_due_rechecks() == 0
        assert User.get_by_id(user.id).next_sync_at <= utcnow()
        assert turned_away(user, sso, cipher) == verdict.reason
    final = User.get_by_id(user.id)
    assert (token_state(final), final.next_sync_at, final.recheck_at) == (verdict.state, None, None)
    assert (final.refresh_token is None) == (verdict.reason == OWNER_CHANGED), "erased only once it is confirmed"

    passes(timedelta(days=3))
    assert tokens.start_due_rechecks() == 0
    assert len(sso.calls) == 1 + len(RECHECK_WAITS)


@each_verdict
def test_a_verdict_that_was_a_mistake_heals_within_the_hour(users, sso, cipher, verdict):
    user = users[0]
    refresh_token = token_of(user, cipher)
    before = verdict.give(sso, refresh_token)
    turned_away(user, sso, cipher)
    verdict.take_back(sso, refresh_token, before)
    an_hour_passes()
    tokens.start_due_rechecks()
    assert access_token(user.id, sso, cipher).startswith("access-")
    healed = User.get_by_id(user.id)
    assert (token_state(healed), healed.recheck_at) == (TokenState.OK, None)
    assert (healed.needs_login_reason, healed.next_sync_at is None) == (None, False)


@each_verdict
def test_an_incident_marks_at_most_four_and_all_heal_without_anyones_help(users, sso, cipher, caplog, verdict):
    """Given an SSO that turns everyone away, for hours, Then the fifth in a row closes the gate."""
    caplog.set_level(logging.ERROR)
    before = {token_of(user, cipher): verdict.give(sso, token_of(user, cipher)) for user in users}
    for user in users[: USERS_THAT_CLOSE - 1]:
        turned_away(user, sso, cipher)
    for user in users[USERS_THAT_CLOSE - 1 :]:
        waiting = waits(user, sso, cipher)
        assert (str(waiting), waiting.own_fault) == (INCIDENT, False)
    assert len(sso.calls) == USERS_THAT_CLOSE
    for number in range(12):  # probes, by one after the other
        time_passes(LONGEST_PAUSE_SECONDS + 10)
        waits(users[USERS_THAT_CLOSE - 1 + number % 4], sso, cipher)
    assert states(users).count(TokenState.OK) == len(users) - USERS_THAT_CLOSE + 1
    [line] = [record for record in caplog.records if record.name == "esi.sso_gate"]
    assert "EVE_CLIENT_ID" in line.getMessage()
    # And those whose recheck falls into it are not marked for good
    an_hour_passes()
    assert tokens.start_due_rechecks() == USERS_THAT_CLOSE - 1
    waits(users[0], sso, cipher)
    time_passes(LONGEST_PAUSE_SECONDS + 10)

    for refresh_token, identity in before.items():
        verdict.take_back(sso, refresh_token, identity)
    assert all(access_token(user.id, sso, cipher) for user in reversed(users))
    assert states(users) == [TokenState.OK] * len(users)
    assert User.select().where(User.recheck_at.is_null(False)).count() == 0
    # Only deletion stays paused, where owners seemed to change: that is ended by the operator.
    assert (owner_changes.paused_since() is not None) == any("resume-deletion" in each for each in caplog.messages)
    owner_changes.resume()
    assert FailingOwner.select().where(FailingOwner.gate != verdict_rate.NOTES).count() == 0
    assert not Gate.select().where(Gate.failures > 0).exists()


def test_verdicts_with_successes_in_between_are_each_pilots_own(users, sso, cipher):
    healthy, *others = users
    for user in others:
        sso.refuse(token_of(user, cipher))
        turned_away(user, sso, cipher)
        serve(healthy, sso, cipher, among=verdict_rate.SERVED_PER_NOTE)
    assert states(others) == [TokenState.NEEDS_LOGIN] * len(others)
    # And their rechecks, one after the other, are no incident
    for wait in RECHECK_WAITS:
        passes(wait)
        assert tokens.start_due_rechecks() == len(others)
        for user in others:
            turned_away(user, sso, cipher)
    assert User.select().where(User.recheck_at.is_null(False)).count() == 0
    assert not Gate.select().where(Gate.failures > 0).exists()


def test_the_first_refusal_after_an_outage_opens_the_gate_and_counts(users, sso, cipher):
    sso.failure = SsoUnavailable("token refresh: no answer")
    for user in users[:USERS_THAT_CLOSE]:
        waits(user, sso, cipher)
    sso.failure = None
    time_passes(FIRST_PAUSE_SECONDS)
    sso.refuse(token_of(users[-1], cipher))
    turned_away(users[-1], sso, cipher)
    counted = FailingOwner.select().where(FailingOwner.gate != verdict_rate.NOTES)
    assert counted.count() == 1
    assert access_token(users[0].id, sso, cipher)
    assert counted.count() == 0


def test_a_login_ends_the_wait_for_a_recheck(users, sso, cipher):
    sso.refuse(token_of(users[0], cipher))
    turned_away(users[0], sso, cipher)
    log_in(sso, cipher, pilot(90_000_001))
    assert User.get_by_id(users[0].id).recheck_at is None
    an_hour_passes()
    assert tokens.start_due_rechecks() == 0


def test_a_tick_starts_only_so_many_rechecks_and_those_dated_by_a_wrong_clock_too(any_db, sso, cipher):
    user = log_in(sso, cipher)
    found: Any = User.select().where(User.id == user.id).dicts().get()
    row = dict(found)
    del row["id"]
    row |= {"needs_login_reason": REFUSED, "next_sync_at": None, "recheck_at": utcnow() + timedelta(days=30)}
    User.insert_many([{**row, "character_id": 1000 + n} for n in range(RECHECKS_PER_TICK + 5)]).execute()
    assert [tokens.start_due_rechecks() for _ in range(3)] == [RECHECKS_PER_TICK, 5, 0]


@each_verdict
def test_a_retry_before_the_recheck_takes_nothing_from_it(users, sso, cipher, verdict):
    user = users[0]
    before = verdict.give(sso, token := token_of(user, cipher))
    turned_away(user, sso, cipher)
    time_passes(600)
    planned = User.get_by_id(user.id).recheck_at

    assert tokens.retry_now([user.character_id]) == 1
    assert turned_away(user, sso, cipher) == verdict.reason

    kept = User.get_by_id(user.id)
    assert kept.refresh_token is not None
    assert kept.recheck_at >= planned
    verdict.take_back(sso, token, before)
    an_hour_passes()
    assert tokens.start_due_rechecks() == 1
    assert access_token(user.id, sso, cipher)
    assert token_state(User.get_by_id(user.id)) is TokenState.OK


def test_users_are_retried_at_once_on_demand(users, sso, cipher):
    refused, without_token, healthy = users[:3]
    for user in (refused, without_token):
        sso.refuse(token_of(user, cipher))
        turned_away(user, sso, cipher)
    User.update(refresh_token=None).where(User.id == without_token.id).execute()
    assert tokens.retry_now([healthy.character_id]) == 0
    assert tokens.retry_now([refused.character_id]) == 1
    turned_away(refused, sso, cipher)
    for wait in RECHECK_WAITS:
        passes(wait)
        assert tokens.start_due_rechecks() == 1
        turned_away(refused, sso, cipher)
    assert User.get_by_id(refused.id).recheck_at is None
    assert tokens.retry_now() == 1, "also after the last check has failed"
    turned_away(refused, sso, cipher)
    assert User.get_by_id(refused.id).recheck_at is None
    assert len(sso.calls) == 3 + len(RECHECK_WAITS) + 1


def test_a_recheck_with_another_reason_begins_the_checks_again(users, sso, cipher):
    """Given a refusal that two rechecks confirmed, When the third names another owner, Then nothing is erased."""
    user = users[0]
    token = token_of(user, cipher)
    verdict_of_sale = VERDICTS[1]
    sso.failures[token] = [SsoRefused("refused")] * len(RECHECK_WAITS) + [None]
    turned_away(user, sso, cipher)
    for wait in RECHECK_WAITS:
        passes(wait)
        tokens.start_due_rechecks()
        if wait == RECHECK_WAITS[-1]:
            verdict_of_sale.give(sso, token)
        turned_away(user, sso, cipher)
    asked = User.get_by_id(user.id)
    assert (asked.needs_login_reason, asked.refresh_token is None, asked.rechecks) == (OWNER_CHANGED, False, 0)
    assert asked.recheck_at > utcnow()


@dataclass
class Fleet:
    """Pilots who are polled in turn. Of every `one_in` answers of the SSO one turns its pilot away, if that is set."""

    sso: FakeSso
    cipher: TokenCipher
    users: list[User]
    verdict: Verdict
    one_in: int = 0
    marked: set[int] = field(default_factory=set)
    _asked: int = 0

    def poll_all(self) -> None:
        """Each pilot once in twenty minutes."""
        while tokens.start_due_rechecks():
            pass
        for user in self.users:
            passes(timedelta(minutes=20) / len(self.users))
            if User.get_by_id(user.id).next_sync_at is not None:
                self._poll(user)

    def _poll(self, user: User) -> None:
        self._asked += 1
        expire(user)
        token = token_of(user, self.cipher)
        is_wrong = self.one_in > 0 and self._asked % self.one_in == 0
        before = self.verdict.give(self.sso, token) if is_wrong else None
        try:
            access_token(user.id, self.sso, self.cipher)
        except NeedsLogin:
            self.marked.add(user.id)
        except TokenUnavailable as error:
            assert (str(error), is_wrong) == (INCIDENT, True)
        if is_wrong:
            self.verdict.take_back(self.sso, token, before)


@pytest.fixture
def fleet(any_db, sso, cipher, verdict) -> Fleet:
    return Fleet(sso, cipher, [log_in(sso, cipher, pilot(90_000_001 + n)) for n in range(31)], verdict)


@pytest.mark.parametrize("any_db_url", ["sqlite"], indirect=True)  # thousands of refreshes
@pytest.mark.parametrize("one_in", [2, 10])
@each_verdict
def test_some_wrong_answers_among_right_ones_disable_no_pilot(fleet, one_in, caplog):
    """Given an SSO of whose answers every tenth, or every other one, is wrong for three hours."""
    caplog.set_level(logging.ERROR)
    fleet.one_in = one_in
    for _ in range(9):
        fleet.poll_all()
    assert User.select().where(User.refresh_token.is_null()).count() == 0
    assert 0 < len(fleet.marked) <= 2 * verdict_rate.USERS_OF_AN_INCIDENT
    assert len([record for record in caplog.records if record.name == "esi.verdict_rate"]) == 1

    fleet.one_in = 0
    for _ in range(4):
        fleet.poll_all()
    assert states(fleet.users) == [TokenState.OK] * len(fleet.users)
    # It is over: a pilot who is refused now has to log in
    passes(timedelta(hours=1))
    user = fleet.users[0]
    expire(user)
    fleet.verdict.give(fleet.sso, token_of(user, fleet.cipher))
    assert turned_away(user, fleet.sso, fleet.cipher) == fleet.verdict.reason


def test_an_incident_seen_by_one_process_is_one_for_all_and_keeps_few_rows(users, sso, cipher):
    """Verdicts of many pilots among successes, Then the notes stay few, and successes end what an hour would."""
    healthy, *others = users
    for user in others:
        serve(healthy, sso, cipher)
        sso.refuse(token_of(user, cipher))
        with pytest.raises((NeedsLogin, TokenUnavailable)):
            access_token(user.id, sso, cipher)
    assert states(others).count(TokenState.NEEDS_LOGIN) == verdict_rate.USERS_OF_AN_INCIDENT - 1
    for user_id in range(1_000, 1_050):
        assert verdict_rate.is_incident(user_id, "they are refused", counts=True)
    notes = FailingOwner.select().where(FailingOwner.gate == verdict_rate.NOTES)
    assert notes.count() == verdict_rate.MOST_NOTES
    serve(healthy, sso, cipher, among=verdict_rate.MOST_NOTES * verdict_rate.SERVED_PER_NOTE)
    assert notes.count() == 0
    passes(timedelta(seconds=verdict_rate.INCIDENT_SECONDS))
    assert turned_away(others[-1], sso, cipher) == REFUSED


def test_a_few_refused_pilots_among_a_thousand_refreshes_are_no_incident(any_db, sso, cipher):
    """Verdicts spread over a morning."""
    for number in range(1_000):
        if number % 120 == 0:
            assert not verdict_rate.is_incident(number, "they are refused", counts=True)
        verdict_rate.served()
    assert FailingOwner.select().count() <= 1
