"""Call the SSO for a new access token, and what each of its answers leads to. The caller holds the user's lease.

The invariants: the SSO is not asked while its gate is closed, nor without a slot (`esi/sso_gate.py`); a refresh that
fails counts against its own user until several users have failed in a row, and witnesses as well
(`tokens/witnesses.py`); a refresh token the SSO replaced is written down before anything else happens; and one that
came with another character's access token is neither kept nor revoked: it is that pilot's.

A replaced token can still be lost: when the process dies between the SSO's answer and that one statement, or when the
answer is lost on its way. A lost answer is asked for once more at once, while the SSO may still accept the token it
replaced; after a whole timeout with the sync's next try, seconds later, because a refresh that hangs holds one of few
slots. If it does not, or the second answer is lost as well, the pilot has to log in again. The protocol offers
nothing to close this gap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import uniform
from typing import Any, Protocol

from peewee import fn

from database import utcnow
from esi import owner_changes, sso_gate, verdict_rate
from esi.errors import SsoConfiguration, SsoError, SsoInvalidToken, SsoRefused, SsoUnavailable
from esi.sso import Identity, TokenSet
from esi.sso_gate import AFTER_THE_OTHERS, Blame, Permit, SsoBusy, SsoClosed
from events import SessionsEnded, publish
from models import User
from settings import KILLMAIL_SCOPE
from tokens.cipher import TokenCipher
from tokens.errors import (
    ASKS_TO_WAIT,
    BUSY,
    INCIDENT,
    NO_ANSWER,
    NO_SCOPE,
    NO_TOKEN,
    OUR_FAULT,
    OWNER_CHANGED,
    REFUSED,
    REFUSED_AFTER_LOSS,
    NeedsLogin,
    TokenUnavailable,
)
from tokens.rechecks import NO_CHECK, is_last_check, next_check, what_follows
from tokens.rows import expiry, is_rechecked, lives, new_session_epoch, read_again, swap

log = logging.getLogger(__name__)

#: Seconds, when another process has just ended its refresh, one way or the other.
SHORT_PAUSE = 1.0
#: Seconds to stay away, at least and at most, when no slot was free. A refresh takes well under a second.
BUSY_PAUSE = (2.0, 4.0)


#: Whether the SSO serves another pilot than the permit's.
Witnesses = Callable[[Permit], bool]


class Sso(Protocol):
    """What of `esi.sso.SsoClient` a refresh needs."""

    def refresh(self, refresh_token: str) -> TokenSet: ...

    def verify(self, access_token: str) -> Identity: ...

    def revoke(self, refresh_token: str) -> None: ...


def refresh(
    user: User, refresh_token: str, sso: Sso, cipher: TokenCipher, *, interactive: bool, witnesses: Witnesses
) -> str:
    """Call the SSO, if it may be called, and store what it says; the lease is held."""
    permit = _enter(user, interactive=interactive)
    return refresh_with(permit, user, refresh_token, sso, cipher, witnesses=witnesses)


def refresh_with(
    permit: Permit, user: User, refresh_token: str, sso: Sso, cipher: TokenCipher, *, witnesses: Witnesses
) -> str:
    """The same with a permit that was given already."""
    try:
        issued = _call(user, refresh_token, sso, cipher, permit)
        identity = _identity(user, issued, sso)
    except SsoRefused as refusal:
        return _refused(user, cipher, permit, REFUSED_AFTER_LOSS if refusal.answer_lost else REFUSED)
    except (SsoUnavailable, SsoConfiguration, SsoInvalidToken) as error:
        raise _unavailable(user, permit, error, witnesses) from error
    if identity.owner_hash != user.owner_hash:
        owner_changes.changed(user.character_id)
        return _owner_changed(user, cipher, permit)
    if KILLMAIL_SCOPE in identity.scopes:
        sso_gate.answered(permit)
        if permit.slot.failures_noted:
            verdict_rate.served()
    else:
        _believe(user, permit, "their access tokens lack the scope")
    return _store(user, issued, identity, cipher, permit)


def _enter(user: User, *, interactive: bool) -> Permit:
    try:
        return sso_gate.enter(user.id, interactive=interactive, fails=user.refresh_fails_since is not None)
    except SsoClosed as closed:
        raise TokenUnavailable(closed.reason, closed.wait) from closed
    except SsoBusy as busy:
        raise TokenUnavailable(BUSY, uniform(*BUSY_PAUSE)) from busy  # noqa: S311 - not a secret


@dataclass(frozen=True, slots=True)
class _Issued:
    """What the SSO handed out. `refresh_token`: the one to use from now on, `encrypted` as it stands in the user's row.

    `written`: False if it replaced the old one and came too late to be written down: a login or an unlink was faster.
    """

    tokens: TokenSet
    refresh_token: str
    encrypted: str
    written: bool = True


def _call(user: User, refresh_token: str, sso: Sso, cipher: TokenCipher, permit: Permit) -> _Issued:
    """Ask the SSO, and write down a refresh token it replaced. The slot is free after it."""
    try:
        try:
            fresh = sso.refresh(refresh_token)
        except SsoUnavailable as lost:
            again = sso_gate.renew(permit) if lost.answer_lost and not lost.timed_out else None
            if again is None:
                raise
            permit = again
            log.info("user %s: the answer to a token refresh was lost (%s); asking once more", user.id, lost)
            fresh = _ask_again(refresh_token, sso)
        if fresh.refresh_token in (None, refresh_token):
            return _Issued(fresh, refresh_token, user.refresh_token)
        refresh_token = str(fresh.refresh_token)
        encrypted = cipher.encrypt(refresh_token)
        return _Issued(fresh, refresh_token, encrypted, written=swap(user, refresh_token=encrypted))
    finally:
        sso_gate.release(permit)


def _ask_again(refresh_token: str, sso: Sso) -> TokenSet:
    """The second request; its refusal says that it came directly after a lost answer."""
    try:
        return sso.refresh(refresh_token)
    except SsoRefused as refusal:
        refusal.answer_lost = True
        raise


def _identity(user: User, issued: _Issued, sso: Sso) -> Identity:
    """Who the access token speaks for. Raises SsoInvalidToken if it is another character's; SsoUnavailable.

    The refresh token that came with it is then another pilot's, too: the user's own is put back.
    """
    is_anothers = False
    try:
        identity = sso.verify(issued.tokens.access_token)
        is_anothers = identity.character_id != user.character_id
    finally:
        if not issued.written and not is_anothers:
            _revoke_if_unlinked(user, issued.refresh_token, sso)
    if is_anothers:
        _put_back(user, issued)
        raise SsoInvalidToken("character", "it is another character's token")
    return identity


def _put_back(user: User, issued: _Issued) -> None:
    """Undo what `_call` wrote down. Ciphertexts never repeat: what a login has stored since is left alone."""
    User.update(refresh_token=user.refresh_token).where(
        User.id == user.id, User.refresh_token == issued.encrypted
    ).execute()


def _revoke_if_unlinked(user: User, refresh_token: str, sso: Sso) -> None:
    """The pilot left during the refresh, and what they had revoked was the token before this one."""
    if User.select().where(User.id == user.id, User.character_id == user.character_id).exists():
        return
    try:
        sso.revoke(refresh_token)
    except SsoError as error:
        log.warning("user %s: unlinked during a refresh whose token could not be revoked: %s", user.id, error)


def _unavailable(user: User, permit: Permit, error: SsoError, witnesses: Witnesses) -> TokenUnavailable:
    """What a refresh that ended without tokens is to its caller: this user's own failure, or a closed gate."""
    log.info("user %s: cannot refresh the access token: %s", user.id, error)
    if isinstance(error, SsoUnavailable):
        reason, level = ASKS_TO_WAIT if error.retry_after else NO_ANSWER, logging.WARNING
    else:
        reason, level = f"{OUR_FAULT}: {error}", logging.ERROR
    own = TokenUnavailable(f"{NO_TOKEN}: {error}", error.retry_after or 0.0, own_fault=True)
    blame = sso_gate.blame(permit, whole_service=error.whole_service)
    if blame is Blame.USER:
        return own
    if blame is Blame.DOUBT and witnesses(permit):
        log.info("user %s: the SSO serves another pilot: the failure is this one's own", user.id)
        return own
    closed = sso_gate.failed(permit, reason, error.retry_after, level=level)
    return TokenUnavailable(closed.reason, max(closed.wait, error.retry_after or 0.0) + AFTER_THE_OTHERS)


def _believe(user: User, permit: Permit, verdict: str) -> None:
    """Go on if this pilot has to log in again. Raises TokenUnavailable if the answer is part of an incident."""
    counts = not is_rechecked(user)
    closed = sso_gate.judged(permit, verdict, INCIDENT, counts=counts)
    if closed is not None:
        log.info("user %s: not marked for a login; the SSO turns away one pilot after the other", user.id)
        raise TokenUnavailable(closed.reason, closed.wait + AFTER_THE_OTHERS)
    if verdict_rate.is_incident(user.id, verdict, counts=counts):
        log.info("user %s: not marked for a login; the SSO turns away too many pilots", user.id)
        raise TokenUnavailable(INCIDENT, 0.0, own_fault=True)


def _store(user: User, issued: _Issued, identity: Identity, cipher: TokenCipher, permit: Permit) -> str:
    usable = KILLMAIL_SCOPE in identity.scopes
    stored = swap(
        user,
        access_token=cipher.encrypt(issued.tokens.access_token),
        refresh_token=cipher.encrypt(issued.refresh_token),
        expires_at=expiry(issued.tokens, identity),
        scopes=" ".join(sorted(identity.scopes)),
        token_version=User.token_version + 1,
        refresh_claimed_until=None,
        # A process that overran its lease may find the user refused by a later caller; its answer is the truth.
        needs_login_reason=None,
        refresh_fails_since=None,
        sold_at=None,
        next_sync_at=fn.COALESCE(User.next_sync_at, utcnow()) if usable else None,
        **(NO_CHECK if usable else next_check(user, confirmed=user.needs_login_reason is None)),
    )
    if not stored:
        return _stored_meanwhile(user, cipher)
    if permit.slot.failures_noted:
        owner_changes.unchanged(user.created_at)
    if not usable:
        log.warning("user %s: the refreshed access token lacks the scope; %s", user.id, what_follows(user))
        raise NeedsLogin(NO_SCOPE)
    return issued.tokens.access_token


def _refused(user: User, cipher: TokenCipher, permit: Permit, reason: str) -> str:
    """The SSO refused the refresh token: the pilot has to log in, unless it was replaced in the meantime."""
    _believe(user, permit, "the SSO no longer accepts their login")
    if is_rechecked(user) and user.needs_login_reason is not None:
        reason = user.needs_login_reason
    # Ciphertexts never repeat: this one is gone as soon as a login, or a refresh that overran its lease, replaced it.
    marked = (
        User.update(needs_login_reason=reason, next_sync_at=None, refresh_claimed_until=None, **next_check(user))
        .where(User.id == user.id, User.refresh_token == user.refresh_token)
        .execute()
    )
    if not marked:
        return _stored_meanwhile(user, cipher)
    log.warning("user %s: the SSO refused the refresh token; %s", user.id, what_follows(user))
    raise NeedsLogin(reason)


def _owner_changed(user: User, cipher: TokenCipher, permit: Permit) -> str:
    """The access token names another owner: sign the old one out at once; it is final when each recheck says so."""
    _believe(user, permit, "their characters have another owner")
    if not swap(user, **_sold(user)):
        return _stored_meanwhile(user, cipher)
    publish(SessionsEnded(user.id))
    log.warning("user %s: the character changed its owner; signed out; %s", user.id, what_follows(user))
    raise NeedsLogin(OWNER_CHANGED)


def _sold(user: User) -> dict[str, Any]:
    """The columns of a character that was sold. The refresh token is erased only when the last recheck confirms it."""
    confirmed = user.needs_login_reason == OWNER_CHANGED
    changes: dict[str, Any] = {
        "access_token": None,
        "expires_at": None,
        "token_version": User.token_version + 1,
        "refresh_claimed_until": None,
        "needs_login_reason": OWNER_CHANGED,
        "next_sync_at": None,
        "session_epoch": new_session_epoch(),
        "sold_at": fn.COALESCE(User.sold_at, utcnow()),  # from here on the days count until the data is deleted
        **next_check(user, confirmed=confirmed),
    }
    return changes | {"refresh_token": None} if confirmed and is_last_check(user) else changes


def _stored_meanwhile(user: User, cipher: TokenCipher) -> str:
    """Our answer came too late: use what a login, or another process, stored before it."""
    current = read_again(user)
    if current.token_version != user.token_version and lives(current, timedelta()):
        return cipher.decrypt(current.access_token)
    raise TokenUnavailable("the tokens were replaced during the refresh", SHORT_PAUSE)
