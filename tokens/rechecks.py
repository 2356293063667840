"""A refusal by the SSO is checked three more times within a day before it is final.

The SSO can be wrong for a while: it may refuse every refresh token, name other owners, or leave out scopes. So a user
it turns away (refused, other owner, scope missing) has to log in at once, but keeps the refresh token, and
`users.recheck_at` says when the SSO is asked again: after an hour, six hours and a day. When all of these turn the user
away for the same reason, that is final; a success clears everything, and another reason begins again. Users with
`recheck_at` and `next_sync_at` set are being rechecked: they are synced like any other, and the refresh that needs
tells. A recheck that falls into an incident (`esi/sso_gate.py`, `esi/verdict_rate.py`) confirms nothing.

The invariant: no user who was turned away is asked about more than once an hour, and never for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from clock import CLOCKS_APART
from database import execute, lock_clause, placeholders, utcnow
from models import User
from tokens.rows import is_rechecked

#: How long each recheck waits for the one before, the first for the refusal: an hour is longer than most of the SSO's
#: incidents that are on record, a day longer than all.
RECHECK_WAITS = (timedelta(hours=1), timedelta(hours=5), timedelta(hours=18))
#: Users who are made eligible by one tick. A tick comes each minute, in embedded mode each second.
RECHECKS_PER_TICK = 20
#: The columns of a user whom the SSO serves.
NO_CHECK: dict[str, Any] = {"recheck_at": None, "rechecks": 0}

#: Rows of `users` that were turned away and whose refresh token is still stored.
_TURNED_AWAY = "next_sync_at IS NULL AND refresh_token IS NOT NULL"


def next_check(user: User, *, confirmed: bool = True) -> dict[str, Any]:
    """The columns that say when to ask the SSO again about a user it has just turned away; never after the last time.

    `confirmed=False`: the recheck gave another reason than the first answer, which has not been checked yet.
    A try before the recheck is due (`retry_now`) leaves its time as it is: an operator who is early takes nothing away.
    """
    if not (is_rechecked(user) and confirmed):
        return {"recheck_at": utcnow() + RECHECK_WAITS[0], "rechecks": 0}
    if is_last_check(user):
        return {"recheck_at": None, "rechecks": len(RECHECK_WAITS)}
    if user.recheck_at > utcnow():
        return {"recheck_at": user.recheck_at, "rechecks": user.rechecks}
    done = user.rechecks + 1
    return {"recheck_at": utcnow() + RECHECK_WAITS[done], "rechecks": done}


def is_last_check(user: User) -> bool:
    """Whether this user is being rechecked, and often and long enough after the refusal for another one to be final."""
    is_due = is_rechecked(user) and bool(user.recheck_at <= utcnow())
    return is_due and bool(user.rechecks + 1 >= len(RECHECK_WAITS))


def what_follows(user: User) -> str:
    """For a log line about a user who was just turned away."""
    if is_last_check(user):
        return "that was the last check: the pilot has to log in again"
    return "the pilot has to log in again; it is checked again within the day"


def start_due_rechecks() -> int:
    """Make some users whose recheck is due eligible for one more try; returns how many. Idempotent."""
    now = utcnow()
    # A time further ahead than any that is written here was dated by a wrong clock.
    due = f"recheck_at IS NOT NULL AND (recheck_at <= ? OR recheck_at > ?) AND {_TURNED_AWAY}"
    times = (now, now + max(RECHECK_WAITS) + CLOCKS_APART)
    # Looked for first: an update takes SQLite's only lock, and there is hardly ever anything to do.
    if execute(f"SELECT 1 FROM users WHERE {due} LIMIT 1", times).fetchone() is None:
        return 0
    return _start(f"{due} ORDER BY recheck_at LIMIT {RECHECKS_PER_TICK}", times, recheck_at="?", now=now)


def retry_now(character_ids: Sequence[int] = ()) -> int:
    """Make users who were turned away eligible for one more try at once, all or these; returns how many.

    Also those for whom the last check has failed; for the others it still comes at its time. Without a stored
    refresh token only a login helps.
    """
    chosen = f"{_TURNED_AWAY} AND character_id IN ({placeholders(character_ids)})" if character_ids else _TURNED_AWAY
    return _start(chosen, tuple(character_ids), recheck_at="COALESCE(recheck_at, ?)", now=utcnow())


def _start(condition: str, parameters: Sequence[object], *, recheck_at: str, now: datetime) -> int:
    rows = execute(
        f"""UPDATE users SET next_sync_at = ?, recheck_at = {recheck_at}, access_token = NULL, expires_at = NULL
            WHERE id IN (SELECT id FROM users WHERE {condition} {lock_clause(skip_locked=True)})""",
        (now, now, *parameters),
    )
    return int(rows.rowcount)
