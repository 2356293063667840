"""An access token with at least a minute to live, refreshed by one caller at a time.

The invariant: of all threads and processes that need a token of one user at once, one calls the SSO (a lease on the
user's row); the others wait briefly for what it stores. The call itself is left to `tokens/refresh.py`.
"""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial

from database import db, utcnow
from esi import sso_gate
from models import User
from tokens.cipher import TokenCipher
from tokens.errors import TokenUnavailable
from tokens.refresh import SHORT_PAUSE, Sso, refresh
from tokens.rows import checked, claim, lives, read, read_again, release
from tokens.witnesses import ask_for

#: What a token handed out has left at least. A list of 50 pages is read in less.
LEAST_LIFE = timedelta(seconds=60)
#: Seconds to wait for another process's refresh, and between two looks at its result.
WAIT_SECONDS = 5.0
POLL_SECONDS = 0.1


def access_token(
    user_id: int,
    sso: Sso,
    cipher: TokenCipher,
    *,
    wait_seconds: float = WAIT_SECONDS,
    row: User | None = None,
    interactive: bool = False,
) -> str:
    """A token for ESI with at least a minute left; refreshed if need be, by one caller at a time.

    One SELECT when the stored token will do, and none with `row`, the user's whole row as it was read just now.
    `interactive`: a pilot waits for it, so that it may use the slot that the background leaves free.
    Raises NeedsLogin; TokenUnavailable when the SSO is away or the caller that refreshes has not finished within
    `wait_seconds`; UndecryptableToken. Not to be called inside a transaction.
    A token whose whole life is shorter than a minute is handed out when it is fresh.
    """
    if db.in_transaction():
        raise RuntimeError("access_token() may call the SSO: call it outside any transaction")
    user = read(user_id) if row is None else checked(row)
    if lives(user, LEAST_LIFE):
        return cipher.decrypt(user.access_token)
    refresh_token = cipher.decrypt(user.refresh_token)
    lease = claim(user)
    if lease is None:
        return _await_other(user, cipher, wait_seconds)
    try:
        witnesses = partial(ask_for, sso, cipher)
        return refresh(user, refresh_token, sso, cipher, interactive=interactive, witnesses=witnesses)
    except BaseException:
        release(user, lease)
        raise


def forget_access_token(user_id: int) -> None:
    """ESI answered 401 to the access token: the next `access_token` refreshes, whatever its expiry says.

    A refresh under way is not disturbed; one that ended since that answer is repeated once, needlessly and harmlessly.
    """
    User.update(access_token=None, expires_at=None).where(User.id == user_id).execute()


def _await_other(user: User, cipher: TokenCipher, wait_seconds: float) -> str:
    """Another caller refreshes: wait briefly for what it stores."""
    deadline = time.monotonic() + wait_seconds
    while True:
        current = read_again(user)
        if current.token_version != user.token_version and lives(current, timedelta()):
            return cipher.decrypt(current.access_token)
        if current.refresh_claimed_until is None:
            if closed := sso_gate.closure():
                raise TokenUnavailable(closed.reason, closed.wait)
            raise TokenUnavailable("another process could not refresh the access token", SHORT_PAUSE)
        if time.monotonic() >= deadline:
            left = (current.refresh_claimed_until - utcnow()).total_seconds()
            raise TokenUnavailable("another process is refreshing the access token", max(left, SHORT_PAUSE))
        time.sleep(POLL_SECONDS)
