"""Ledger rows become messages: as many as ESI allows now, a few seconds' work at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import dramatiq

import ledger
import runtime
import settings
from actors import sending
from actors.expired import DISPATCH_MAX_AGE
from actors.middleware import THIS_ADDRESS, FetchClaims
from actors.queues import MAINTENANCE, SECOND
from database import from_epoch, utcnow
from esi import downtime
from esi.limiter import HORIZON_SECONDS, SPACING, Allowance
from esi.rate_limit import KILLMAIL
from events import WaitsChanged, publish
from ledger import waits

logger = logging.getLogger(__name__)

#: A wake-up further ahead than this is left to the tick.
FARTHEST_WAKE = timedelta(minutes=20)
#: What a sync waits for when ESI is likely to refuse every killmail that it still wants.
REFUSED = "ESI refuses some of these killmails; what is left is requested slowly"
#: In embedded mode no more is out than the threads can hold: what they have in hand cannot be overtaken.
EMBEDDED_THREADS = 8


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=SECOND,
    max_retries=0,  # the tick does the same every minute anyway
    time_limit=60_000,  # some ten statements; beyond a minute the database is stuck, and the next tick is due
    max_age=DISPATCH_MAX_AGE,
)
def dispatch() -> None:
    """For gates that open and leases that end."""
    ledger.take_back_expired()
    dispatch_now()


def dispatch_now() -> int:
    """Send what may be fetched now, and see to it that somebody looks again when more may go; returns how many."""
    limiter = runtime.limiter()
    upcoming = ledger.upcoming()
    interactive = limiter.allowance(KILLMAIL, THIS_ADDRESS, background=False, upcoming=upcoming)
    background = limiter.allowance(KILLMAIL, THIS_ADDRESS, background=True, upcoming=upcoming)
    if (interactive.probe or interactive.requests <= 0) and _status_goes_first():
        return 0
    failing = downtime.failing_pilots() if interactive.probe else []
    allowed = ledger.Allowed(
        interactive.requests, background.requests, probe=interactive.probe,
        doubtful=interactive.doubtful, behind=interactive.behind,
        # A list is the better probe: it may be a pilot's who waits for it.
        failing=failing, others_only=bool(failing) and ledger.any_sync_to_read(),
    )  # fmt: skip
    outgoing = ledger.dispatch(allowed, window())
    sent = _send(outgoing)
    wakes = _tell_waits(
        {
            waits.INTERACTIVE: _blocked_until(interactive, interactive=True),
            waits.BACKGROUND: _blocked_until(background, interactive=False),
            waits.DOUBTFUL: _doubtful_blocked_until(interactive),
        }
    )
    wake_for(min((at for at in [*wakes, ledger.next_due()] if at is not None), default=None))
    return sent


def _status_goes_first() -> bool:
    """Whether `/status` is asked, and no killmail sent, to find out if ESI is up; who asks dispatches then."""
    from actors.downtime import ask_whether_up

    anything = ledger.has_pending(interactive=True) or ledger.has_pending(interactive=False)
    return anything and runtime.limiter().is_status_due() and sending.send(ask_whether_up)


def wake_for(at: datetime | None) -> None:
    """Send one delayed `dispatch` for that time, unless one is on its way."""
    now = utcnow()
    if at is None or at > now + FARTHEST_WAKE:
        return
    at = max(at, now + timedelta(milliseconds=50))
    if not ledger.set_wake(at):
        return
    # A little late on purpose: a wake-up that finds the road still closed is followed by none.
    if not sending.send(dispatch, delay_seconds=(at - now).total_seconds() + 0.05):
        ledger.forget_wake(at)


def window() -> int:
    """Messages that may be out at a time: what gets a slot if all of them ask at once, some two seconds of work.

    Enough to keep workers busy, little enough to be overtaken; one more would be sent only to be sent back.
    """
    config = settings.current()
    slots = max(1, math.floor(config.esi_requests_per_second * HORIZON_SECONDS / SPACING))
    return min(slots, EMBEDDED_THREADS) if config.embedded else slots


def _send(outgoing: Sequence[ledger.Outgoing]) -> int:
    """In order. The first that the broker refuses and all after it go back to pending."""
    from actors.killmails import fetch_killmail

    refill_at = len(outgoing) // 2
    for position, row in enumerate(outgoing):
        options = {FetchClaims.REFILL: True} if position == refill_at else {}
        if not sending.send(fetch_killmail, row.killmail_id, priority=row.priority, **options):
            ledger.give_back([late.killmail_id for late in outgoing[position:]])
            return position
    return len(outgoing)


def _blocked_until(allowance: Allowance, *, interactive: bool) -> waits.Wait | None:
    """When a class that has work and no allowance may go on, and why it waits."""
    if allowance.requests > 0 or allowance.reopens_at is None or not ledger.has_pending(interactive=interactive):
        return None
    return waits.Wait(from_epoch(allowance.reopens_at), allowance.reason or "ESI")


def _tell_waits(blocked: dict[str, waits.Wait | None]) -> list[datetime | None]:
    """Write down what each class waits for, and tell the viewers if it is news; returns until when."""
    changed = waits.end([name for name, wait in blocked.items() if wait is None])
    for name, wait in blocked.items():
        changed |= wait is not None and waits.note(name, wait.until, wait.reason)
    if changed:
        publish(WaitsChanged())
    return [None if wait is None else wait.until for wait in blocked.values()]


def _doubtful_blocked_until(interactive: Allowance) -> waits.Wait | None:
    """When killmails that ESI is likely to refuse may be requested again, if not now and any killmail is left."""
    if interactive.behind_at is None:
        return None
    anything = ledger.has_pending(interactive=True) or ledger.has_pending(interactive=False)
    return waits.Wait(from_epoch(interactive.behind_at), REFUSED) if anything else None
