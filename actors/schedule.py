"""What happens by the clock: users who are due, and the repair of whatever was left behind.

periodiq sends both actors; firing twice, or in two schedulers at once, does nothing twice.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import dramatiq
from periodiq import cron

import accounts
import deadlines
import ledger
import prices
import row_counts
import runtime
import settings
import stale_names
import tokens
from actors import sending
from actors.dispatching import dispatch_now
from actors.name_refresh import refresh_names
from actors.names import names_wanted, resolve_names
from actors.prices import refresh_prices
from actors.queues import CLOCKS_APART_MS, FIRST, MAINTENANCE, SECOND
from actors.sync_dispatching import dispatch_syncs_now, lists_until, take_back_lost_messages
from actors.syncs import FINALIZE_PRIORITY, finalize_sync
from esi.rate_limit import CHAR_KILLMAIL
from events import SyncFinished, publish
from ledger import recent_unlinks
from ledger.rules import SYNC_RESEND_AFTER

logger = logging.getLogger(__name__)

#: Users whose syncs are opened in one statement.
BATCH = 1_000


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=SECOND,
    max_retries=0,  # the next look is SCHEDULE_MINUTES away and finds the same users
    time_limit=5 * 60_000,  # 170,000 users at most, an hour's lists, in as many statements of BATCH
    max_age=5 * 60_000 + CLOCKS_APART_MS,  # the next look finds the same users
    periodic=cron(f"*/{settings.current().schedule_minutes} * * * *"),
)
def queue_due_users() -> None:
    """Open a sync for the users who are due, those due longest first: as many as can be read until the next look.

    Opening writes rows; they are sent through a window. Those left over are due longest at the next look.
    """
    most = lists_until(settings.current().schedule_minutes * 60.0) - ledger.pending_background()
    opened = 0
    while opened < most:
        wanted = min(BATCH, most - opened)
        found = len(ledger.open_due_syncs(wanted))
        opened += found
        if found < wanted:
            break
    if opened:
        logger.info("%s users were due", opened)
    dispatch_syncs_now()


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=FIRST,
    max_retries=0,  # the next tick does the same
    time_limit=5 * 60_000,  # a backlog of leases after an outage, in batches
    max_age=60_000 + CLOCKS_APART_MS,  # the next one has arrived
    periodic=cron("* * * * *"),
)
def tend_ledger() -> None:
    """Repair what a lost message or a dead process left. Idempotent throughout."""
    tend()


def tend(resend_after: timedelta = SYNC_RESEND_AFTER) -> None:
    """One look at everything that may have been left behind."""
    cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
    deadlines.expire_implausible_deadlines(cooldown)
    tokens.start_due_rechecks()
    if deleted := accounts.forget_former_owners():
        logger.info("deleted the data of %s former owners of characters that were sold 30 days ago", deleted)
    recent_unlinks.sweep()
    taken_back = ledger.take_back_expired()
    if taken_back:
        logger.warning("%s killmails whose message or worker went away are pending again", taken_back)
    for sync_id in ledger.fail_abandoned(cooldown):
        logger.warning("sync %s failed: its workers went away again and again", sync_id)
        publish(SyncFinished(sync_id))
    if lost := take_back_lost_messages(resend_after):
        logger.warning("%s syncs whose message was lost are pending again", lost)
    dispatch_syncs_now()
    for sync_id in ledger.ready_to_finish():
        sending.send(finalize_sync, sync_id, priority=FINALIZE_PRIORITY)
    # A character's bucket is made anew when its list is read again; nobody reads that of a pilot who left.
    runtime.limiter().forget_idle(CHAR_KILLMAIL)
    if names_wanted():
        sending.send(resolve_names)
    if prices.wanted():
        sending.send(refresh_prices)
    dispatch_now()
    if stale_names.is_due():
        sending.send(refresh_names)
    # Last: it may take a while where there are many rows, and nothing waits for it.
    row_counts.recount_if_due()
