"""Syncs: how one is asked for, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import dramatiq

import ledger
import settings
from actors import sending
from actors.expired import SYNC_MAX_AGE
from actors.queues import FIRST, SYNCS
from database import db
from events import SyncFinished, publish

logger = logging.getLogger(__name__)


@dramatiq.actor(
    queue_name=SYNCS,
    priority=FIRST,
    # One conditional update: trying again at once after a database hiccup spares the pilot a minute until the tick.
    max_retries=3,
    min_backoff=500,
    max_backoff=5_000,
    time_limit=60_000,  # a handful of statements: beyond a minute the database is stuck
    max_age=SYNC_MAX_AGE,
)
def finalize_sync(sync_id: int) -> None:
    """End a sync that is complete. Of any number of calls, one does it."""
    from actors.names import resolve_names

    finished = ledger.finalize(sync_id, timedelta(minutes=settings.current().sync_cooldown_minutes))
    if finished is None:
        return
    logger.info(
        "sync %s of user %s: %s found, %s new, %s known, %s failed",
        sync_id, finished.user_id, finished.found, finished.saved, finished.skipped, finished.failed,
    )  # fmt: skip
    publish(SyncFinished(sync_id))
    if finished.saved:
        sending.send(resolve_names)


def finish_if_complete(sync_ids: Sequence[int]) -> None:
    """Send `finalize_sync` for those that wait for nothing any more. For after the commit that settled something.

    Raises RuntimeError within a transaction: two last workers would not see each other's row go, and neither would end
    the sync.
    """
    if db.in_transaction():
        raise RuntimeError("whether a sync is complete is asked after the commit")
    for sync_id in ledger.ready_to_finish(sync_ids):
        sending.send(finalize_sync, sync_id, priority=FINALIZE_PRIORITY)


#: Ending a sync is one statement and what its pilot waits for: it goes ahead of everything in its queue.
FINALIZE_PRIORITY = 8
