"""Call the SSO for a new access token, and what each of its answers leads to. The caller holds the user's lease.

A refresh token the SSO replaced is written down before anything else happens. A process that dies between the SSO's
answer and that one statement loses it, and the pilot has to log in again if the SSO no longer takes the old one; the
protocol offers nothing to close this gap.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Protocol

from peewee import fn

from database import utcnow
from esi import sso_road
from esi.access_token import NOT_THE_TOKENS_FAULT
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoRefused, SsoUnavailable
from esi.sso import Identity, TokenSet
from esi.sso_road import Passage, SsoClosed
from events import SessionsEnded, publish
from models import User
from settings import KILLMAIL_SCOPE
from tokens.cipher import TokenCipher
from tokens.errors import (
    ASKS_TO_WAIT,
    NO_ANSWER,
    NO_SCOPE,
    OUR_FAULT,
    OWNER_CHANGED,
    REFUSED,
    NeedsLogin,
    TokenUnavailable,
)
from tokens.rows import expiry, lives, new_session_epoch, read_again, swap

log = logging.getLogger(__name__)

#: Seconds until it is worth asking again after a fault in one user's token.
FAULT_PAUSE = 60.0
#: Seconds by which the one whose refresh failed comes back after the others: if the fault is its own after all,
#: somebody else finds the SSO well before.
AFTER_THE_OTHERS = 5.0
#: Seconds, when another process has just ended its refresh, one way or the other.
SHORT_PAUSE = 1.0


class Sso(Protocol):
    """What of `esi.sso.SsoClient` a refresh needs."""

    def refresh(self, refresh_token: str) -> TokenSet: ...

    def verify(self, access_token: str) -> Identity: ...

    def revoke(self, refresh_token: str) -> None: ...


def scope_is_missing(user_id: int) -> None:
    """ESI said that the access token does not allow reading killmails: only a login that grants it helps."""
    user = User.get_by_id(user_id)
    scopes = " ".join(scope for scope in user.scopes.split() if scope != KILLMAIL_SCOPE)
    if swap(user, scopes=scopes, next_sync_at=None):
        log.warning("user %s: ESI says that the login does not allow reading killmails", user_id)


def refresh(user: User, refresh_token: str, sso: Sso, cipher: TokenCipher) -> str:
    """Call the SSO, if it may be, and store what it says; the lease is held."""
    try:
        passage = sso_road.enter()
    except SsoClosed as closed:
        raise TokenUnavailable(closed.reason, closed.wait) from closed
    try:
        fresh = sso.refresh(refresh_token)
        if fresh.refresh_token not in (None, refresh_token):
            refresh_token = str(fresh.refresh_token)
            if not swap(user, refresh_token=cipher.encrypt(refresh_token)):
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
    stored = swap(
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
    marked = swap(
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


def _stored_meanwhile(user: User, cipher: TokenCipher) -> str:
    """Our answer came too late: use what a login, or another process, stored before it."""
    current = read_again(user)
    if current.token_version != user.token_version and lives(current, timedelta()):
        return cipher.decrypt(current.access_token)
    raise TokenUnavailable("the tokens were replaced during the refresh", SHORT_PAUSE)
