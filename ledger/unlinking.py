"""Forget a user: the account, and every killmail that stood in nobody else's list."""

from __future__ import annotations

from database import db, execute, lock_clause


def unlink(user_id: int, *, as_read: tuple[int, str | None] | None = None) -> bool:
    """Delete the user with tokens, links and syncs, and the killmails and ledger rows that were only theirs.

    `as_read`: character id and refresh token, as they are stored. False, and nothing is deleted, if they are others by
    now.
    """
    only_theirs = """
        SELECT mine.killmail_id FROM user_killmails mine WHERE mine.user_id = ? AND NOT EXISTS (
            SELECT 1 FROM user_killmails other
            WHERE other.killmail_id = mine.killmail_id AND other.user_id <> mine.user_id)
    """
    with db.atomic():
        # Alone: a page that links one of these killmails to somebody else waits, and then finds it gone and fetches it.
        execute(f"SELECT name FROM locks WHERE name = 'links' {lock_clause()}")
        execute(f"SELECT id FROM syncs WHERE user_id = ? ORDER BY id {lock_clause()}", (user_id,))
        row = execute(
            f"SELECT character_id, refresh_token FROM users WHERE id = ? {lock_clause()}", (user_id,)
        ).fetchone()
        if as_read is not None and row is not None and tuple(row) != as_read:
            return False
        # The ledger first: a worker that is about to store one of them finds no row, and stores nothing.
        ordered = f"SELECT killmail_id FROM ledger WHERE killmail_id IN ({only_theirs}) ORDER BY killmail_id"
        execute(f"DELETE FROM ledger WHERE killmail_id IN ({ordered} {lock_clause()})", (user_id,))
        execute(f"DELETE FROM killmails WHERE killmail_id IN ({only_theirs})", (user_id,))
        execute("DELETE FROM users WHERE id = ?", (user_id,))
    return True
