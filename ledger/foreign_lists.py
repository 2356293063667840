"""A list that ESI answered for another character: what it brought is not counted, and it is not taken for complete.

Which killmails are foreign is told by `links.py`. A page notices those that are stored; a settle the others, before or
after the list or the sync has ended. The invariant: once one was noticed, no ETag is sent and no reading stops early
before the user's list was read to its end without one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from database import execute, lock_clause, placeholders

R = TypeVar("R")

#: What makes the user's next sync read every page without an ETag, as a full one, and compare its length with nothing.
_READ_ALL = (
    "list_etag = NULL, last_sync_complete = FALSE, last_full_sync_at = NULL,"
    " list_entries = NULL, list_counted_at = NULL"
)


class UsersNotHeld(Exception):
    """The transaction has to lock these users and their syncs before its ledger row, and did not."""

    def __init__(self, user_ids: Collection[int]) -> None:
        super().__init__(f"users {sorted(user_ids)} are not locked")
        self.user_ids = frozenset(user_ids)


def repeat_holding(transaction: Callable[[frozenset[int]], R]) -> R:
    """Run the transaction with no user, and again from its start with those that UsersNotHeld names.

    Locks are taken in one order everywhere: sync, user, ledger row. Which users a killmail is foreign to is known only
    with its ledger row locked; and it is seldom foreign to any, so that nothing is locked in advance.
    """
    held: frozenset[int] = frozenset()
    while True:
        try:
            return transaction(held)
        except UsersNotHeld as error:
            held |= error.user_ids


def hold(user_ids: Collection[int]) -> None:
    """Lock the active syncs of these users, then the users. Raises UsersNotHeld if a sync was opened in between."""
    if not user_ids:
        return
    users = sorted(user_ids)
    active = f"SELECT id FROM syncs WHERE finished_at IS NULL AND user_id IN ({placeholders(users)}) ORDER BY id"
    held = execute(f"{active} {lock_clause()}", users).fetchall()
    execute(f"SELECT id FROM users WHERE id IN ({placeholders(users)}) ORDER BY id {lock_clause()}", users)
    # No sync is opened for a locked user, so this look is the last one.
    if not set(execute(active, users).fetchall()) <= set(held):
        raise UsersNotHeld(user_ids)


def take_back(user_ids: Collection[int], sync_ids: Collection[int]) -> None:
    """A killmail that was stored now does not name these users, who are held. `sync_ids`: the syncs that wanted it.

    What an ended sync counted stays as it is.
    """
    counted = f"CASE WHEN id IN ({placeholders(sync_ids)}) THEN 1 ELSE 0 END" if sync_ids else "0"
    execute(
        f"""UPDATE syncs SET list_moved = TRUE, found = found - {counted}, foreign_entries = foreign_entries + {counted}
            WHERE finished_at IS NULL AND user_id IN ({placeholders(user_ids)})""",
        (*sync_ids, *sync_ids, *user_ids),
    )
    distrust(user_ids)


def distrust(user_ids: Collection[int]) -> None:
    """What was read of these users' lists before may have been another character's."""
    execute(f"UPDATE users SET {_READ_ALL} WHERE id IN ({placeholders(user_ids)})", list(user_ids))


def describe(entries: int) -> str | None:
    """What the sync's page tells the pilot of so many foreign entries."""
    if not entries:
        return None
    what = "1 killmail of the list does" if entries == 1 else f"{entries:,} killmails of the list do"
    shown = "is" if entries == 1 else "are"
    return f"{what} not name this pilot and {shown} not shown; the next sync reads the whole list again"
