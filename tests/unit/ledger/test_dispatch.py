"""dispatch: which rows become messages, in what order, and how many; and what is told while a road is closed."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial

import pytest

import ledger
from database import execute, insert_rows, is_sqlite, utcnow
from ledger import Allowed, Outgoing
from ledger.rules import SENT_LEASE, SLOW_AT_ONCE
from models import Trigger, User
from tests.unit.ledger.world import (
    HOUR,
    PLENTY,
    dispatch_all,
    failed,
    hash_of,
    listed,
    lose_leases,
    make_due,
    make_user,
    rejected,
    row,
    row_state,
    stored,
    taken,
)


def test_the_highest_priority_first_and_of_these_the_newest():
    listed(make_user(), [1, 5])
    listed(make_user(), [2, 4], Trigger.LOGIN)
    listed(make_user(), [3, 6], Trigger.MANUAL)
    assert dispatch_all() == [Outgoing(*sent) for sent in [(4, 8), (2, 8), (6, 5), (3, 5), (5, 3), (1, 3)]]


def test_a_probe_goes_to_what_has_failed_least():
    # Given failures of the most urgent and the newest
    listed(make_user(), [9], Trigger.LOGIN)
    failed(9, times=2)
    listed(make_user(), [8])
    failed(8)
    listed(make_user(), [7])
    make_due(8)
    make_due(9)
    # Then they are the last to find out whether ESI is up again
    probes = [ledger.dispatch(Allowed(1, 1, probe=True), PLENTY) for _ in range(3)]
    assert probes == [[Outgoing(7, 3)], [Outgoing(8, 3)], [Outgoing(9, 8)]]


def test_a_probe_is_of_a_pilot_whose_requests_have_not_failed():
    # Given two pilots whose requests failed, one of whom lists the most urgent killmails
    bad, worse, good = make_user(), make_user(), make_user()
    listed(bad, [7, 8, 9], Trigger.LOGIN)
    listed(worse, [5, 6])
    listed(good, [4])
    failing = (bad.character_id, worse.character_id)
    probes = [ledger.dispatch(Allowed(1, 1, probe=True, failing=failing), PLENTY) for _ in range(2)]
    assert probes == [[Outgoing(4, 3)], [Outgoing(9, 8)]]
    # And of nobody's else where the list of another pilot may be it
    assert ledger.dispatch(Allowed(1, 1, probe=True, failing=failing, others_only=True), PLENTY) == []


def test_a_killmail_that_several_list_is_always_the_same_pilots():
    first, second = make_user(), make_user()
    listed(second, [1])
    listed(first, [1])
    assert taken(1).character_id == first.character_id


@pytest.mark.parametrize("trigger", [Trigger.SCHEDULE, Trigger.LOGIN])
def test_of_killmails_that_take_long_to_fail_a_few_are_out_at_a_time(user, other, trigger):
    # Given ten of them
    listed(user, range(101, 111), trigger)
    for claim in [taken(killmail_id) for killmail_id in range(101, 111)]:
        ledger.put_with_slow(claim)
        assert (row(claim.killmail_id).state, row(claim.killmail_id).attempts) == ("pending", 0)
    listed(other, [1, 2], trigger)
    # Then they go behind all others, three at a time
    assert [sent.killmail_id for sent in dispatch_all()][-SLOW_AT_ONCE - 2 :] == [2, 1, 110, 109, 108]
    held = [ledger.claim(killmail_id) for killmail_id in (1, 2, 110)]
    assert dispatch_all() == []
    # And the next one when one has ended
    for each in held:
        assert each
        ledger.defer(each, "no answer")
    assert [sent.killmail_id for sent in dispatch_all()] == [107]


def test_a_probe_is_interactive_where_background_may_spend_nothing():
    listed(make_user(), [1], Trigger.LOGIN)
    listed(make_user(), [2])
    assert ledger.dispatch(Allowed(1, 0, probe=True), PLENTY) == [Outgoing(1, 8)]
    assert ledger.dispatch(Allowed(1, 0, probe=True), PLENTY) == []


def test_a_row_is_marked_sent_with_a_lease_and_sent_once(user):
    listed(user, [1])
    assert len(dispatch_all()) == 1
    assert row(1).state == "sent"
    assert utcnow() < row(1).claimed_until <= utcnow() + SENT_LEASE
    assert dispatch_all() == []


@pytest.mark.parametrize("trigger", [Trigger.SCHEDULE, Trigger.LOGIN])
def test_no_more_than_a_window_is_out(user, trigger):
    listed(user, range(1, 21), trigger)
    assert [sent.killmail_id for sent in ledger.dispatch(Allowed(PLENTY, PLENTY), 8)] == list(range(20, 12, -1))
    assert ledger.dispatch(Allowed(PLENTY, PLENTY), 8) == []
    # What a worker has taken up makes room
    for killmail_id in (20, 19, 18):
        assert ledger.claim(killmail_id)
    assert [sent.killmail_id for sent in ledger.dispatch(Allowed(PLENTY, PLENTY), 8)] == [12, 11, 10]


def test_a_login_never_waits_for_a_window_full_of_background(user, other):
    listed(other, range(1, 21))
    assert len(ledger.dispatch(Allowed(PLENTY, PLENTY), 8)) == 8
    listed(user, range(101, 121), Trigger.LOGIN)
    sent = ledger.dispatch(Allowed(PLENTY, PLENTY), 8)
    # But for one row in ten, which goes as theirs does
    assert [(out.killmail_id, out.priority) for out in sent] == [(id_, 8) for id_ in [*range(120, 113, -1), 12]]


def test_a_window_of_logins_leaves_no_room_to_background(user, other):
    listed(other, range(1, 21))
    listed(user, range(101, 107), Trigger.WEB)
    sent = ledger.dispatch(Allowed(PLENTY, PLENTY), 8)
    assert [out.priority for out in sent] == [8] * 6 + [3] * 2
    assert ledger.dispatch(Allowed(PLENTY, PLENTY), 8) == []


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (Allowed(0, 0), (0, 0)),
        (Allowed(3, 0), (3, 0)),  # a quarter left: logins only
        (Allowed(10, 7), (5, 2)),  # what logins take is gone for background
        (Allowed(10, 4), (5, 0)),
        (Allowed(5, 20), (5, 6)),
        (Allowed(-1, -1), (0, 0)),
    ],
)
def test_no_more_than_is_allowed_to_each_class(allowed, expected):
    listed(make_user(), range(1, 7))
    listed(make_user(), range(11, 16), Trigger.LOGIN)
    sent = [out.priority for out in ledger.dispatch(allowed, PLENTY)]
    assert (sent.count(8), sent.count(3)) == expected


@pytest.mark.parametrize("window", [0, -3])
def test_no_window_no_message(user, window):
    listed(user, [1], Trigger.LOGIN)
    assert ledger.dispatch(Allowed(PLENTY, PLENTY), window) == []


def test_a_deferred_row_goes_out_when_its_time_has_come(user):
    listed(user, [1, 2])
    failed(1)
    failed(2)
    assert dispatch_all() == []
    make_due(1)
    assert [sent.killmail_id for sent in dispatch_all()] == [1]
    assert row(1).not_before is None
    assert (row(1).attempts, row(2).state) == (1, "deferred")


def test_a_deferred_row_that_is_due_is_pending_even_where_nothing_may_be_sent(user):
    listed(user, [1])
    failed(1)
    make_due(1)
    ledger.dispatch(Allowed(0, 0), 8)
    assert row_state(1) == "pending"


def test_what_is_rejected_or_in_somebodys_hands_is_not_sent(user):
    listed(user, [1, 2, 3])
    rejected(1)
    taken(2)
    stored(3)
    assert dispatch_all() == []


@pytest.mark.parametrize("limit", [3, 8])
def test_a_limit_holds_whatever_plan_the_database_makes(user, limit):
    """PostgreSQL may run a LIMIT once per row where the table was all but empty when it was last analysed."""
    now = utcnow()
    insert_rows("ledger", _COLUMNS, [_pending(1, now)])
    execute("ANALYZE ledger" if is_sqlite() else "VACUUM (ANALYZE) ledger")
    insert_rows("ledger", _COLUMNS, [_pending(killmail_id, now) for killmail_id in range(160, 100, -1)])
    sent = ledger.dispatch(Allowed(limit, limit), limit)
    assert [out.killmail_id for out in sent] == list(range(160, 160 - limit, -1))
    assert ledger.upcoming() == limit


def test_upcoming_counts_the_messages_that_are_out(user):
    listed(user, [1, 2, 3])
    assert ledger.upcoming() == 0
    dispatch_all()
    assert ledger.upcoming() == 3
    ledger.claim(1)
    ledger.give_back([2])
    assert ledger.upcoming() == 1


def test_has_pending_tells_the_classes_apart(user, other):
    assert not ledger.has_pending(interactive=True)
    assert not ledger.has_pending(interactive=False)
    listed(user, [1], Trigger.MANUAL)
    assert not ledger.has_pending(interactive=True)
    assert ledger.has_pending(interactive=False)
    listed(other, [2], Trigger.LOGIN)
    assert ledger.has_pending(interactive=True)
    dispatch_all()
    assert not ledger.has_pending(interactive=True)
    assert not ledger.has_pending(interactive=False)


# Waking up


def test_the_next_wake_up_is_for_the_earliest_row_that_is_soon(user):
    assert ledger.next_due() is None
    listed(user, [1, 2])
    failed(1)
    soon = row(1).not_before
    assert ledger.next_due() == soon
    failed(2, times=3)  # a minute
    assert ledger.next_due() == soon


def test_a_row_that_is_far_off_is_left_to_the_tick(user):
    listed(user, [1])
    failed(1, times=4)  # a quarter of an hour
    assert ledger.next_due() is None


def test_one_wake_up_is_on_its_way_at_a_time():
    at = utcnow() + timedelta(seconds=30)
    assert ledger.set_wake(at)
    assert not ledger.set_wake(at)
    assert not ledger.set_wake(at + timedelta(seconds=30))  # the earlier one looks again
    assert not ledger.set_wake(at - timedelta(milliseconds=500))  # near enough
    assert ledger.set_wake(at - timedelta(seconds=10))


def test_a_wake_up_that_has_passed_or_was_lost_keeps_nobody_asleep():
    assert ledger.set_wake(utcnow() - timedelta(seconds=1))
    assert ledger.set_wake(utcnow() + HOUR)


def test_a_lost_message_is_sent_again(user):
    listed(user, [1])
    dispatch_all()
    lose_leases()
    assert ledger.take_back_expired() == 1
    assert [sent.killmail_id for sent in dispatch_all()] == [1]


def test_a_users_next_sync_does_not_matter_to_what_is_on_the_ledger(user):
    listed(user, [1])
    User.update(next_sync_at=None).execute()
    assert len(dispatch_all()) == 1


_COLUMNS = ("killmail_id", "killmail_hash", "priority", "state", "attempts", "created_at")


def _pending(killmail_id: int, now: datetime) -> tuple[object, ...]:
    return killmail_id, hash_of(killmail_id), 3, "pending", 0, now


@pytest.mark.parametrize(
    ("module", "ask", "index"),
    [
        (ledger.dispatching, ledger.upcoming, "ledger_claimed"),
        (ledger.dispatching, partial(ledger.dispatch, Allowed(0, 0), 0), "ledger_claimed"),
        (ledger.dispatching, partial(ledger.has_pending, interactive=False), "ledger_pending"),
        (ledger.dispatching, ledger.next_due, "ledger_deferred"),
    ],
    ids=["upcoming", "dispatch", "has_pending", "next_due"],
)
def test_what_every_dispatch_asks_is_answered_by_an_index(plans, module, ask, index):
    """However many killmails wait, and however many syncs have ended."""
    if not is_sqlite():
        execute("SET enable_seqscan TO off")
    seen = plans(module)
    ask()
    assert any(index in plan for plan in seen), seen


@pytest.mark.parametrize("doubtful", [PLENTY, 1])
def test_what_is_sent_is_read_in_the_order_of_an_index(plans, user, other, doubtful):
    """A million rows that wait are not sorted to find the first."""
    if not is_sqlite():
        for way in ("seqscan", "bitmapscan", "sort"):
            execute(f"SET enable_{way} TO off")
    listed(user, range(1, 21))
    listed(other, range(101, 121), Trigger.LOGIN)
    seen = plans(ledger.dispatching)
    assert len(ledger.dispatch(Allowed(25, 35, doubtful=doubtful), PLENTY)) == 35
    picks = [plan for plan in seen if "picked" in plan]
    assert len(picks) >= 5, "by turn and the oldest, of each class, and background's share"
    assert not [plan for plan in picks if "FOR ORDER BY" in plan or "Sort Key" in plan]
    for index in ("ledger_pending", "ledger_oldest", "ledger_oldest_background"):
        assert any(index in plan for plan in picks)
