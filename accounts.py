"""Who may be synced: logging in, the state of a login, signing out, unlinking.

The invariants: one character is one user, the current owner; a character that was sold starts clean, and what its
former owner saw is hidden at once (`ledger/former_owners.py`) with their sessions ended; a user is due for a sync
(`next_sync_at`) only while eligible. Keeping access tokens fresh is left to `tokens/`, deleting killmails to
`ledger/unlinking.py`, the browser's session to `web/auth.py`.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import ledger
import periodic_runs
from clock import CLOCKS_APART
from database import clock, execute, utcnow
from esi import owner_changes
from esi.errors import SsoError
from esi.sso import Identity, TokenSet
from events import SessionsEnded, publish
from ledger import former_owners, recent_unlinks
from ledger.recent_unlinks import Remembered
from models import User
from settings import KILLMAIL_SCOPE
from tokens import (
    TokenCipher,
    UndecryptableToken,
    expiry,
    first_token_version,
    has_scope,
    login_needed,
    new_session_epoch,
)

log = logging.getLogger(__name__)

#: The name of the deletion of former owners' data among `periodic_runs`, and for how long it has to be due at each look
#: before it is done: longer than a clock that was set wrongly stays unnoticed, most of the time.
DELETION, DUE_FOR = "former owners", timedelta(hours=3)
#: Where a pilot takes back by hand what was allowed to an application.
THIRD_PARTY_APPLICATIONS = "https://community.eveonline.com/support/third-party-applications/"


class TokenState(StrEnum):
    """What a pilot has to do about the login, if anything."""

    OK = "OK"  # nothing: killmails are synced
    NEEDS_LOGIN = "NEEDS_LOGIN"  # log in again: SSO refused the token, or the character was sold
    MISSING_SCOPE = "MISSING_SCOPE"  # log in again and allow reading killmails


class Revoker(Protocol):
    """What of `esi.sso.SsoClient` unlinking needs."""

    def revoke(self, refresh_token: str) -> None: ...


def log_in(
    identity: Identity, tokens: TokenSet, cipher: TokenCipher, cooldown_minutes: int, *, secret_key: str | None = None
) -> User:
    """Store a login: a new user, or new tokens for a known one; the same owner's other sessions stay signed in.

    A login wins over every refresh under way. What is due stays due; a user who becomes eligible is due when the last
    sync is `cooldown_minutes` old. A former owner's data is hidden first, in a transaction of its own, and what this
    owner had here before a sale is given back in another; a crash in between only means to log in again. Call it
    outside a transaction. `secret_key`: see `unlink`.
    """
    remembered = Remembered()
    key = None if secret_key is None else recent_unlinks.key_of(identity.character_id, secret_key)
    while True:
        known = User.get_or_none(User.character_id == identity.character_id)
        if known is None and key is not None:
            remembered = recent_unlinks.recall(key)
        elif known is not None and known.owner_hash != identity.owner_hash:
            # ESI's copy of the list is the character's, whoever owns it.
            remembered = Remembered(fresh_until=known.list_fresh_until)
            _former_owner_leaves(known)
            known = None
        due = _due(identity, tokens, known, remembered, cooldown_minutes)
        user_id = _upsert(identity, tokens, cipher, due, remembered)
        if user_id is not None:
            break
        # The owner changed between the two statements, by another login: look again.
    if key is not None:
        recent_unlinks.forget(key)
    if known is not None:
        owner_changes.unchanged(known.created_at)
    elif (killmails := former_owners.restore(user_id, owner_hash=identity.owner_hash)) is not None:
        log.info("user %s: the character's former owner is back; %s killmails are visible again", user_id, killmails)
    return User.get_by_id(user_id)


def eligible(user: User) -> bool:
    """Has a refresh token that SSO has not refused, and the scope; how old the access token is does not matter."""
    return login_needed(user) is None


#: `token_state` of a row of `users`, for statements that count.
TOKEN_STATE_SQL = f"""
    CASE WHEN next_sync_at IS NOT NULL THEN '{TokenState.OK}'
         WHEN needs_login_reason IS NULL
              AND REPLACE(' ' || scopes || ' ', ' {KILLMAIL_SCOPE} ', '') = ' ' || scopes || ' '
         THEN '{TokenState.MISSING_SCOPE}' ELSE '{TokenState.NEEDS_LOGIN}' END
"""


def token_state(user: User) -> TokenState:
    """What a user has to do before syncs go on: nothing, log in again, or log in and allow the scope."""
    if eligible(user):
        return TokenState.OK
    if user.needs_login_reason is None and not has_scope(user):
        return TokenState.MISSING_SCOPE
    return TokenState.NEEDS_LOGIN


def sign_out_everywhere(user_id: int) -> None:
    """End every session of the user, and close their sockets."""
    User.update(session_epoch=new_session_epoch()).where(User.id == user_id).execute()
    publish(SessionsEnded(user_id))


def unlink(user_id: int, sso: Revoker, cipher: TokenCipher, *, secret_key: str | None = None) -> bool:
    """Forget a user for good: the account and what only it held; then the token is revoked at the SSO.

    Deleted first: a token that was revoked for a deletion that then fails would leave a pilot who is neither here nor
    gone. Nothing of an SSO outage or a lost TOKEN_KEYS keeps a pilot from leaving. Returns False if the token could
    not be revoked at the SSO; our copy is deleted either way. Nothing happens if the user is gone already.
    `secret_key`: SECRET_KEY, for what is remembered of the character for an hour (`ledger/recent_unlinks.py`).
    """
    user: User | None = User.select(User.character_id).where(User.id == user_id).get_or_none()
    if user is None:
        return True
    key = None if secret_key is None else recent_unlinks.key_of(user.character_id, secret_key)
    unlinked = ledger.unlink(user_id, character_id=user.character_id, key=key)
    if unlinked is None or unlinked.refresh_token is None:
        return True
    try:
        sso.revoke(cipher.decrypt(unlinked.refresh_token))
    except (SsoError, UndecryptableToken) as error:
        log.warning("user %s: unlinked without revoking the refresh token at the SSO: %s", user_id, error)
        return False
    return True


def farewell(revoked: bool) -> str:
    """What the pilot is told after `unlink`."""
    if revoked:
        return "The access is revoked, and what only you had here is deleted."
    return (
        "What only you had here is deleted, and our copy of the access. At EVE the access could not be revoked now; "
        f"remove it under third-party applications of your EVE account at {THIRD_PARTY_APPLICATIONS}"
    )


def _former_owner_leaves(user: User) -> None:
    if not former_owners.hide(user.id, user.owner_hash):
        return
    log.warning("user %s: the character was sold; the former owner's data is hidden and deleted in 30 days", user.id)
    publish(SessionsEnded(user.id))
    owner_changes.changed(user.character_id)


def forget_former_owners() -> int:
    """Delete the data of former owners whose time is over, a few at a time; none while deletion is paused.

    To be called each minute: it deletes only when its time was over at each call for some hours, and while this machine
    and the database agree on the time, so that a clock that is wrong for a while deletes nothing.
    """
    if owner_changes.paused_since() is not None or former_owners.count_due() == 0:
        return 0
    if abs(clock.skew()) > CLOCKS_APART.total_seconds():
        return 0
    return former_owners.delete_due() if periodic_runs.wanted_for(DELETION, DUE_FOR) else 0


def _due(
    identity: Identity, tokens: TokenSet, known: User | None, remembered: Remembered, cooldown_minutes: int
) -> datetime | None:
    """When a user is due who was not before; None when not eligible."""
    if tokens.refresh_token is None or KILLMAIL_SCOPE not in identity.scopes:
        return None
    now = utcnow()
    last = remembered.last_sync_at if known is None else known.last_killmail_sync_at
    if last is None:
        return now
    cooled_down: datetime = last + timedelta(minutes=cooldown_minutes)
    return max(now, cooled_down)


def _upsert(
    identity: Identity, tokens: TokenSet, cipher: TokenCipher, due: datetime | None, remembered: Remembered
) -> int | None:
    """Write the login in one statement; the user's id, or None when the row belongs to another owner."""
    cursor = execute(
        """
        INSERT INTO users (character_id, character_name, owner_hash, scopes, access_token, refresh_token, expires_at,
            next_sync_at, session_epoch, token_version, created_at, list_fresh_until, last_killmail_sync_at,
            last_sync_complete, full_requested, consecutive_failures)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, false, false, 0)
        ON CONFLICT (character_id) DO UPDATE SET
            character_name = excluded.character_name,
            scopes = excluded.scopes,
            access_token = excluded.access_token,
            refresh_token = excluded.refresh_token,
            expires_at = excluded.expires_at,
            token_version = users.token_version + 1,
            refresh_claimed_until = NULL,
            needs_login_reason = NULL,
            recheck_at = NULL,
            sold_at = NULL,
            refresh_fails_since = NULL,
            consecutive_failures = 0,
            next_sync_at = CASE WHEN excluded.next_sync_at IS NULL THEN NULL
                ELSE COALESCE(users.next_sync_at, excluded.next_sync_at) END
        WHERE users.owner_hash = excluded.owner_hash
        RETURNING id
        """,
        (
            identity.character_id,
            identity.name,
            identity.owner_hash,
            " ".join(sorted(identity.scopes)),
            cipher.encrypt(tokens.access_token),
            None if tokens.refresh_token is None else cipher.encrypt(tokens.refresh_token),
            expiry(tokens, identity),
            due,
            new_session_epoch(),
            first_token_version(),
            utcnow(),
            remembered.fresh_until,
            remembered.last_sync_at,
        ),
    )
    rows = cursor.fetchall()  # all of them: SQLite ends the statement, and its lock, with the last
    return int(rows[0][0]) if rows else None
