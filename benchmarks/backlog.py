"""A background backlog: a pilot whose thousands of killmails the scheduler's sync (priority 3) is fetching."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.b05_nothing_new import QUEUE_DUE_USERS
from benchmarks.harness import Cluster, add_killmails, browser, new_pilot, send, wait_until
from database import utcnow

#: Routes that share the ceiling; the target is about all of them, for what names take the killmails cannot have.
COUNTED = ("killmail", "recent", "names", "system")
_PENDING = "SELECT COUNT(*) FROM ledger WHERE state = 'pending' AND priority < 8"


def pending(system: Cluster) -> int:
    """Background killmails that wait now."""
    return int(system.scalar(_PENDING))


def build(system: Cluster, killmails: int) -> int:
    """Give a pilot who has logged in before so many new killmails, and let the scheduler find them.

    Returns the character's id when all are listed and the first are being fetched.
    """
    character_id = new_pilot(system, 1)
    browser(system, "10.1.0.1").log_in(character_id)
    system.wait_for_syncs()
    add(system, character_id, killmails)
    return character_id


def add(system: Cluster, character_id: int, killmails: int) -> None:
    """Give the pilot so many new ones; they are listed, and the first are being fetched, when this returns."""
    add_killmails(system, character_id, killmails)
    past = utcnow() - timedelta(minutes=1)
    system.rows("UPDATE users SET next_sync_at = ? WHERE character_id = ? RETURNING id", past, character_id)
    send(system, QUEUE_DUE_USERS)
    listed = "SELECT state FROM syncs WHERE trigger = 'SCHEDULE' ORDER BY id DESC LIMIT 1"
    wait_until(lambda: system.rows(listed) == [("FETCHING",)], f"{killmails} killmails are listed", 300)
