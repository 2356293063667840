"""Whose killmail is fetched next: syncs take turns, and the oldest rows of each class always get a share."""

from __future__ import annotations

from datetime import timedelta

import pytest

import ledger
from database import as_datetime, execute
from ledger import Allowed
from ledger.dispatching import split
from models import Trigger, User
from tests.unit.ledger.world import (
    HOUR,
    PLENTY,
    add_page,
    claimed,
    end_listing,
    failed,
    joined,
    listed,
    lose_leases,
    make_due,
    make_user,
    opened,
    reading,
    row,
    settle,
)

LOGIN = Trigger.LOGIN


def fetch(count: int) -> list[int]:
    """So many killmails are sent, fetched and stored; returns their ids in the order in which they were sent."""
    sent = [out.killmail_id for out in ledger.dispatch(Allowed(count, 0), PLENTY)]
    for killmail_id in sent:
        claim = ledger.claim(killmail_id)
        assert claim is not None
        assert settle(claim).stored
    return sent


def without_floors() -> None:
    """The next rows that are sent fall on no floor (the counter is at its start)."""
    execute("UPDATE locks SET sent = 0 WHERE name = 'dispatch'")


def age(user: User, by: timedelta) -> None:
    """The killmails of this user's lists were listed so much earlier."""
    (latest,) = execute("SELECT MAX(created_at) FROM ledger").fetchone()
    at = as_datetime(latest) - by
    mine = "SELECT killmail_id FROM user_killmails WHERE user_id = ?"
    execute(f"UPDATE ledger SET created_at = ? WHERE killmail_id IN ({mine})", (at, user.id))


# Turns


def test_two_logins_alternate_whoever_has_the_newer_killmails(user, other):
    listed(user, range(101, 121), LOGIN)
    listed(other, range(1, 21), LOGIN)
    assert fetch(4) == [120, 20, 119, 19]


def test_a_login_with_few_old_killmails_overtakes_one_that_is_far_into_its_many(user, other):
    listed(user, range(10_001, 10_301), LOGIN)
    for _ in range(10):
        without_floors()
        fetch(4)
    listed(other, range(1, 31), LOGIN)
    without_floors()
    assert fetch(4) == [30, 29, 28, 27]


def test_a_login_with_many_at_most_doubles_the_time_of_one_with_few(user, other):
    listed(user, range(10_001, 10_501), LOGIN)
    few = listed(other, range(1, 51), LOGIN)
    rounds = 0
    while not ledger.ready_to_finish([few]):
        fetch(10)
        rounds += 1
    assert rounds <= 50 * 2 / 10 * 10 / 8  # the floors' share comes on top


def test_positions_go_on_from_page_to_page_and_count_what_is_not_stored(user, other):
    listed(other, [5])
    ledger.dispatch(Allowed(0, 9), PLENTY)
    claim = ledger.claim(5)
    assert claim is not None
    settle(claim)
    sync, seen = reading(user, LOGIN), set[int]()
    first = add_page(sync, [6, 5, 4], seen=seen, pages=2)
    end_listing(add_page(first.sync, [4, 3, 2], seen=seen, pages=2).sync)
    assert {id_: row(id_).turn for id_ in (6, 4, 3, 2)} == {6: 0, 4: 1, 3: 3, 2: 4}


def test_a_shared_killmail_has_the_earliest_of_its_positions(user, other):
    listed(user, [3, 2, 1])
    listed(other, [1])
    assert row(1).turn == 0
    listed(make_user(), [9, 3, 2])
    assert (row(3).turn, row(2).turn) == (0, 1)


def test_a_list_that_is_read_again_from_its_start_counts_from_its_start(user):
    sync = opened(user)
    add_page(claimed(sync), [9, 8], pages=2)
    joined(user, Trigger.WEB, full=True)
    execute("UPDATE syncs SET claimed_until = NULL")
    add_page(claimed(sync), [9, 8, 7])
    assert [row(id_).turn for id_ in (9, 8, 7)] == [0, 1, 2]


def test_what_failed_goes_some_turns_later(user, other):
    listed(user, range(101, 200), LOGIN)
    failed(199)
    ledger.give_back(list(range(101, 200)))
    make_due(199)
    without_floors()
    assert 199 not in fetch(4)
    assert row(199).turn == ledger.rules.TURNS_LOST_BY_FAILURE
    # And once nothing waits for it any more, behind all others
    failed(199, times=3)
    assert row(199).turn >= ledger.rules.LAST_TURN


def test_a_pilot_who_asks_again_gets_back_the_turn_of_what_failed(user):
    listed(user, [2, 1], LOGIN)
    failed(1, times=4)
    assert row(1).turn >= ledger.rules.LAST_TURN
    assert ledger.retry_given_up(user.id, 8) == 1
    assert row(1).turn < ledger.rules.LAST_TURN


# Floors


@pytest.mark.parametrize(
    ("sent", "room", "interactive", "background", "expected"),
    [
        (0, 10, 99, 99, (8, 1, 1)),
        (0, 10, 99, 0, (9, 1, 0)),  # an empty class gives its share away
        (0, 10, 0, 99, (0, 0, 0)),  # the interactive allowance is for the background only beside logins
        (9, 10, 0, 99, (0, 0, 1)),  # what is owed is paid
        (0, 4, 99, 99, (4, 0, 0)),
        (4, 1, 99, 99, (0, 1, 0)),
        (9, 1, 99, 99, (0, 0, 1)),
        (0, 100, 99, 99, (80, 10, 10)),
        (0, 0, 99, 99, (0, 0, 0)),
        (7, -1, 99, 99, (0, 0, 0)),
        (0, 100, 3, 99, (3, 0, 0)),
    ],
)
def test_of_every_ten_rows_one_goes_to_each_floor(sent, room, interactive, background, expected):
    shares = split(sent, room, interactive, background)
    assert (shares.by_turn, shares.oldest, shares.background) == expected


def test_background_work_goes_on_beside_logins_that_take_all_they_are_allowed(user, other):
    listed(other, range(1, 41))
    listed(user, range(1001, 1101), LOGIN)
    sent = [id_ for _ in range(10) for id_ in fetch(5)]
    assert len([id_ for id_ in sent if id_ < 1000]) == 5, "one in ten, on the logins' allowance"
    assert len(sent) == 50


def test_a_background_row_that_goes_on_the_logins_allowance_is_asked_for_as_theirs(user, other):
    listed(other, [1])
    listed(user, range(101, 111), LOGIN)
    ledger.dispatch(Allowed(10, 0), PLENTY)
    claim = ledger.claim(1)
    assert claim is not None
    assert claim.priority == 8


def lost(killmail_id: int) -> None:
    lose_leases()
    ledger.take_back_expired()


def given_back(killmail_id: int) -> None:
    ledger.give_back([killmail_id])


def released(killmail_id: int) -> None:
    ledger.release(claim_of(killmail_id))


def put_off(killmail_id: int) -> None:
    ledger.defer(claim_of(killmail_id), "ESI answered 500")
    make_due(killmail_id)


def killed(killmail_id: int) -> None:
    claim_of(killmail_id)
    lost(killmail_id)


def restarted(killmail_id: int) -> None:
    claim_of(killmail_id)
    ledger.reset_unfinished()


def claim_of(killmail_id: int) -> ledger.Claim:
    claim = ledger.claim(killmail_id)
    assert claim is not None
    return claim


@pytest.mark.parametrize("ends", [lost, given_back, released, put_off, killed, restarted])
def test_a_background_row_is_one_of_the_logins_only_while_it_is_out(user, other, ends):
    """However its message or its worker ends. Else it would go on the logins' allowance for ever."""
    background = listed(other, [1])
    listed(user, range(101, 111), LOGIN)
    assert (1, 8) in {(out.killmail_id, out.priority) for out in ledger.dispatch(Allowed(10, 0), PLENTY)}
    assert row(1).priority == 3
    ends(1)
    assert row(1).priority == 3
    # Nothing of a login is left, and background work has no allowance
    execute("DELETE FROM ledger WHERE killmail_id > 100")
    assert ledger.dispatch(Allowed(10, 0), PLENTY) == []
    # And on its own allowance it goes as what it is
    assert [out.priority for out in ledger.dispatch(Allowed(0, 10), PLENTY)] == [3]
    assert claim_of(1).priority == 3
    assert ledger.ready_to_finish([background]) == []


def test_a_share_that_is_out_fills_the_logins_window(user, other):
    listed(other, range(1, 11))
    listed(user, range(101, 151), LOGIN)
    first = ledger.dispatch(Allowed(PLENTY, 0), 20)
    assert len([out for out in first if out.killmail_id < 100]) == 2
    assert ledger.dispatch(Allowed(PLENTY, 0), 20) == []


def test_a_share_that_a_login_wants_too_stays_that_logins(user, other):
    listed(other, [1])
    listed(user, range(101, 111), LOGIN)
    ledger.dispatch(Allowed(10, 0), PLENTY)
    listed(make_user(), [1], LOGIN)
    released(1)
    assert row(1).priority == 8
    assert 1 in {out.killmail_id for out in ledger.dispatch(Allowed(10, 0), PLENTY)}


def test_the_oldest_rows_of_each_class_are_never_left_for_ever(user, other):
    # Given the tails of a login and of a background sync, the oldest of all, and newer ones without end
    listed(user, range(501, 521), LOGIN)
    age(user, 2 * HOUR)
    listed(other, range(601, 621))
    age(other, 3 * HOUR)
    execute("UPDATE ledger SET turn = turn + 1000")
    listed(make_user(), range(10_001, 10_301), LOGIN)
    sent = fetch(100)
    assert len([id_ for id_ in sent if 500 < id_ < 600]) == 10
    assert len([id_ for id_ in sent if 600 < id_ < 700]) == 10


def test_among_background_rows_one_in_ten_is_the_oldest(user, other):
    listed(user, range(501, 521))
    age(user, HOUR)
    execute("UPDATE ledger SET turn = turn + 1000")
    listed(other, range(10_001, 10_101))
    sent = ledger.dispatch(Allowed(0, 50), PLENTY)
    assert len([out for out in sent if out.killmail_id < 1000]) == 5
    assert {out.priority for out in sent} == {3}


def test_the_count_is_kept_between_dispatches_and_by_all_processes(user, other):
    listed(user, range(501, 521))
    listed(other, range(10_001, 10_101), LOGIN)
    sent = [len([out for out in ledger.dispatch(Allowed(1, 0), PLENTY) if out.killmail_id < 1000]) for _ in range(30)]
    assert [n for n, count in enumerate(sent, 1) if count] == [10, 20, 30]
