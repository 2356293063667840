"""An access token with at least a minute to live, for a user; refresh tokens encrypted at rest.

The invariants: of all threads and processes that need a token at once, one calls the SSO (a lease on the user's row);
what comes back is stored only if nothing newer was stored meanwhile (`token_version`), so that a login always wins;
only the SSO's own refusal, or a sold character, makes a user log in again; and no text, log or column holds a token in
clear. The SSO is never called inside a transaction, nor while it is known to be away (`esi/sso_road.py`).

A refresh token the SSO replaced is written down before anything else happens. A process that dies between the SSO's
answer and that one statement loses it, and the pilot has to log in again if the SSO no longer takes the old one; the
protocol offers nothing to close this gap. Who may be synced, and what a login stores, is left to `accounts.py`; refresh
tokens: https://developers.eveonline.com/docs/services/sso/.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from peewee import fn

from database import db, utcnow
from esi import sso_road
from esi.access_token import NOT_THE_TOKENS_FAULT
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoRefused, SsoUnavailable
from esi.sso import Identity, TokenSet
from esi.sso_road import Passage, SsoClosed
from events import SessionsEnded, publish
from models import User
from settings import KILLMAIL_SCOPE

log = logging.getLogger(__name__)

#: What a token handed out has left at least. A list of 50 pages is read in less.
LEAST_LIFE = timedelta(seconds=60)
#: How long one process may take to refresh before another may try. The SSO answers in well under a second.
LEASE = timedelta(seconds=30)
#: Seconds to wait for another process's refresh, and between two looks at its result.
WAIT_SECONDS = 5.0
POLL_SECONDS = 0.1
#: Seconds until it is worth asking again after a fault in one user's token.
FAULT_PAUSE = 60.0
#: Seconds by which the one whose refresh failed comes back after the others: if the fault is its own after all,
#: somebody else finds the SSO well before.
AFTER_THE_OTHERS = 5.0
#: Seconds, when another process has just ended its refresh, one way or the other.
SHORT_PAUSE = 1.0

NO_ANSWER = "EVE's login service does not answer"
ASKS_TO_WAIT = "EVE's login service asks us to wait"
OUR_FAULT = "EVE's login service answers, but this server cannot use its answer"
REFUSED = "EVE SSO no longer accepts this login. Log in again to go on."
OWNER_CHANGED = "This character belongs to another account now. Its owner has to log in."
NO_REFRESH_TOKEN = "EVE SSO granted no lasting access. Log in again to go on."  # noqa: S105 (a sentence, not a secret)
NO_SCOPE = f"The login does not allow reading killmails ({KILLMAIL_SCOPE}). Log in again and allow it."
NOT_LINKED = "This character is not linked."


class TokenError(Exception):
    """There is no access token to be had now."""


class NeedsLogin(TokenError):
    """Only a login by the pilot helps. `reason`: a sentence fit for the pilot."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenUnavailable(TokenError):
    """No token now: try again in `retry_after` seconds. The text: why, for the pilot.

    `own_fault`: what the SSO answers for this user cannot be used, while others' may be; not to be tried for ever.
    """

    def __init__(self, reason: str, retry_after: float, *, own_fault: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.own_fault = own_fault


class UndecryptableToken(TokenError):
    """A stored token was encrypted with a key that is not in TOKEN_KEYS. It is kept: put the key back."""

    def __init__(self) -> None:
        super().__init__("a stored token cannot be decrypted: TOKEN_KEYS lacks the key that encrypted it; add it again")


class Sso(Protocol):
    """What of `esi.sso.SsoClient` a refresh needs."""

    def refresh(self, refresh_token: str) -> TokenSet: ...

    def verify(self, access_token: str) -> Identity: ...

    def revoke(self, refresh_token: str) -> None: ...


class TokenCipher:
    """Fernet with rotation: the first of TOKEN_KEYS encrypts, all decrypt. Every refresh encrypts anew."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys`: url-safe base64 of 32 bytes each, at least one; raises ValueError."""
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, token: str) -> str:
        return self._fernet.encrypt(token.encode()).decode()

    def decrypt(self, ciphertext: str) -> str:
        """Raises UndecryptableToken."""
        try:
            return self._fernet.decrypt(ciphertext.encode()).decode()
        except InvalidToken:
            raise UndecryptableToken from None


def access_token(
    user_id: int, sso: Sso, cipher: TokenCipher, *, wait_seconds: float = WAIT_SECONDS, row: User | None = None
) -> str:
    """A token for ESI with at least a minute left; refreshed if need be, by one caller at a time.

    One SELECT when the stored token will do, and none with `row`, the user's whole row as it was read just now.
    Raises NeedsLogin; TokenUnavailable when the SSO is away or whoever is refreshing has not finished within
    `wait_seconds`; UndecryptableToken. Not to be called inside a transaction.
    A token whose whole life is shorter than a minute is handed out when it is fresh.
    """
    if db.in_transaction():
        raise RuntimeError("access_token() may call the SSO: call it outside any transaction")
    user = _read(user_id) if row is None else _checked(row)
    if _lives(user, LEAST_LIFE):
        return cipher.decrypt(user.access_token)
    refresh_token = cipher.decrypt(user.refresh_token)
    lease = _claim(user)
    if lease is None:
        return _await_other(user, cipher, wait_seconds)
    try:
        return _refresh(user, refresh_token, sso, cipher)
    except BaseException:
        _release(user, lease)
        raise


def forget_access_token(user_id: int) -> None:
    """ESI answered 401 to the access token: the next `access_token` refreshes, whatever its expiry says.

    A refresh under way is not disturbed; one that ended since that answer is repeated once, needlessly and harmlessly.
    """
    User.update(access_token=None, expires_at=None).where(User.id == user_id).execute()


def scope_is_missing(user_id: int) -> None:
    """ESI said that the access token does not allow reading killmails: only a login that grants it helps."""
    user = User.get_by_id(user_id)
    scopes = " ".join(scope for scope in user.scopes.split() if scope != KILLMAIL_SCOPE)
    if _swap(user, scopes=scopes, next_sync_at=None):
        log.warning("user %s: ESI says that the login does not allow reading killmails", user_id)


def login_needed(user: User) -> str | None:
    """Why only a login helps this user, as a sentence for the pilot; None when tokens can be had."""
    if user.needs_login_reason is not None:
        return str(user.needs_login_reason)
    if not has_scope(user):
        return NO_SCOPE
    return NO_REFRESH_TOKEN if user.refresh_token is None else None


def has_scope(user: User) -> bool:
    """Whether the last login allowed reading killmails."""
    return KILLMAIL_SCOPE in user.scopes.split()


def expiry(tokens: TokenSet, identity: Identity) -> datetime:
    """When an access token just received ends: the earlier of what the SSO said and what the token itself says."""
    return min(identity.expires_at, utcnow() + timedelta(seconds=tokens.expires_in))


def new_session_epoch() -> int:
    """31 random bits. Not a counter: the id of a deleted user may be given out again, and its old sessions with it."""
    return 1 + secrets.randbelow(2**31 - 1)


def first_token_version() -> int:
    """30 random bits to count on from, so that a reused id never looks like the row that a late refresh has read."""
    return secrets.randbelow(2**30)


def _read(user_id: int) -> User:
    user = (
        User.select(
            User.id,
            User.character_id,
            User.owner_hash,
            User.scopes,
            User.access_token,
            User.refresh_token,
            User.expires_at,
            User.token_version,
            User.refresh_claimed_until,
            User.needs_login_reason,
        )
        .where(User.id == user_id)
        .get_or_none()
    )
    if user is None:
        raise NeedsLogin(NOT_LINKED)
    return _checked(user)


def _checked(user: User) -> User:
    if reason := login_needed(user):
        raise NeedsLogin(reason)
    return user


def _read_again(user: User) -> User:
    """The row as it is now, if it is still this pilot's: SQLite gives the id of a deleted user to the next one."""
    current = _read(user.id)
    if (current.character_id, current.owner_hash) != (user.character_id, user.owner_hash):
        raise NeedsLogin(NOT_LINKED)
    return current


def _lives(user: User, least: timedelta) -> bool:
    return user.access_token is not None and user.expires_at is not None and user.expires_at >= utcnow() + least


def _claim(user: User) -> datetime | None:
    """Take the refresh lease, unless another holds it or has refreshed since the row was read: None."""
    now = utcnow()
    free = User.refresh_claimed_until.is_null() | (User.refresh_claimed_until <= now)
    free |= User.refresh_claimed_until > now + 2 * LEASE  # no lease of ours: the clock was set back, or it was edited
    lease = now + LEASE
    claimed = (
        User.update(refresh_claimed_until=lease)
        .where(User.id == user.id, User.token_version == user.token_version, free)
        .execute()
    )
    return lease if claimed else None


def _release(user: User, lease: datetime) -> None:
    User.update(refresh_claimed_until=None).where(User.id == user.id, User.refresh_claimed_until == lease).execute()


def _swap(user: User, **changes: Any) -> bool:
    """Write only if the tokens are still those that were read; False if a login or a refresh came first."""
    unchanged = (User.id == user.id) & (User.token_version == user.token_version)
    return bool(User.update(**changes).where(unchanged).execute())


def _refresh(user: User, refresh_token: str, sso: Sso, cipher: TokenCipher) -> str:
    """Call the SSO, if it may be, and store what it says; the lease is held."""
    try:
        passage = sso_road.enter()
    except SsoClosed as closed:
        raise TokenUnavailable(closed.reason, closed.wait) from closed
    try:
        fresh = sso.refresh(refresh_token)
        if fresh.refresh_token not in (None, refresh_token):
            refresh_token = str(fresh.refresh_token)
            if not _swap(user, refresh_token=cipher.encrypt(refresh_token)):
                _revoke_if_unlinked(user, refresh_token, sso)
        identity = sso.verify(fresh.access_token)
    except SsoRefused:
        sso_road.answered(passage)
        return _refused(user, cipher)
    except (SsoUnavailable, SsoConfiguration, SsoInvalidToken) as error:
        raise _unavailable(user, passage, error) from error
    sso_road.answered(passage)
    if identity.character_id != user.character_id:
        log.error("user %s: the SSO answered a refresh with another character's token; not used", user.id)
        raise TokenUnavailable("the SSO answered with another character's token", FAULT_PAUSE, own_fault=True)
    if identity.owner_hash != user.owner_hash:
        return _sold(user, cipher)
    return _store(user, fresh, refresh_token, identity, cipher)


def _revoke_if_unlinked(user: User, refresh_token: str, sso: Sso) -> None:
    """The pilot left during the refresh, and what they had revoked was the token before this one."""
    if User.select().where(User.id == user.id, User.character_id == user.character_id).exists():
        return
    try:
        sso.revoke(refresh_token)
    except SsoError as error:
        log.warning("user %s: unlinked during a refresh whose token could not be revoked: %s", user.id, error)


def _unavailable(user: User, passage: Passage, error: SsoError) -> TokenUnavailable:
    """What a refresh without an outcome is to its caller, and to all others: what would fail for each is not tried."""
    if isinstance(error, SsoUnavailable):
        log.info("user %s: cannot refresh the access token: %s", user.id, error)
        reason = ASKS_TO_WAIT if error.retry_after else NO_ANSWER
    else:
        log.error("user %s: cannot refresh the access token: %s", user.id, error)
        reason = f"{OUR_FAULT}: {error}"
    if isinstance(error, SsoInvalidToken) and error.check not in NOT_THE_TOKENS_FAULT:
        sso_road.answered(passage)
        return TokenUnavailable(reason, FAULT_PAUSE, own_fault=True)
    closed = sso_road.failed(passage, reason, error.retry_after)
    return TokenUnavailable(reason, closed.wait + AFTER_THE_OTHERS)


def _store(user: User, fresh: TokenSet, refresh_token: str, identity: Identity, cipher: TokenCipher) -> str:
    usable = KILLMAIL_SCOPE in identity.scopes
    stored = _swap(
        user,
        access_token=cipher.encrypt(fresh.access_token),
        refresh_token=cipher.encrypt(refresh_token),
        expires_at=expiry(fresh, identity),
        scopes=" ".join(sorted(identity.scopes)),
        token_version=User.token_version + 1,
        refresh_claimed_until=None,
        # A process that overran its lease may find itself refused by whoever came after it; its answer is the truth.
        needs_login_reason=None,
        next_sync_at=fn.COALESCE(User.next_sync_at, utcnow()) if usable else None,
    )
    if not stored:
        return _stored_meanwhile(user, cipher)
    if not usable:
        raise NeedsLogin(NO_SCOPE)
    return fresh.access_token


def _refused(user: User, cipher: TokenCipher) -> str:
    """The SSO refused the refresh token: the pilot has to log in, unless it was replaced meanwhile."""
    # Ciphertexts never repeat: this one is gone as soon as a login, or a refresh that overran its lease, replaced it.
    marked = (
        User.update(needs_login_reason=REFUSED, next_sync_at=None, refresh_claimed_until=None)
        .where(User.id == user.id, User.refresh_token == user.refresh_token)
        .execute()
    )
    if not marked:
        return _stored_meanwhile(user, cipher)
    log.warning("user %s: the SSO refused the refresh token; the pilot has to log in again", user.id)
    raise NeedsLogin(REFUSED)


def _sold(user: User, cipher: TokenCipher) -> str:
    """The character has another owner: stop syncing it, and sign the former owner out."""
    marked = _swap(
        user,
        access_token=None,
        refresh_token=None,
        expires_at=None,
        token_version=User.token_version + 1,
        refresh_claimed_until=None,
        needs_login_reason=OWNER_CHANGED,
        next_sync_at=None,
        session_epoch=new_session_epoch(),
    )
    if not marked:
        return _stored_meanwhile(user, cipher)
    publish(SessionsEnded(user.id))
    log.warning("user %s: the character changed its owner; signed out and no longer synced", user.id)
    raise NeedsLogin(OWNER_CHANGED)


def _await_other(user: User, cipher: TokenCipher, wait_seconds: float) -> str:
    """Another caller refreshes: wait briefly for what it stores."""
    deadline = time.monotonic() + wait_seconds
    while True:
        current = _read_again(user)
        if current.token_version != user.token_version and _lives(current, timedelta()):
            return cipher.decrypt(current.access_token)
        if current.refresh_claimed_until is None:
            if closed := sso_road.closure():
                raise TokenUnavailable(closed.reason, closed.wait)
            raise TokenUnavailable("another process could not refresh the access token", SHORT_PAUSE)
        if time.monotonic() >= deadline:
            left = (current.refresh_claimed_until - utcnow()).total_seconds()
            raise TokenUnavailable("another process is refreshing the access token", max(left, SHORT_PAUSE))
        time.sleep(POLL_SECONDS)


def _stored_meanwhile(user: User, cipher: TokenCipher) -> str:
    """Our answer came too late: use what a login, or another process, stored before it."""
    current = _read_again(user)
    if current.token_version != user.token_version and _lives(current, timedelta()):
        return cipher.decrypt(current.access_token)
    raise TokenUnavailable("the tokens were replaced during the refresh", SHORT_PAUSE)
