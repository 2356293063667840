"""Delete stored killmails that stand in no pilot's list: another character's list, read once by mistake, left them.

They are kept for a week, so that a list that stays wrong is not fetched at each sync. After that the next list that
holds one fetches it again, which also gives a second chance to a body that was believed by mistake. What a former owner
had is kept (`former_owners.py`).

No index finds them, so a look goes on where the last one ended, and costs the same however many killmails there are.
"""

from __future__ import annotations

from datetime import timedelta

import periodic_runs
from database import db, execute, lock_clause, utcnow

#: How long a killmail without a link is kept, counted from when it was stored.
KEPT_FOR = timedelta(days=7)
#: One look, and the killmails it looks at: a day for a million and a half, at two index look-ups each.
EVERY = timedelta(minutes=1)
BATCH = 1_000

TURN = "killmails without a link"

#: Parameters: the first and the last id, and when it was stored at the latest.
_WITHOUT_LINKS = """
    SELECT k.killmail_id FROM killmails k WHERE k.killmail_id BETWEEN ? AND ? AND k.created_at < ?
      AND NOT EXISTS (SELECT 1 FROM user_killmails l WHERE l.killmail_id = k.killmail_id)
      AND NOT EXISTS (SELECT 1 FROM former_killmails f WHERE f.killmail_id = k.killmail_id)
"""


def sweep() -> int:
    """Look at the next killmails if it is time; returns how many were deleted. Idempotent."""
    if not periodic_runs.begin(TURN, EVERY):
        return 0
    ids = execute(
        "SELECT killmail_id FROM killmails WHERE killmail_id > ? ORDER BY killmail_id LIMIT ?",
        (periodic_runs.position(TURN), BATCH),
    ).fetchall()
    deleted = _delete(ids[0][0], ids[-1][0]) if ids else 0
    periodic_runs.move_to(TURN, ids[-1][0] if len(ids) == BATCH else 0)
    return deleted


def _delete(first: int, last: int) -> int:
    """A page that links one of them holds its row until its commit (`links.py`): lock first, then look again."""
    which = (first, last, utcnow() - KEPT_FOR)
    if execute(f"{_WITHOUT_LINKS} LIMIT 1", which).fetchone() is None:
        return 0
    with db.atomic():
        execute(
            f"SELECT killmail_id FROM killmails WHERE killmail_id IN ({_WITHOUT_LINKS}) ORDER BY killmail_id"
            f" {lock_clause()}",
            which,
        )
        return int(execute(f"DELETE FROM killmails WHERE killmail_id IN ({_WITHOUT_LINKS})", which).rowcount)
