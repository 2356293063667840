"""accounts.py on pilots who unlink and log in again: ESI's cache time and the cooldown hold all the same."""

from __future__ import annotations

from datetime import timedelta

import pytest

import accounts
import ledger
from database import utcnow
from ledger import Outcome
from models import RecentUnlink, Trigger, User
from tests.unit.fake_sso import log_in, pilot
from tests.unit.ledger.world import add_page, claimed, end_listing, opened, stored

KEY = "secret-key-of-this-test" * 2
COOLDOWN = timedelta(minutes=15)


def synced_and_unlinked(sso, cipher, minutes_ago: float = 1):
    """A pilot whose list was read so long ago, and who has left."""
    user = log_in(sso, cipher, secret_key=KEY)
    last, fresh_until = utcnow() - timedelta(minutes=minutes_ago), utcnow() + timedelta(minutes=5 - minutes_ago)
    User.update(last_killmail_sync_at=last, list_fresh_until=fresh_until, last_full_sync_at=last).execute()
    assert accounts.unlink(user.id, sso, cipher, secret_key=KEY)
    return last, fresh_until


def test_a_login_within_the_hour_starts_with_esis_cache_time_and_the_cooldown(any_db, sso, cipher):
    last, fresh_until = synced_and_unlinked(sso, cipher)
    back = log_in(sso, cipher, secret_key=KEY)
    assert (back.last_killmail_sync_at, back.list_fresh_until) == (last, fresh_until)
    assert back.next_sync_at == last + COOLDOWN
    # The list is read whole then, because nothing is here any more
    assert (back.last_full_sync_at, back.last_sync_complete) == (None, False)
    asked = ledger.open_sync(back.id, Trigger.LOGIN, cooldown=COOLDOWN)
    assert (asked.outcome, asked.cooldown_ends_at) == (Outcome.COOLDOWN, last + COOLDOWN)
    assert ledger.open_due_syncs(10) == []


def test_going_in_circles_does_not_help(any_db, sso, cipher):
    last, fresh_until = synced_and_unlinked(sso, cipher)
    for _ in range(3):
        back = log_in(sso, cipher, secret_key=KEY)
        assert (back.last_killmail_sync_at, back.list_fresh_until) == (last, fresh_until)
        accounts.unlink(back.id, sso, cipher, secret_key=KEY)


def unlinked_while(sso, cipher, state: str):
    """A pilot who leaves before the sync of their login has ended; returns when."""
    user = log_in(sso, cipher, secret_key=KEY)
    sync = opened(user, Trigger.LOGIN)
    if state != "queued":
        claimed_sync = claimed(sync)
    if state == "fetching":
        end_listing(add_page(claimed_sync, [1, 2, 3]).sync)
        stored(3, 2)
    if state == "failed":
        listing = add_page(claimed_sync, [1, 2, 3], pages=2).sync
        assert ledger.fail_sync(listing.sync_id, "ESI answered 500")
    left_at = utcnow()
    assert accounts.unlink(user.id, sso, cipher, secret_key=KEY)
    return left_at


def test_leaving_before_the_sync_ends_begins_the_cooldown(any_db, sso, cipher):
    """Else all details would be fetched again at each login, at the logins' priority."""
    for _ in range(3):
        left_at = unlinked_while(sso, cipher, "fetching")
        back = log_in(sso, cipher, secret_key=KEY)
        assert left_at <= back.last_killmail_sync_at <= utcnow()
        assert ledger.open_sync(back.id, Trigger.LOGIN, cooldown=COOLDOWN).outcome is Outcome.COOLDOWN
        assert ledger.open_due_syncs(10) == []
        # The cooldown is over, and the pilot does it again
        accounts.unlink(back.id, sso, cipher, secret_key=KEY)
        RecentUnlink.delete().execute()


def test_leaving_after_a_list_that_could_not_be_read_to_its_end_begins_the_cooldown(any_db, sso, cipher):
    unlinked_while(sso, cipher, "failed")
    back = log_in(sso, cipher, secret_key=KEY)
    assert ledger.open_sync(back.id, Trigger.LOGIN, cooldown=COOLDOWN).outcome is Outcome.COOLDOWN


@pytest.mark.parametrize("state", ["queued", "claimed"])
def test_a_sync_that_has_asked_esi_for_nothing_begins_no_cooldown(any_db, sso, cipher, state):
    unlinked_while(sso, cipher, state)
    back = log_in(sso, cipher, secret_key=KEY)
    assert back.last_killmail_sync_at is None
    assert ledger.open_sync(back.id, Trigger.LOGIN, cooldown=COOLDOWN).outcome is Outcome.CREATED


def test_another_character_and_a_later_login_start_afresh(any_db, sso, cipher):
    synced_and_unlinked(sso, cipher)
    other = log_in(sso, cipher, pilot(90_000_002), secret_key=KEY)
    assert (other.last_killmail_sync_at, other.list_fresh_until) == (None, None)
    RecentUnlink.update(forget_at=utcnow()).execute()
    back = log_in(sso, cipher, secret_key=KEY)
    assert (back.last_killmail_sync_at, back.list_fresh_until) == (None, None)
    assert back.next_sync_at <= utcnow()


def test_nothing_is_remembered_of_a_pilot_who_is_back(any_db, sso, cipher):
    synced_and_unlinked(sso, cipher)
    assert RecentUnlink.select().count() == 1
    log_in(sso, cipher, secret_key=KEY)
    assert RecentUnlink.select().count() == 0
