"""What ESI's rules still ask of a character for an hour after it was unlinked.

A pilot may unlink and log in again as often as they like. ESI, which must not be asked for a list again before its
cache expires, and the bucket of details that all pilots share must not pay for it. So two times are kept: until when
ESI's copy of the list is fresh, and when the last sync ended (for the cooldown); one that was active ended with the
unlink. A login within the hour starts with them.

No more is kept than that needs: no name, no killmail, no token, and in place of the character's id a hash of it with
the key that signs sessions (SECRET_KEY), which cannot be turned back into the id without that key. The tick deletes it
after the hour; a login deletes it at once.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from database import as_datetime, execute, utcnow

#: How long it is kept: longer than a cooldown and ESI's cache (5 minutes) usually are.
REMEMBERED_FOR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a login starts with: until when ESI's copy of the list is fresh, and when the last sync ended."""

    fresh_until: datetime | None = None
    last_sync_at: datetime | None = None


def key_of(character_id: int, secret_key: str) -> str:
    """The keyed hash that stands for a character."""
    return hmac.new(secret_key.encode(), f"unlinked character {character_id}".encode(), "sha256").hexdigest()


def remember(key: str, fresh_until: datetime | None, last_sync_at: datetime | None) -> None:
    """Part of the transaction that deletes the user."""
    execute(
        """INSERT INTO recent_unlinks (character_key, fresh_until, last_sync_at, forget_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (character_key) DO UPDATE SET fresh_until = excluded.fresh_until,
               last_sync_at = excluded.last_sync_at, forget_at = excluded.forget_at""",
        (key, fresh_until, last_sync_at, utcnow() + REMEMBERED_FOR),
    )


def recall(key: str) -> Remembered:
    """What is remembered of the character, nothing after an hour."""
    row = execute(
        "SELECT fresh_until, last_sync_at FROM recent_unlinks WHERE character_key = ? AND forget_at > ?",
        (key, utcnow()),
    ).fetchone()
    return Remembered() if row is None else Remembered(*(None if each is None else as_datetime(each) for each in row))


def forget(key: str) -> None:
    """The character is linked again: its own row says it from now on."""
    execute("DELETE FROM recent_unlinks WHERE character_key = ?", (key,))


def sweep() -> None:
    """Delete what is older than an hour."""
    now = utcnow()
    # Looked for first: a deletion takes SQLite's only lock, and there is hardly ever anything to do.
    if execute("SELECT 1 FROM recent_unlinks WHERE forget_at <= ? LIMIT 1", (now,)).fetchone() is not None:
        execute("DELETE FROM recent_unlinks WHERE forget_at <= ?", (now,))
