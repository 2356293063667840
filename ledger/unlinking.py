"""Forget a user: the account, and every killmail that appeared in nobody else's list.

No lock here makes a page of somebody's list wait, or waits for pages in general: what may be deleted is locked row by
row (ledger rows, then killmails, in order of their ids), and only then decided in a new statement. A page locks the
same rows in the same order before it commits its links (`ledger/links.py`). So either its links are seen here and the
killmail stays, or the page finds the killmail gone and fetches it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from database import db, execute, lock_clause, utcnow
from ledger import recent_unlinks
from models import Sync, User

#: What appeared in this user's list (parameter: the user's id) and in no other, a former owner's included.
ONLY_THEIRS = """
    SELECT mine.killmail_id FROM user_killmails mine WHERE mine.user_id = ?
      AND NOT EXISTS (SELECT 1 FROM user_killmails other
                      WHERE other.killmail_id = mine.killmail_id AND other.user_id <> mine.user_id)
      AND NOT EXISTS (SELECT 1 FROM former_killmails kept WHERE kept.killmail_id = mine.killmail_id)
"""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A user who was deleted, with the refresh token (ciphertext) as it was stored last."""

    user_id: int
    character_id: int
    refresh_token: str | None

    def __repr__(self) -> str:
        return f"Unlinked(user_id={self.user_id})"


def unlink(user_id: int, *, character_id: int | None = None, key: str | None = None) -> Unlinked | None:
    """Delete the user with tokens, links and syncs, and the killmails and ledger rows that were only theirs.

    None, and nothing is deleted, if there is no such user; or if the id is that of another character than
    `character_id` by now (SQLite gives the id of a deleted user to the next one).
    `key`: under which `ledger/recent_unlinks.py` remembers, for an hour, what ESI's rules still ask of the character.
    """
    with db.atomic():
        user = lock_leaver(user_id)
        if user is None or (character_id is not None and user.character_id != character_id):
            return None
        if key is not None:
            recent_unlinks.remember(key, user.list_fresh_until, _last_synced(user))
        # The ledger first: a worker that is about to store one of them finds no row, and stores nothing.
        delete_only_theirs("ledger", ONLY_THEIRS, user_id)
        delete_only_theirs("killmails", ONLY_THEIRS, user_id)
        delete_user(user_id)
    return Unlinked(user_id, user.character_id, user.refresh_token)


def lock_leaver(user_id: int) -> User | None:
    """The user as they are now, locked with their syncs, one leaver at a time."""
    take_turns()
    execute(f"SELECT id FROM syncs WHERE user_id = ? ORDER BY id {lock_clause()}", (user_id,))
    execute(f"SELECT id FROM users WHERE id = ? {lock_clause()}", (user_id,))
    user: User | None = User.get_or_none(User.id == user_id)
    return user


def _last_synced(user: User) -> datetime | None:
    """From when the cooldown counts: the end of the last sync, and now for a sync that has asked ESI for killmails.

    To leave ends that sync. Without this, a pilot who leaves just before its end could have everything fetched again.
    """
    active = Sync.get_or_none((Sync.user == user.id) & Sync.finished_at.is_null())
    if active is not None and _has_read(active, user):
        return utcnow()
    # A sync that failed halfway has asked for killmails, too.
    return max(filter(None, (user.last_killmail_sync_at, user.list_read_at)), default=None)


def _has_read(sync: Sync, user: User) -> bool:
    """Whether the sync has read a page of the list: page 1 sets both times."""
    return sync.started_at is not None and user.list_read_at is not None and user.list_read_at >= sync.started_at


def delete_user(user_id: int) -> None:
    """Delete the row and all that refers to it, in the order in which a worker that stores a killmail locks it."""
    execute("DELETE FROM sync_items WHERE sync_id IN (SELECT id FROM syncs WHERE user_id = ?)", (user_id,))
    execute("DELETE FROM user_killmails WHERE user_id = ?", (user_id,))
    execute("DELETE FROM users WHERE id = ?", (user_id,))


def take_turns() -> None:
    """Two who unlink at once would each take a killmail they share for the other's, and leave it behind."""
    execute(f"SELECT name FROM locks WHERE name = 'links' {lock_clause()}")


def delete_only_theirs(table: str, only_theirs: str, owner: int) -> None:
    """Lock what seems to be only theirs, in order; then delete what still is, now that no page can link it."""
    execute(
        f"SELECT killmail_id FROM {table} WHERE killmail_id IN ({only_theirs}) ORDER BY killmail_id {lock_clause()}",
        (owner,),
    )
    execute(f"DELETE FROM {table} WHERE killmail_id IN ({only_theirs})", (owner,))
