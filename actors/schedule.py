"""What happens by the clock: users who are due, and the repair of whatever was left behind.

periodiq sends both actors; firing twice, or in two schedulers at once, does nothing twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import dramatiq
from periodiq import cron

import accounts
import database
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
from actors.expired import EVERY_MINUTE_MAX_AGE, LOOK_MAX_AGE
from actors.middleware import discard_connection
from actors.name_refresh import refresh_names
from actors.names import names_wanted, resolve_names
from actors.prices import refresh_prices
from actors.queues import FIRST, MAINTENANCE, SECOND
from actors.sync_dispatching import dispatch_syncs_now, lists_until, take_back_lost_messages
from actors.syncs import FINALIZE_PRIORITY, finalize_sync
from esi.rate_limit import CHAR_KILLMAIL
from events import SyncFinished, publish
from ledger import recent_unlinks, without_links
from ledger.rules import SYNC_RESEND_AFTER

logger = logging.getLogger(__name__)

#: Users whose syncs are opened in one statement.
BATCH = 1_000


class TickFailed(Exception):
    """Steps of a tick failed. The text names them; it was logged, and the other steps have run."""


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=SECOND,
    max_retries=0,  # the next look is SCHEDULE_MINUTES away and finds the same users
    time_limit=5 * 60_000,  # 170,000 users at most, an hour's lists, in as many statements of BATCH
    max_age=LOOK_MAX_AGE,
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
    throws=(TickFailed,),  # it was logged; the message becomes a dead letter, which `scripts/check_queue.py` counts
    time_limit=5 * 60_000,  # a backlog of leases after an outage, in batches
    max_age=EVERY_MINUTE_MAX_AGE,
    periodic=cron("* * * * *"),
)
def tend_ledger() -> None:
    """Repair what a lost message or a dead process left. Idempotent throughout."""
    try:
        tend()
    except TickFailed:
        discard_connection()  # it may be what failed
        raise


def tend(resend_after: timedelta = SYNC_RESEND_AFTER) -> None:
    """One look at everything that may have been left behind.

    Raises TickFailed after the last step, if any of them failed: none keeps the others from running.
    """
    failed: dict[str, str] = {}
    try:
        for name, step in _steps(resend_after):
            try:
                step()
            except database.UNAVAILABLE_ERRORS as error:
                failed[name] = str(error).partition("\n")[0]
            except Exception as error:
                logger.exception("the tick's step %r failed", name)
                failed[name] = type(error).__name__
    finally:  # also where the time limit ends the tick
        if failed:
            logger.error("the tick failed at %s; every other step runs, and the next tick tries again", _text(failed))
    if failed:
        raise TickFailed(_text(failed))


def _text(failed: dict[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in failed.items())


def _steps(resend_after: timedelta) -> list[tuple[str, Callable[[], object]]]:
    """By name, in order: first what syncs and killmails wait for, then what may take a while and can wait."""
    cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
    return [
        ("expired killmails", _take_back_expired),
        ("abandoned syncs", lambda: _fail_abandoned(cooldown)),
        ("lost messages", lambda: _take_back_lost_messages(resend_after)),
        ("dispatch of syncs", dispatch_syncs_now),
        ("complete syncs", _send_finalize),
        ("dispatch of killmails", dispatch_now),
        ("implausible deadlines", lambda: deadlines.expire_implausible_deadlines(cooldown)),
        ("rechecks of refused logins", tokens.start_due_rechecks),
        # A character's bucket is made again when its list is read; a pilot who left has none that is.
        ("idle buckets", lambda: runtime.limiter().forget_idle(CHAR_KILLMAIL)),
        ("unknown names", lambda: _send_if(names_wanted, resolve_names)),
        ("prices", lambda: _send_if(prices.wanted, refresh_prices)),
        ("stale names", lambda: _send_if(stale_names.is_due, refresh_names)),
        ("recent unlinks", recent_unlinks.sweep),
        ("former owners", _forget_former_owners),
        ("killmails without a link", without_links.sweep),
        ("row counts", row_counts.recount_if_due),
    ]


def _take_back_expired() -> None:
    if taken_back := ledger.take_back_expired():
        logger.warning("%s killmails whose message or worker went away are pending again", taken_back)


def _fail_abandoned(cooldown: timedelta) -> None:
    for sync_id in ledger.fail_abandoned(cooldown):
        logger.warning("sync %s failed: its workers went away again and again", sync_id)
        publish(SyncFinished(sync_id))


def _take_back_lost_messages(resend_after: timedelta) -> None:
    if lost := take_back_lost_messages(resend_after):
        logger.warning("%s syncs whose message was lost are pending again", lost)


def _send_finalize() -> None:
    for sync_id in ledger.ready_to_finish():
        sending.send(finalize_sync, sync_id, priority=FINALIZE_PRIORITY)


def _send_if(is_wanted: Callable[[], bool], actor: dramatiq.Actor[[], None]) -> None:
    if is_wanted():
        sending.send(actor)


def _forget_former_owners() -> None:
    if deleted := accounts.forget_former_owners():
        logger.info("deleted the data of %s former owners of characters that were sold 30 days ago", deleted)
