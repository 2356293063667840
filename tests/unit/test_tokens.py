"""tokens/, one caller at a time: what is handed out, what is stored, and what each answer of the SSO leads to."""

from __future__ import annotations

import logging
import queue
import traceback
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

import accounts
import database
import events
import tokens
from database import utcnow
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoUnavailable
from esi.sso import Identity
from esi.sso_gate import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from models import FailingOwner, RefreshSlot, User
from settings import KILLMAIL_SCOPE
from tests.unit.esi.limiting import time_passes
from tests.unit.fake_sso import SECRET, expire, log_in, pilot
from tokens import NeedsLogin, TokenCipher, TokenUnavailable, UndecryptableToken, access_token
from tokens.errors import NO_REFRESH_TOKEN, NO_SCOPE, OWNER_CHANGED, REFUSED, REFUSED_AFTER_LOSS

#: Columns that a failed refresh must leave as they were.
WHAT_A_LOGIN_STORED = [
    "access_token",
    "refresh_token",
    "expires_at",
    "scopes",
    "token_version",
    "needs_login_reason",
    "next_sync_at",
    "session_epoch",
]


def stored(user: User) -> dict[str, Any]:
    row = User.get_by_id(user.id)
    return {name: getattr(row, name) for name in WHAT_A_LOGIN_STORED}


class TestCipher:
    def test_round_trip_shows_nothing_in_between(self, cipher):
        ciphertext = cipher.encrypt(SECRET)
        assert SECRET not in ciphertext
        assert cipher.decrypt(ciphertext) == SECRET

    def test_old_keys_decrypt_and_the_first_encrypts(self):
        old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
        rotated = TokenCipher([new, old])
        assert rotated.decrypt(TokenCipher([old]).encrypt(SECRET)) == SECRET
        assert TokenCipher([new]).decrypt(rotated.encrypt(SECRET)) == SECRET

    @pytest.mark.parametrize("ciphertext", ["", "not fernet", SECRET, "ünïcode"])
    def test_what_was_not_encrypted_with_our_keys_names_the_setting_and_shows_nothing(self, cipher, ciphertext):
        with pytest.raises(UndecryptableToken, match="TOKEN_KEYS") as raised:
            cipher.decrypt(ciphertext)
        assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_live_token_costs_one_statement_and_no_call(any_db, sso, cipher):
    user = log_in(sso, cipher)
    statements: list[str] = []
    any_db.query_hooks.append(lambda event: statements.append(event.sql))
    token = access_token(user.id, sso, cipher)
    assert token == cipher.decrypt(user.access_token)
    assert len(statements) == 1
    assert sso.calls == []


@pytest.mark.parametrize(("left", "refreshes"), [(65, 0), (55, 1), (0, 1), (-3600, 1)])
def test_a_token_is_refreshed_in_its_last_minute(any_db, sso, cipher, left, refreshes):
    user = log_in(sso, cipher)
    expire(user, timedelta(seconds=left))
    access_token(user.id, sso, cipher)
    assert len(sso.calls) == refreshes


@pytest.mark.parametrize(("rotates", "most"), [(False, 6), (True, 7)])
def test_a_refresh_stores_what_came_back(any_db, sso, cipher, rotates, most):
    # Given a login whose access token has run out
    user = log_in(sso, cipher)
    before = stored(user)
    expire(user)
    sso.rotates = rotates
    statements: list[str] = []
    any_db.query_hooks.append(lambda event: statements.append(event.sql))
    # When a token is asked for
    token = access_token(user.id, sso, cipher)
    # Then the new one is handed out and stored, within the promised number of statements
    assert len(statements) <= most
    after = User.get_by_id(user.id)
    assert token == cipher.decrypt(after.access_token) != cipher.decrypt(before["access_token"])
    assert after.token_version == before["token_version"] + 1
    assert after.refresh_claimed_until is None
    assert timedelta(minutes=19) < after.expires_at - utcnow() <= timedelta(minutes=20)
    assert (cipher.decrypt(after.refresh_token) == cipher.decrypt(before["refresh_token"])) is not rotates
    # And it goes on working: the stored refresh token is the one the SSO knows
    expire(user)
    assert access_token(user.id, sso, cipher) != token
    assert after.next_sync_at == before["next_sync_at"]


def test_every_refresh_encrypts_anew_with_the_first_key(any_db, sso):
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    user = log_in(sso, TokenCipher([old]))
    expire(user)
    access_token(user.id, sso, TokenCipher([new, old]))
    assert access_token(user.id, sso, TokenCipher([new])).startswith("access-")
    assert TokenCipher([new]).decrypt(User.get_by_id(user.id).refresh_token).startswith("refresh-")


@pytest.mark.parametrize(
    ("failure", "retry_after"),
    [
        (SsoUnavailable("token refresh: no answer"), 0.0),
        (SsoUnavailable("token refresh: the SSO answered 429", retry_after=7.5), 7.5),
        (SsoConfiguration("token refresh: the SSO answered invalid_client"), 0.0),
    ],
)
def test_an_sso_that_cannot_answer_disables_nobody(any_db, sso, cipher, failure: SsoError, retry_after):
    user = log_in(sso, cipher)
    expire(user)
    before = stored(user)
    sso.failure = failure
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    assert (raised.value.retry_after, raised.value.own_fault) == (retry_after, True)
    assert str(failure) in str(raised.value)
    assert stored(user) == before
    # And when it is back, the next call is served: lease and slot were given back
    assert [slot.held_until for slot in RefreshSlot.select()] == [0.0] * 4
    sso.failure = None
    assert access_token(user.id, sso, cipher).startswith("access-")


@pytest.mark.parametrize("failure", [SsoUnavailable("SSO keys: no answer"), SsoInvalidToken("expiry", "expired")])
def test_a_rotated_refresh_token_is_kept_though_its_access_token_cannot_be_verified(any_db, sso, cipher, failure):
    user = log_in(sso, cipher)
    expire(user)
    sso.rotates, sso.verify_failure = True, failure
    with pytest.raises(TokenUnavailable):
        access_token(user.id, sso, cipher)
    sso.verify_failure = None
    time_passes(FIRST_PAUSE_SECONDS + 1)
    assert access_token(user.id, sso, cipher).startswith("access-")
    assert accounts.token_state(User.get_by_id(user.id)) is accounts.TokenState.OK


def test_a_refused_refresh_token_needs_a_login_and_is_not_tried_again(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.refuse(cipher.decrypt(user.refresh_token))
    for _ in range(2):
        with pytest.raises(NeedsLogin) as raised:
            access_token(user.id, sso, cipher)
        assert raised.value.reason == REFUSED
    assert len(sso.calls) == 1
    after = User.get_by_id(user.id)
    assert after.needs_login_reason == REFUSED
    assert after.next_sync_at is None
    assert after.refresh_claimed_until is None


LOST = SsoUnavailable("token refresh: the connection broke before the answer", answer_lost=True)
HUNG = SsoUnavailable("token refresh: no answer within the read timeout", answer_lost=True, timed_out=True)


def test_a_refresh_whose_answer_was_lost_is_asked_for_once_more_at_once(any_db, sso, cipher):
    """Given an SSO that has replaced the token, and still accepts the old one for a moment."""
    user = log_in(sso, cipher)
    expire(user)
    sso.failures[cipher.decrypt(user.refresh_token)] = [LOST, None]
    assert access_token(user.id, sso, cipher) == cipher.decrypt(User.get_by_id(user.id).access_token)
    assert len(sso.calls) == 2
    assert FailingOwner.select().count() == 0, "the pilot had no failure"


def test_a_second_lost_answer_is_a_failure_like_any_other(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.failure = LOST
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.own_fault
    assert len(sso.calls) == 2


def test_a_refresh_that_hung_for_a_whole_timeout_is_not_repeated_at_once(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.failures[cipher.decrypt(user.refresh_token)] = [HUNG, None]
    with pytest.raises(TokenUnavailable) as raised:
        access_token(user.id, sso, cipher)
    assert (raised.value.own_fault, len(sso.calls)) == (True, 1)
    assert access_token(user.id, sso, cipher)


def test_a_failure_with_an_answer_is_not_repeated(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.failure = SsoUnavailable("token refresh: the SSO answered 500; try again later")
    with pytest.raises(TokenUnavailable):
        access_token(user.id, sso, cipher)
    assert len(sso.calls) == 1


def test_a_refusal_directly_after_a_lost_answer_has_a_reason_of_its_own(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    refresh_token = cipher.decrypt(user.refresh_token)
    sso.failures[refresh_token] = [LOST, None]
    sso.refuse(refresh_token)
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.reason == REFUSED_AFTER_LOSS == User.get_by_id(user.id).needs_login_reason


def test_a_sold_character_is_signed_out_at_once(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.sell(cipher.decrypt(user.refresh_token), "owner-two")
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.reason == OWNER_CHANGED
    after = User.get_by_id(user.id)
    assert (after.access_token, after.expires_at, after.next_sync_at) == (None,) * 3
    assert after.refresh_token is not None, "the SSO may be wrong: it is asked once more"
    assert after.session_epoch != user.session_epoch
    assert after.owner_hash == "owner-one"
    assert accounts.token_state(after) is accounts.TokenState.NEEDS_LOGIN


def test_who_sold_a_character_is_told_off_every_socket_at_once(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    sso.sell(cipher.decrypt(user.refresh_token), "owner-two")
    told: queue.Queue[events.Notice] = queue.Queue()
    with closing(events.subscribe(told.put)):
        with pytest.raises(NeedsLogin):
            access_token(user.id, sso, cipher)
        assert told.get(timeout=10) == events.SessionsEnded(user.id)


def test_another_characters_token_is_never_used(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    before = stored(user)
    sso.answer_as(cipher.decrypt(user.refresh_token), pilot(character_id=90_000_666))
    with pytest.raises(TokenUnavailable):
        access_token(user.id, sso, cipher)
    assert stored(user) == before


@pytest.fixture
def crossed(any_db, sso, cipher) -> tuple[User, User]:
    """Two pilots; the first one's next refresh is answered with the second one's tokens, once."""
    first, second = log_in(sso, cipher), log_in(sso, cipher, pilot(character_id=90_000_002))
    first_token, second_token = cipher.decrypt(first.refresh_token), cipher.decrypt(second.refresh_token)
    expire(first)
    sso.crossed[first_token] = second_token
    return first, second


def test_another_characters_refresh_token_is_not_kept(crossed, sso, cipher):
    first, second = crossed
    before = stored(first)
    with pytest.raises(TokenUnavailable) as raised:
        access_token(first.id, sso, cipher)
    assert raised.value.own_fault
    assert stored(first) == before
    # The next refresh is their own again, and to unlink them revokes nothing of the other's
    assert access_token(first.id, sso, cipher)
    own = cipher.decrypt(User.get_by_id(first.id).refresh_token)
    accounts.unlink(first.id, sso, cipher)
    assert sso.revoked == [own]
    expire(second)
    assert access_token(second.id, sso, cipher)


def test_another_characters_refresh_token_leaves_a_login_alone(crossed, sso, cipher):
    first, _ = crossed
    logged_in: list[dict[str, Any]] = []

    def log_in_meanwhile() -> None:
        sso.meanwhile = lambda: None
        logged_in.append(stored(log_in(sso, cipher)))

    sso.meanwhile = log_in_meanwhile
    with pytest.raises(TokenUnavailable):
        access_token(first.id, sso, cipher)
    assert [stored(first)] == logged_in


def test_another_characters_refresh_token_is_not_revoked_for_a_pilot_who_left(crossed, sso, cipher):
    first, second = crossed
    own = cipher.decrypt(first.refresh_token)
    sso.meanwhile = lambda: accounts.unlink(first.id, sso, cipher)
    with pytest.raises(TokenUnavailable):
        access_token(first.id, sso, cipher)
    assert set(sso.revoked) == {own}
    sso.meanwhile = lambda: None
    expire(second)
    assert access_token(second.id, sso, cipher)


def test_a_scope_lost_at_refresh_stops_syncing(any_db, sso, cipher):
    user = log_in(sso, cipher)
    expire(user)
    refresh_token = cipher.decrypt(user.refresh_token)
    sso.answer_as(refresh_token, pilot(scopes="publicData"))
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.reason == NO_SCOPE
    after = User.get_by_id(user.id)
    assert (after.scopes, after.next_sync_at, after.needs_login_reason) == ("publicData", None, None)
    assert accounts.token_state(after) is accounts.TokenState.MISSING_SCOPE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"refresh_token": None}, NO_REFRESH_TOKEN),
        ({"scopes": "publicData"}, NO_SCOPE),
        ({"scopes": f"{KILLMAIL_SCOPE}.other"}, NO_SCOPE),
        ({"needs_login_reason": "because"}, "because"),
    ],
)
def test_who_has_to_log_in_gets_no_token_though_one_is_live(any_db, sso, cipher, changes, reason):
    user = log_in(sso, cipher)
    User.update(**changes).where(User.id == user.id).execute()
    with pytest.raises(NeedsLogin) as raised:
        access_token(user.id, sso, cipher)
    assert raised.value.reason == reason


def test_an_unlinked_user_has_no_token(any_db, sso, cipher):
    with pytest.raises(NeedsLogin):
        access_token(4711, sso, cipher)


@pytest.mark.parametrize("left", [timedelta(), timedelta(minutes=20)])
def test_tokens_of_an_unknown_key_are_kept_as_they_are(any_db, sso, cipher, left):
    user = log_in(sso, cipher)
    expire(user, left)
    before = stored(user)
    with pytest.raises(UndecryptableToken):
        access_token(user.id, sso, TokenCipher([Fernet.generate_key().decode()]))
    assert stored(user) == before
    assert sso.calls == []
    # And with the key back everything is as it was
    assert access_token(user.id, sso, cipher).startswith("access-")


def test_a_forgotten_access_token_is_refreshed(any_db, sso, cipher):
    user = log_in(sso, cipher)
    refused = access_token(user.id, sso, cipher)
    tokens.forget_access_token(user.id)
    assert access_token(user.id, sso, cipher) != refused
    assert len(sso.calls) == 1


def test_the_sso_is_never_called_inside_a_transaction(any_db, sso, cipher):
    user = log_in(sso, cipher)
    inside: list[bool] = []
    sso.meanwhile = lambda: inside.append(any_db.in_transaction())
    expire(user)
    with any_db.atomic(), pytest.raises(RuntimeError, match="transaction"):
        access_token(user.id, sso, cipher)
    access_token(user.id, sso, cipher)
    assert inside == [False]


@pytest.mark.parametrize("says_token", [True, False])
def test_the_earlier_of_both_expiries_counts(sso, says_token):
    issued = sso.login(pilot())
    identity = sso.verify(issued.access_token)
    early = utcnow() + timedelta(seconds=90)
    if says_token:
        identity = Identity(identity.character_id, identity.name, identity.owner_hash, identity.scopes, early)
    else:
        issued = type(issued)(issued.access_token, issued.refresh_token, 90)
    assert abs(tokens.expiry(issued, identity) - early) < timedelta(seconds=5)


def test_no_token_is_seen_in_errors_logs_or_the_database(any_db, sso, cipher, caplog, any_db_url):
    """Every way a refresh can end, and then a look at everything that was written anywhere."""
    caplog.set_level(logging.DEBUG)
    texts: list[str] = []

    def ask(user: User) -> None:
        expire(user)
        time_passes(LONGEST_PAUSE_SECONDS)
        try:
            access_token(user.id, sso, cipher)
        except tokens.TokenError as error:
            texts.extend([repr(error), "".join(traceback.format_exception(error))])

    user = log_in(sso, cipher)
    sso.rotates = True
    ask(user)
    sso.failure = SsoUnavailable("token refresh: no answer")
    ask(user)
    sso.failure = None
    sso.verify_failure = SsoInvalidToken("signature", "the signature is wrong")
    ask(user)
    sso.verify_failure = None
    sso.refuse(cipher.decrypt(User.get_by_id(user.id).refresh_token))
    ask(user)
    sold = log_in(sso, cipher, pilot(90_000_002))
    sso.sell(cipher.decrypt(sold.refresh_token), "owner-two")
    ask(sold)
    accounts.unlink(log_in(sso, cipher, pilot(90_000_003)).id, sso, cipher)
    assert len(texts) == 8
    assert SECRET not in "".join(texts)
    assert SECRET not in caplog.text
    assert SECRET not in _everything_stored(any_db_url)


def _everything_stored(url: str) -> str:
    """All of the database that a thief would find: the file and its log, or every row."""
    if database.is_sqlite():
        database.db.execute_sql("PRAGMA wal_checkpoint(FULL)")
        found = Path(url.removeprefix("sqlite:///")).read_bytes().decode("latin-1")
        assert "owner-one" in found  # else this looks at the wrong file
        return found
    return repr(list(User.select().dicts()))
