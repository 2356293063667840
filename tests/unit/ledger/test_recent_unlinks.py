"""What is remembered of a character that was unlinked: for an hour, without its id."""

from __future__ import annotations

from datetime import timedelta

from database import execute, utcnow
from ledger import recent_unlinks
from ledger.recent_unlinks import Remembered
from models import RecentUnlink

KEY = recent_unlinks.key_of(90_000_001, "a secret key")


def test_two_times_are_remembered_and_nothing_that_names_the_character():
    fresh_until, last_sync_at = utcnow() + timedelta(minutes=4), utcnow() - timedelta(minutes=1)
    recent_unlinks.remember(KEY, fresh_until, last_sync_at)
    assert recent_unlinks.recall(KEY) == Remembered(fresh_until, last_sync_at)
    (row,) = execute("SELECT * FROM recent_unlinks").fetchall()
    assert "90000001" not in str(row)
    assert recent_unlinks.recall(recent_unlinks.key_of(90_000_001, "another key")) == Remembered()
    assert recent_unlinks.recall(recent_unlinks.key_of(90_000_002, "a secret key")) == Remembered()


def test_what_was_never_synced_is_remembered_too():
    recent_unlinks.remember(KEY, None, None)
    assert recent_unlinks.recall(KEY) == Remembered(None, None)


def test_after_an_hour_it_is_forgotten_and_then_swept():
    recent_unlinks.remember(KEY, utcnow(), utcnow())
    recent_unlinks.remember("another", utcnow(), utcnow())
    execute("UPDATE recent_unlinks SET forget_at = ? WHERE character_key = ?", (utcnow(), KEY))
    assert recent_unlinks.recall(KEY) == Remembered()
    recent_unlinks.sweep()
    assert [row.character_key for row in RecentUnlink.select()] == ["another"]


def test_a_login_forgets_it():
    recent_unlinks.remember(KEY, None, None)
    recent_unlinks.forget(KEY)
    assert RecentUnlink.select().count() == 0
