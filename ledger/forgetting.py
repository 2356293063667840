"""Forget the syncs that nobody looks at any more, so that a user's history does not grow for ever."""

from __future__ import annotations

from datetime import timedelta

from database import execute, utcnow

#: How long an ended sync is kept, and how many of a user's are kept however old they are.
KEEP_ENDED = timedelta(days=30)
KEEP_LAST = 10
#: Looked at whenever a sync ends. One would do; more catch up with what was left before.
BATCH = 20


def forget_ended(user_id: int) -> None:
    """Delete the oldest ended syncs of this user's, with their items. For after the commit that ended another.

    It costs the same however long the history is: a user's syncs end one after the other, so only the oldest few are
    looked at. One statement a sync: to delete the items of several at once could cross a killmail that is settled.
    """
    rows = execute(
        """
        SELECT id FROM (
            SELECT id, finished_at FROM syncs WHERE user_id = ? AND id < (
                SELECT id FROM syncs WHERE user_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?)
            ORDER BY id LIMIT ?) AS oldest
        WHERE finished_at < ?
        """,
        (user_id, user_id, KEEP_LAST - 1, BATCH, utcnow() - KEEP_ENDED),
    ).fetchall()
    for row in rows:
        execute("DELETE FROM syncs WHERE id = ?", row)
