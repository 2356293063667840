"""accounts.py on characters that change their owner: what is hidden, kept, given back and deleted, and incidents."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest

import accounts
from database import clock, execute, utcnow
from esi import owner_changes
from events import SessionsEnded
from models import FormerKillmail, FormerOwner, Killmail, User, UserKillmail
from tests.unit.fake_sso import expire, log_in, pilot
from tests.web_app import deletion_was_due_for_hours, make_killmail
from tokens import NeedsLogin, access_token

ONE, TWO = "owner-one", "owner-two"


def links(user: User) -> set[int]:
    return {link.killmail_id for link in UserKillmail.select().where(UserKillmail.user == user.id)}


def a_month_later() -> None:
    execute("UPDATE former_owners SET sold_at = ?", (utcnow() - timedelta(days=31),))
    deletion_was_due_for_hours()


def test_a_sold_character_starts_clean_and_the_former_owners_data_is_hidden(any_db, sso, cipher, monkeypatch):
    ended: list[object] = []
    monkeypatch.setattr(accounts, "publish", ended.append)
    former = log_in(sso, cipher, pilot(owner_hash=ONE))
    make_killmail(1, former)
    User.update(last_killmail_id=1, list_fresh_until=utcnow() + timedelta(minutes=4)).execute()
    known = User.get()
    newcomer = log_in(sso, cipher, pilot(owner_hash=TWO))
    assert [user.owner_hash for user in User.select()] == [TWO]
    assert UserKillmail.select().count() == 0
    assert newcomer.last_killmail_id is None
    assert newcomer.session_epoch != former.session_epoch  # the id may be given out again
    assert ended == [SessionsEnded(former.id)]
    # It is no longer deleted at once
    assert Killmail.select().count() == FormerKillmail.select().count() == 1
    # And ESI is not asked sooner for it: the list is the character's
    assert newcomer.list_fresh_until == known.list_fresh_until


def test_each_owner_who_logs_in_again_finds_their_own(any_db, sso, cipher):
    make_killmail(1, log_in(sso, cipher, pilot(owner_hash=ONE)))
    make_killmail(2, log_in(sso, cipher, pilot(owner_hash=TWO)))
    for _ in range(2):
        assert links(log_in(sso, cipher, pilot(owner_hash=ONE))) == {1}
        assert links(log_in(sso, cipher, pilot(owner_hash=TWO))) == {2}
    assert User.select().count() == FormerOwner.select().count() == 1


def test_after_a_month_it_is_deleted(any_db, sso, cipher):
    make_killmail(1, log_in(sso, cipher, pilot(owner_hash=ONE)))
    log_in(sso, cipher, pilot(owner_hash=TWO))
    assert accounts.forget_former_owners() == 0
    a_month_later()
    assert accounts.forget_former_owners() == 1
    assert Killmail.select().count() == FormerOwner.select().count() == 0
    assert links(log_in(sso, cipher, pilot(owner_hash=ONE))) == set()


def test_when_all_owners_change_nothing_is_deleted(any_db, sso, cipher, caplog):
    """EVE changes how it names owners: each pilot's next login looks like a sale."""
    characters = range(90_000_001, 90_000_007)
    for number, character_id in enumerate(characters):
        make_killmail(number, log_in(sso, cipher, pilot(character_id, ONE)))
    for character_id in characters:
        log_in(sso, cipher, pilot(character_id, TWO))
    # They are synced again, which proves nothing about the former ones
    for user in User.select():
        expire(user)
        assert access_token(user.id, sso, cipher)
    # More than two months later, with pilots who came since and are named as they were
    a_month_later()
    execute("UPDATE failing_owners SET failed_at = failed_at - ?", (70 * 86_400.0,))
    came_since = log_in(sso, cipher, pilot(90_000_050, TWO))
    User.update(created_at=utcnow() - timedelta(days=69)).where(User.id == came_since.id).execute()
    log_in(sso, cipher, pilot(90_000_060, ONE))
    log_in(sso, cipher, pilot(90_000_060, TWO))
    log_in(sso, cipher, pilot(90_000_050, TWO))
    assert accounts.forget_former_owners() == 0
    assert Killmail.select().count() == 6
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize("how", ["login", "refresh"])
def test_single_sales_among_pilots_who_stay_are_deleted(any_db, sso, cipher, how):
    stays = log_in(sso, cipher, pilot(90_000_100))
    for character_id in range(90_000_001, 90_000_007):
        log_in(sso, cipher, pilot(character_id, ONE))
        log_in(sso, cipher, pilot(character_id, TWO))
        if character_id != 90_000_004:
            continue
        if how == "login":
            log_in(sso, cipher, pilot(90_000_100))
        else:
            expire(stays)
            access_token(stays.id, sso, cipher)
    assert owner_changes.paused_since() is None
    a_month_later()
    assert accounts.forget_former_owners() == 5, "so many at a time"
    assert accounts.forget_former_owners() == 1


def test_a_sale_that_a_refresh_sees_starts_the_month_and_ends_the_sessions(any_db, sso, cipher):
    user = log_in(sso, cipher)
    make_killmail(1, user)
    sso.sell(cipher.decrypt(user.refresh_token), TWO)
    expire(user)
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    seen = User.get()
    assert abs(seen.sold_at - utcnow()) < timedelta(minutes=1)
    assert (seen.next_sync_at, seen.session_epoch == user.session_epoch) == (None, False)
    User.update(sold_at=utcnow() - timedelta(days=31)).execute()
    deletion_was_due_for_hours()
    assert accounts.forget_former_owners() == 1
    assert User.select().count() == Killmail.select().count() == 0


def test_the_last_refusal_does_not_start_the_month_again(any_db, sso, cipher):
    user = log_in(sso, cipher)
    sso.sell(cipher.decrypt(user.refresh_token), TWO)
    expire(user)
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    first = utcnow() - timedelta(hours=1)
    User.update(sold_at=first, recheck_at=utcnow(), rechecks=2, next_sync_at=utcnow()).execute()
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    assert (User.get().sold_at, User.get().refresh_token) == (first, None)


@pytest.mark.parametrize("how", ["recheck", "login"])
def test_an_owner_who_is_named_again_is_not_sold(any_db, sso, cipher, how):
    user = log_in(sso, cipher)
    refresh_token = cipher.decrypt(user.refresh_token)
    sso.sell(refresh_token, TWO)
    expire(user)
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    sso.sell(refresh_token, ONE)
    if how == "login":
        log_in(sso, cipher)
    else:
        User.update(recheck_at=utcnow(), next_sync_at=utcnow()).execute()
        access_token(user.id, sso, cipher)
    assert (User.get().id, User.get().sold_at) == (user.id, None)


@pytest.fixture
def time(monkeypatch) -> Callable[[timedelta], None]:
    """Sets the clock that everything is compared with so far ahead of the real one."""
    real = clock.now

    def set_ahead(by: timedelta) -> None:
        monkeypatch.setattr(clock, "now", lambda: real() + by.total_seconds())

    return set_ahead


def looks(time, *hours: float) -> int:
    """The tick looks at these hours from now; returns how many former owners were deleted."""
    deleted = 0
    for each in hours:
        time(timedelta(hours=each))
        deleted += accounts.forget_former_owners()
    return deleted


@pytest.fixture
def sold(any_db, sso, cipher) -> None:
    """One former owner whose present owner has logged in, and one character that a refresh saw to be sold."""
    make_killmail(1, log_in(sso, cipher, pilot(90_000_001, ONE)))
    log_in(sso, cipher, pilot(90_000_001, TWO))
    seen = log_in(sso, cipher, pilot(90_000_002, ONE))
    make_killmail(2, seen)
    User.update(sold_at=utcnow(), next_sync_at=None).where(User.id == seen.id).execute()


MONTH = 30 * 24.0


@pytest.mark.parametrize("for_hours", [[0.0], [0.0, 1 / 60, 1.0]])
def test_a_clock_that_jumps_a_month_ahead_and_back_deletes_and_hides_nothing(sold, time, for_hours):
    assert looks(time, 0, *(MONTH + 1 + each for each in for_hours), 1.5, 2, 2.5, 3, 3.5, 4, 4.5) == 0
    assert (User.select().count(), Killmail.select().count(), FormerOwner.select().count()) == (2, 2, 1)


def test_a_clock_that_jumps_while_another_deletion_is_due_deletes_only_that_one(sold, time):
    """Given a former owner whose month is over, and ticks that delete them, When the clock jumps by another month."""
    FormerOwner.update(sold_at=utcnow() - timedelta(days=31)).execute()
    due = [0, 0.5, 1, 1.5, 2, 2.5]
    assert looks(time, *due) == 0
    assert looks(time, MONTH + 3, 3.01, 3.5, 4, 4.5, 5, 5.5, 6) == 0
    assert looks(time, 6.5) == 1
    assert [row.killmail_id for row in Killmail.select()] == [2]
    assert User.select().count() == 2


def test_what_is_due_at_each_look_for_hours_is_deleted(sold, time):
    assert looks(time, *(MONTH + 1 + each / 2 for each in range(6))) == 0
    assert looks(time, MONTH + 4) == 2
    assert Killmail.select().count() == 0


def test_while_this_machines_clock_and_the_databases_differ_nothing_is_deleted(sold, time, monkeypatch):
    monkeypatch.setattr(clock, "skew", lambda: -301.0)
    assert looks(time, *(MONTH + 1 + each / 2 for each in range(12))) == 0
    assert Killmail.select().count() == 2
