"""accounts.py: what a login stores, who may be synced, and how one leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from peewee import IntegrityError

import accounts
from accounts import TOKEN_STATE_SQL, TokenState, eligible, token_state
from database import db, execute, utcnow
from esi.errors import SsoConfiguration, SsoError, SsoUnavailable
from models import User, UserKillmail
from settings import KILLMAIL_SCOPE
from tests.unit.fake_sso import SECRET, InterruptedCipher, expire, log_in, pilot
from tokens import NeedsLogin, TokenCipher, access_token
from tokens.errors import REFUSED

NEW_YEAR = datetime(2027, 1, 1)


def test_a_first_login_makes_a_user_who_is_due_at_once(any_db, sso, cipher):
    before = utcnow()
    user = log_in(sso, cipher, pilot(90_000_007))
    assert (user.character_id, user.character_name, user.owner_hash) == (90_000_007, "Pilot 90000007", "owner-one")
    assert before <= user.next_sync_at <= utcnow()
    assert user.session_epoch > 0
    assert SECRET not in user.access_token + user.refresh_token
    assert cipher.decrypt(user.access_token).startswith("access-")
    assert token_state(user) is TokenState.OK
    # And the columns a worker relies on are what the models' defaults say
    assert (user.last_sync_complete, user.full_requested, user.consecutive_failures) == (False, False, 0)


def test_a_later_login_keeps_the_user_and_replaces_the_tokens(any_db, sso, cipher):
    first = log_in(sso, cipher)
    User.update(
        needs_login_reason=REFUSED, consecutive_failures=5, refresh_claimed_until=utcnow(), list_etag="kept"
    ).execute()
    second = log_in(sso, cipher)
    assert (second.id, second.session_epoch, second.list_etag) == (first.id, first.session_epoch, "kept")
    assert second.token_version == first.token_version + 1
    assert cipher.decrypt(second.access_token) != cipher.decrypt(first.access_token)
    assert (second.needs_login_reason, second.consecutive_failures, second.refresh_claimed_until) == (None, 0, None)
    assert eligible(second)


@pytest.mark.parametrize(
    ("next_sync_at", "last_sync_minutes_ago", "due_in_minutes"),
    [
        (NEW_YEAR, 3, None),  # what is due stays due
        (None, None, 0),
        (None, 3, 12),  # becoming eligible does not skip the cool-down
        (None, 600, 0),
    ],
)
def test_when_a_login_is_due(any_db, sso, cipher, next_sync_at, last_sync_minutes_ago, due_in_minutes):
    log_in(sso, cipher)
    last = None if last_sync_minutes_ago is None else utcnow() - timedelta(minutes=last_sync_minutes_ago)
    User.update(next_sync_at=next_sync_at, last_killmail_sync_at=last).execute()
    user = log_in(sso, cipher, cooldown_minutes=15)
    if due_in_minutes is None:
        assert user.next_sync_at == next_sync_at
    else:
        assert abs(user.next_sync_at - utcnow() - timedelta(minutes=due_in_minutes)) < timedelta(minutes=1)


@pytest.mark.parametrize("scopes", ["", "publicData", KILLMAIL_SCOPE.removesuffix(".v1")])
def test_a_login_without_the_scope_is_stored_and_never_due(any_db, sso, cipher, scopes):
    user = log_in(sso, cipher, pilot(scopes=scopes))
    assert token_state(user) is TokenState.MISSING_SCOPE
    assert user.next_sync_at is None
    assert (user.refresh_token is None) == (scopes == "")
    # And a login with it makes the user due, one without it ends that
    assert log_in(sso, cipher).next_sync_at is not None
    again = log_in(sso, cipher, pilot(scopes=scopes))
    assert (again.next_sync_at, token_state(again)) == (None, TokenState.MISSING_SCOPE)


def test_an_owner_who_logs_in_between_two_statements_of_another_is_not_overwritten(any_db, sso, cipher, token_key):
    """Both may be right, one after the other: whoever comes second starts clean, as ever."""

    def other_owner_logs_in() -> None:
        other = log_in(sso, cipher, pilot(owner_hash="owner-two"))
        UserKillmail.create(user=other.id, killmail_id=1)

    user = log_in(sso, InterruptedCipher(token_key, other_owner_logs_in))
    assert [left.owner_hash for left in User.select()] == [user.owner_hash] == ["owner-one"]
    assert UserKillmail.select().count() == 0


def test_another_character_of_the_same_owner_is_another_user(any_db, sso, cipher):
    assert log_in(sso, cipher, pilot(90_000_001)).id != log_in(sso, cipher, pilot(90_000_002)).id


def test_logins_at_once_make_one_user_and_none_is_lost(any_db, sso, cipher):
    def enter(_: int) -> int:
        with db.connection_context():
            return int(log_in(sso, cipher).id)

    with ThreadPoolExecutor(4) as pool:
        # Given a character whose first logins come all at once
        assert len(set(pool.map(enter, range(4)))) == 1
        reached = User.get().token_version
        # When more come at once, each is written over the one before
        assert len(set(pool.map(enter, range(4)))) == 1
    assert User.get().token_version == reached + 4
    assert User.select().count() == 1


STATES = [
    ({}, TokenState.OK),
    ({"access_token": None, "expires_at": None}, TokenState.OK),
    ({"expires_at": datetime(2020, 1, 1)}, TokenState.OK),
    ({"needs_login_reason": REFUSED}, TokenState.NEEDS_LOGIN),
    ({"needs_login_reason": REFUSED, "scopes": ""}, TokenState.NEEDS_LOGIN),
    ({"refresh_token": None}, TokenState.NEEDS_LOGIN),
    ({"refresh_token": None, "scopes": ""}, TokenState.MISSING_SCOPE),
    ({"scopes": f"publicData {KILLMAIL_SCOPE}"}, TokenState.OK),
    ({"scopes": f"x{KILLMAIL_SCOPE}"}, TokenState.MISSING_SCOPE),
]


@pytest.mark.parametrize(("changes", "state"), STATES)
def test_token_state_and_eligibility(changes: dict[str, Any], state: TokenState):
    user = User(scopes=KILLMAIL_SCOPE, refresh_token="ciphertext", access_token="ciphertext")
    for name, value in changes.items():
        setattr(user, name, value)
    assert token_state(user) is state
    assert eligible(user) is (state is TokenState.OK)


@pytest.mark.parametrize(("changes", "state"), STATES)
def test_a_statement_that_counts_says_the_same(any_db, sso, cipher, changes: dict[str, Any], state: TokenState):
    user = log_in(sso, cipher)
    due = user.next_sync_at if state is TokenState.OK else None
    User.update(**changes, next_sync_at=due).execute()
    assert execute(f"SELECT {TOKEN_STATE_SQL} FROM users").fetchall() == [(state.value,)]
    assert token_state(User.get_by_id(user.id)) is state


def test_signing_out_everywhere_changes_only_that_users_epoch(any_db, sso, cipher):
    user, other = log_in(sso, cipher, pilot(90_000_001)), log_in(sso, cipher, pilot(90_000_002))
    accounts.sign_out_everywhere(user.id)
    assert User.get_by_id(user.id).session_epoch != user.session_epoch
    assert User.get_by_id(other.id).session_epoch == other.session_epoch
    assert access_token(user.id, sso, cipher)


def test_unlinking_revokes_and_forgets(any_db, sso, cipher):
    user, other = log_in(sso, cipher, pilot(90_000_001)), log_in(sso, cipher, pilot(90_000_002))
    refresh_token = cipher.decrypt(user.refresh_token)
    assert accounts.unlink(user.id, sso, cipher)
    assert sso.revoked == [refresh_token]
    assert [left.id for left in User.select()] == [other.id]
    # And doing it again is harmless
    accounts.unlink(user.id, sso, cipher)
    assert User.select().count() == 1


def test_a_token_is_revoked_only_once_the_deletion_is_done(any_db, sso, cipher):
    user = log_in(sso, cipher)
    left_at_revocation: list[int] = []
    revoke = sso.revoke

    def look_and_revoke(refresh_token: str) -> None:
        left_at_revocation.append(User.select().count())
        revoke(refresh_token)

    sso.revoke = look_and_revoke
    assert accounts.unlink(user.id, sso, cipher)
    assert left_at_revocation == [0]


def test_a_deletion_that_fails_revokes_nothing(sqlite_db, sso, cipher):
    """The pilot is still here, still synced, and may try again."""
    user = log_in(sso, cipher)
    execute("CREATE TRIGGER disk_full BEFORE DELETE ON users BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(IntegrityError, match="disk full"):
        accounts.unlink(user.id, sso, cipher)
    assert (sso.revoked, User.get().id) == ([], user.id)
    assert access_token(user.id, sso, cipher)


def test_a_token_that_comes_back_after_the_pilot_left_is_revoked(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.rotates = True
    sso.meanwhile = lambda: accounts.unlink(user.id, sso, cipher)
    with pytest.raises(NeedsLogin):
        access_token(user.id, sso, cipher)
    assert (sso.alive(), User.select().count()) == ([], 0)


@pytest.mark.parametrize(
    "failure", [SsoUnavailable("token revocation: no answer"), SsoConfiguration("token revocation: invalid_client")]
)
def test_an_sso_outage_keeps_nobody_from_leaving(any_db, sso, cipher, caplog, failure: SsoError):
    user = log_in(sso, cipher)
    sso.failure = failure
    assert not accounts.unlink(user.id, sso, cipher), "and nobody claims that the access is revoked"
    assert User.select().count() == 0
    assert f"user {user.id}" in caplog.text and str(failure) in caplog.text


def test_lost_keys_keep_nobody_from_leaving(any_db, sso, cipher, caplog):
    user = log_in(sso, cipher)
    assert not accounts.unlink(user.id, sso, TokenCipher([Fernet.generate_key().decode()]))
    assert User.select().count() == 0
    assert sso.revoked == []
    assert "TOKEN_KEYS" in caplog.text


def test_who_has_no_refresh_token_leaves_without_a_call(any_db, sso, cipher):
    user = log_in(sso, cipher, pilot(scopes=""))
    accounts.unlink(user.id, sso, cipher)
    assert User.select().count() == 0
    assert sso.revoked == []


def test_an_id_that_was_given_out_again_belongs_to_somebody_else(sqlite_db, sso, cipher):
    """Two windows unlink, and a new pilot logs in between: SQLite gives them the id of the one who left."""
    leaver = log_in(sso, cipher, pilot(90_000_001))
    revoke = sso.revoke

    def meanwhile(refresh_token: str) -> None:
        sso.revoke = revoke
        revoke(refresh_token)
        accounts.unlink(leaver.id, sso, cipher)
        newcomer = log_in(sso, cipher, pilot(90_000_002))
        assert newcomer.id == leaver.id, "the premise"

    sso.revoke = meanwhile
    accounts.unlink(leaver.id, sso, cipher)

    (left,) = User.select()
    assert left.character_id == 90_000_002
    assert cipher.decrypt(left.refresh_token) in sso.alive()
