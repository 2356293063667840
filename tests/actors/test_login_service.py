"""Syncs whose access token has to be refreshed: what the SSO does to one pilot, and what it does to all of them."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

import events
import ledger
import runtime
from actors.schedule import queue_due_users
from actors.sync_dispatching import SYNCS_PER_SLOT, dispatch_syncs_now
from actors.users import sync_user
from api import syncs
from database import utcnow
from esi import refresh_slots
from esi.sso_gate import GATE, USERS_THAT_CLOSE
from ledger import waits
from ledger.rules import LIST_BACKOFF, LOGIN_SERVICE_BACKOFF
from models import Gate, Lock, RefreshSlot, Sync, SyncState, Trigger, User
from simulator.grants import OddAnswer
from tests.actors.asking import ask, only_sync
from tests.actors.post import Post, fresh_queues
from tests.actors.simulated import Pilot, Simulated

#: What the SSO may answer for one pilot alone.
ODD_ANSWERS = {
    "500": OddAnswer(500, {"error": "server_error"}),
    "invalid_token": OddAnswer(400, {"error": "invalid_token", "error_description": "In words of its own."}),
    "invalid_scope": OddAnswer(400, {"error": "invalid_scope"}),
    "unauthorized_client": OddAnswer(400, {"error": "unauthorized_client"}),
    "429": OddAnswer(429, {"error": "rate_limited"}, {"Retry-After": "40"}),
    "malformed": OddAnswer(200, {"access_token": 7, "expires_in": "soon"}),
    "unknown 4xx": OddAnswer(418, {}),
}


def expire_all() -> None:
    User.update(access_token=None, expires_at=None).execute()


def refreshes(simulated: Simulated) -> int:
    return len([entry for entry in simulated.asked("token") if entry.grant_type == "refresh_token"])


def last_sync_of(pilot: Pilot) -> Sync:
    return Sync.select().where(Sync.user == pilot.user_id).order_by(Sync.id.desc()).get()


def set_sso_down(simulated: Simulated, *, down: bool) -> None:
    simulated.call(lambda state: setattr(state, "sso_down_until", 4e9 if down else 0.0))


def test_an_expired_token_costs_one_call_and_four_statements_more(simulated, sync, statements):
    """The lease, the slot (which asks the gate, too), giving the slot back, and the tokens."""
    pilot = simulated.pilot(3)
    sync(pilot)
    spent = []
    for expired in (False, True):
        if expired:
            expire_all()
        before = refreshes(simulated)
        asked = ask(pilot, Trigger.SCHEDULE)
        statements.clear()
        assert asked.sync_id is not None
        sync_user.fn(asked.sync_id)
        spent.append(len([sql for sql in statements if not sql.startswith(("BEGIN", "COMMIT"))]))
    assert refreshes(simulated) == before + 1
    assert spent[1] - spent[0] == 4
    assert last_sync_of(pilot).state == SyncState.FINISHED


@pytest.mark.parametrize("answer", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_odd_answer_for_one_pilot_ends_that_pilots_sync_and_delays_no_other(simulated, sync, later, tick, answer):
    odd, *healthy = [simulated.pilot(1) for _ in range(4)]
    simulated.call(lambda state: state.grants.odd_answers.update({odd.character_id: answer}))
    expire_all()
    sync(odd)
    for _ in range(len(LIST_BACKOFF) + 2):
        for pilot in healthy:
            User.update(access_token=None, expires_at=None).where(User.id == pilot.user_id).execute()
            assert sync(pilot).state == SyncState.FINISHED
        later(400)
        tick()
    assert not Gate.select().where(Gate.failures > 0).exists()
    ended = last_sync_of(odd)
    assert (ended.state, ended.attempts) == (SyncState.FAILED, len(LIST_BACKOFF))
    assert "no usable access token for this character" in ended.error
    assert odd.user.next_sync_at > utcnow()
    assert odd.user.needs_login_reason is None

    # And it heals without anyone's help
    simulated.call(lambda state: state.grants.odd_answers.clear())
    assert sync(odd).state == SyncState.FINISHED


@pytest.mark.parametrize("answer", [ODD_ANSWERS["invalid_scope"], ODD_ANSWERS["500"]], ids=["invalid_scope", "500"])
def test_more_odd_pilots_than_close_the_gate_end_with_their_own_errors_and_delay_no_other(
    simulated, sync, later, tick, crew, caplog, answer
):
    """Given six of them whose tries fall between two polls of the healthy ones."""
    healthy, odd = [[simulated.pilot(1) for _ in range(count)] for count in (2, USERS_THAT_CLOSE + 1)]
    assert {sync(pilot).state for pilot in (*odd, *healthy)} == {SyncState.FINISHED}
    simulated.call(lambda state: state.grants.odd_answers.update({pilot.character_id: answer for pilot in odd}))
    expire_all()
    for pilot in odd:
        ask(pilot, Trigger.SCHEDULE)
    crew.drain()
    for turn in range(len(LIST_BACKOFF)):
        later(400)
        tick()
        if turn % 2:
            for pilot in healthy:
                User.update(access_token=None, expires_at=None).where(User.id == pilot.user_id).execute()
                assert sync(pilot).state == SyncState.FINISHED
    rows = [last_sync_of(pilot) for pilot in odd]
    assert {(row.state, row.attempts) for row in rows} == {(SyncState.FAILED, len(LIST_BACKOFF))}
    assert all("no usable access token for this character" in row.error for row in rows)
    assert {pilot.user.refresh_fails_since is not None for pilot in odd} == {True}
    assert not Gate.select().where(Gate.failures > 0).exists()
    assert [record.message for record in caplog.records if record.message.startswith("login service: closed")] == []


def test_the_probe_is_a_pilot_who_is_not_known_to_fail(simulated, sync, later, crew):
    """Given a gate whose pause is over, and five syncs of which four are of odd pilots."""
    *odd, other = [simulated.pilot(1) for _ in range(5)]
    User.update(refresh_fails_since=utcnow()).where(User.id.in_([pilot.user_id for pilot in odd])).execute()
    expire_all()
    for pilot in (*odd, other):
        ask(pilot, Trigger.SCHEDULE)
    fresh_queues(crew.broker, Post())
    Sync.update(sent_at=None, attempts=0).execute()
    Sync.update(attempts=2).where(Sync.user == other.user_id).execute()
    chosen = ledger.choose_syncs(ledger.SyncRoom(window=10, refreshes=1))
    assert [sync.sync_id for sync in chosen] == [last_sync_of(other).id]


@pytest.mark.parametrize("sent_before", [False, True], ids=["pending", "sent"])
def test_while_all_slots_are_taken_background_syncs_stay_pending_without_a_line_and_hold_no_thread(
    simulated, sync, later, tick, crew, caplog, sent_before
):
    pilots = [simulated.pilot(1) for _ in range(6)]
    expire_all()
    caplog.set_level(logging.INFO)
    if sent_before:
        for pilot in pilots:
            ask(pilot, Trigger.SCHEDULE)
        assert Sync.select().where(Sync.sent_at.is_null(False)).count() == len(pilots)
    while refresh_slots.take(None, ("",), interactive=False):
        pass
    if not sent_before:
        for pilot in pilots:
            ask(pilot, Trigger.SCHEDULE)
    crew.drain()
    rows = list(Sync.select())
    assert {(row.state, row.sent_at, row.waiting_until, row.started_at) for row in rows} == {
        (SyncState.QUEUED, None, None, None)
    }
    assert [record.message for record in caplog.records if "waits until" in record.message] == []
    assert refreshes(simulated) == 0

    # A pilot who waits has a slot of their own
    assert sync(pilots[0]).state == SyncState.FINISHED

    RefreshSlot.update(held_until=0).execute()
    dispatch_syncs_now()
    crew.drain()
    tick()
    assert {row.state for row in Sync.select()} == {SyncState.FINISHED}


def test_with_one_slot_free_only_a_few_syncs_are_sent(simulated):
    pilots = [simulated.pilot() for _ in range(SYNCS_PER_SLOT + 3)]
    expire_all()
    for _ in range(refresh_slots.FOR_BACKGROUND - 1):
        assert refresh_slots.take(None, ("",), interactive=False)
    for pilot in pilots:
        ask(pilot, Trigger.SCHEDULE)
    dispatch_syncs_now()
    assert Sync.select().where(Sync.sent_at.is_null(False)).count() == SYNCS_PER_SLOT
    assert Lock.get_by_id("syncs").wake_at is not None


def test_an_sso_that_is_down_delays_all_and_fails_no_one(simulated, sync, later, tick):
    pilots = [simulated.pilot(1) for _ in range(USERS_THAT_CLOSE + 3)]
    expire_all()
    set_sso_down(simulated, down=True)
    for pilot in pilots[:USERS_THAT_CLOSE]:
        row = sync(pilot)
        assert row.state == SyncState.LISTING
        assert "login service" in row.waiting_for
    for pilot in pilots[USERS_THAT_CLOSE:]:
        row = sync(pilot)
        assert (row.state, row.sent_at) == (SyncState.QUEUED, None), "not sent while the gate is closed"
        assert row.waiting_until is None, "what all of them wait for is one row"
        shown = syncs.load([row.id])[row.id]
        assert (shown.state, shown.waiting_for) == ("WAITING", "EVE's login service does not answer")
        assert shown.waiting_until is not None
        assert utcnow() < shown.waiting_until < utcnow() + timedelta(minutes=6)
    for _ in range(10):
        later(300)
        tick()
    rows = list(Sync.select())
    assert {row.state for row in rows} <= {SyncState.QUEUED, SyncState.LISTING}, "an outage fails no sync"
    # Only what failed before the gate closed has spent an attempt, and one only.
    assert sorted(row.attempts for row in rows) == [0] * 4 + [1] * (USERS_THAT_CLOSE - 1)
    assert User.select().where(User.needs_login_reason.is_null(False)).count() == 0
    assert simulated.asked("recent") == []
    told = {(view.state, view.waiting_for) for view in syncs.load([row.id for row in rows]).values()}
    assert told == {("WAITING", "EVE's login service does not answer")}

    set_sso_down(simulated, down=False)
    for _ in range(3):
        later(310)
        tick()
    assert {row.state for row in Sync.select()} == {SyncState.FINISHED}
    assert waits.current() == {}


def test_a_closed_login_service_is_no_reason_for_who_needs_no_refresh(simulated, post):
    """The broker is away as well, so that both stay queued."""
    valid, expired = simulated.pilot(1), simulated.pilot(1)
    User.update(access_token=None, expires_at=None).where(User.id == expired.user_id).execute()
    Gate.insert(name=GATE, closed_until=time.time() + 200, reason="closed", failures=1).execute()
    post.refuse("sync_user")
    told: list[object] = []
    events.subscribe(told.append)
    queued = [ask(pilot).sync_id or 0 for pilot in (valid, expired)]
    events.close()
    shown = syncs.load(queued)
    assert [(shown[each].state, shown[each].waiting_for) for each in queued] == [
        ("QUEUED", None),
        ("WAITING", "closed"),
    ]
    assert told.count(events.WaitsChanged()) == 1
    # And when it is open again, nobody waits for it any longer
    Gate.update(closed_until=0, failures=0).execute()
    dispatch_syncs_now()
    assert {view.state for view in syncs.load(queued).values()} == {"QUEUED"}


def test_the_only_pilot_is_due_again_within_the_hour_however_long_the_sso_was_down(simulated, sync, later, tick):
    pilot = simulated.pilot(1)
    set_sso_down(simulated, down=True)
    for _ in range(5):  # the fifth failure in a row would push a list's next sync out by a day
        expire_all()
        sync(pilot)
        for _ in range(len(LIST_BACKOFF) + 1):
            later(400)
            tick()
        assert only_failed(pilot)
        assert pilot.user.next_sync_at <= utcnow() + LOGIN_SERVICE_BACKOFF
        assert pilot.user.consecutive_failures <= 3, "the next failure of another kind costs no day either"
    set_sso_down(simulated, down=False)
    assert sync(pilot).state == SyncState.FINISHED


def only_failed(pilot: Pilot) -> bool:
    row = last_sync_of(pilot)
    assert row.error is not None
    return row.state == SyncState.FAILED and "503" in row.error


def test_a_login_service_that_has_another_characters_token_for_this_one_fails_the_sync_in_the_end(
    simulated, sync, later, tick
):
    """Given what is wrong with one user's tokens alone, Then their sync ends, and no one has to log in for it."""
    pilot, other = simulated.pilot(2), simulated.pilot(2)
    expire_all()
    mine, theirs = (runtime.cipher().decrypt(each.user.refresh_token) for each in (pilot, other))
    simulated.call(lambda state: state.grants._tokens.update({mine: state.grants._tokens[theirs]}))
    sync(pilot)
    for _ in range(6):
        later(1000)
        tick()
    row = last_sync_of(pilot)
    assert (row.state, row.attempts) == (SyncState.FAILED, 4)
    assert "another character's token" in row.error
    assert pilot.user.needs_login_reason is None
    assert sync(other).state == SyncState.FINISHED


def test_a_wrong_client_secret_is_told_and_not_called_an_outage(simulated, sync, configure):
    pilots = [simulated.pilot(1) for _ in range(USERS_THAT_CLOSE + 2)]
    expire_all()
    configure(EVE_CLIENT_SECRET="of-another-application")
    for pilot in pilots[:USERS_THAT_CLOSE]:
        row = sync(pilot)
        assert row.state == SyncState.LISTING
        assert timedelta(0) < row.waiting_until - utcnow() < timedelta(minutes=2)
        assert "EVE_CLIENT_SECRET" in row.waiting_for
        assert "does not answer" not in row.waiting_for
    for pilot in pilots[USERS_THAT_CLOSE:]:
        assert sync(pilot).state == SyncState.QUEUED
    assert refreshes(simulated) == USERS_THAT_CLOSE


def test_a_refused_refresh_token_fails_the_sync_and_asks_for_a_login(simulated, sync):
    pilot = simulated.pilot(2)
    expire_all()
    simulated.call(lambda state: state.grants.revoke_pilot(pilot.character_id))
    row = sync(pilot)
    assert row.state == SyncState.FAILED
    assert "Log in again" in row.error
    assert pilot.user.needs_login_reason is not None
    assert pilot.user.next_sync_at is None
    assert ask(pilot).queued is False


def test_a_login_that_the_sso_refused_by_mistake_is_synced_after_the_recheck(simulated, sync, later, tick, crew):
    pilot = simulated.pilot(2)
    expire_all()
    refresh_token = runtime.cipher().decrypt(pilot.user.refresh_token)
    simulated.call(lambda state: state.grants.revoke(refresh_token))
    assert sync(pilot).state == SyncState.FAILED
    simulated.call(lambda state: setattr(state.grants._tokens[refresh_token], "dead_because", None))

    for seconds, ends in ((1800, [SyncState.FAILED]), (1900, [SyncState.FAILED, SyncState.FINISHED])):
        later(seconds)
        tick()
        queue_due_users()
        crew.drain()
        assert [row.state for row in Sync.select().order_by(Sync.id)] == ends
    assert (pilot.user.needs_login_reason, pilot.user.recheck_at) == (None, None)


def test_a_sold_character_fails_the_sync_and_says_why(simulated, sync):
    pilot = simulated.pilot(2)
    expire_all()

    def sell(state):
        state.world.pilots[pilot.character_id].transfers += 1

    simulated.call(sell)
    sync(pilot)
    row = only_sync()
    assert row.state == SyncState.FAILED
    assert "another account" in row.error
    assert simulated.asked("recent") == []
