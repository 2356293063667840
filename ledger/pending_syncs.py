"""Syncs that no message is out for, and which of them need another access token before their list can be read.

That is written in the users' rows, so that no index of `syncs` tells.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from database import execute, placeholders, utcnow

#: What an access token has left at least, to be used without a refresh (`tokens/access.py`).
TOKEN_LIFE = timedelta(seconds=60)


def needing_refresh(sync_ids: Collection[int]) -> set[int]:
    """Of these syncs, those whose user has no access token that lives long enough."""
    if not sync_ids:
        return set()
    rows = execute(
        f"""SELECT s.id FROM syncs s JOIN users u ON u.id = s.user_id WHERE s.id IN ({placeholders(sync_ids)})
            AND (u.access_token IS NULL OR u.expires_at IS NULL OR u.expires_at < ?)""",
        (*sync_ids, utcnow() + TOKEN_LIFE),
    ).fetchall()
    return {sync_id for (sync_id,) in rows}
