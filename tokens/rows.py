"""The token columns of a user's row: who may have a token, and the compare-and-swap that every change goes through.

The invariant: tokens are written only if nothing newer was stored since they were read (`token_version`), so that a
login always wins.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

from database import utcnow
from esi.sso import Identity, TokenSet
from models import User
from settings import KILLMAIL_SCOPE
from tokens.errors import NO_REFRESH_TOKEN, NO_SCOPE, NOT_LINKED, NeedsLogin

#: How long one process may take to refresh before another may try: two requests' timeouts (43 s each) and the wait for
#: a slot. The SSO answers in well under a second.
LEASE = timedelta(seconds=90)


def login_needed(user: User) -> str | None:
    """Why only a login helps this user, as a sentence for the pilot; None when a token can be obtained."""
    if user.needs_login_reason is not None and not is_rechecked(user):
        return str(user.needs_login_reason)
    if not has_scope(user) and not is_rechecked(user):
        return NO_SCOPE
    return NO_REFRESH_TOKEN if user.refresh_token is None else None


def is_rechecked(user: User) -> bool:
    """Whether the SSO is asked again about a user it turned away (`tokens/rechecks.py`)."""
    return user.recheck_at is not None and user.next_sync_at is not None


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


def read(user_id: int) -> User:
    """The columns that a refresh needs. Raises NeedsLogin."""
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
            User.created_at,
            User.next_sync_at,
            User.recheck_at,
            User.rechecks,
            User.refresh_fails_since,
        )
        .where(User.id == user_id)
        .get_or_none()
    )
    if user is None:
        raise NeedsLogin(NOT_LINKED)
    return checked(user)


def checked(user: User) -> User:
    """The user, if a token can be obtained. Raises NeedsLogin."""
    if reason := login_needed(user):
        raise NeedsLogin(reason)
    return user


def read_again(user: User) -> User:
    """The row as it is now, if it is still this pilot's: SQLite gives the id of a deleted user to the next one."""
    current = read(user.id)
    if (current.character_id, current.owner_hash) != (user.character_id, user.owner_hash):
        raise NeedsLogin(NOT_LINKED)
    return current


def lives(user: User, least: timedelta) -> bool:
    """Whether the stored access token is good for at least so long."""
    return user.access_token is not None and user.expires_at is not None and user.expires_at >= utcnow() + least


def swap(user: User, **changes: Any) -> bool:
    """Write only if the tokens are still those that were read; False if a login or a refresh came first."""
    unchanged = (User.id == user.id) & (User.token_version == user.token_version)
    return bool(User.update(**changes).where(unchanged).execute())


def claim(user: User) -> datetime | None:
    """Take the refresh lease, unless another holds it or has refreshed since the row was read: None."""
    now = utcnow()
    free = User.refresh_claimed_until.is_null() | (User.refresh_claimed_until <= now)
    lease = now + LEASE
    claimed = (
        User.update(refresh_claimed_until=lease)
        .where(User.id == user.id, User.token_version == user.token_version, free)
        .execute()
    )
    return lease if claimed else None


def release(user: User, lease: datetime) -> None:
    """Give the refresh lease back, if it has not passed to another caller."""
    User.update(refresh_claimed_until=None).where(User.id == user.id, User.refresh_claimed_until == lease).execute()
