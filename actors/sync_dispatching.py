"""Syncs become messages: as many lists as can be read in the next two seconds, interactive ones first.

`dispatch_syncs_now` sends nothing while a gate keeps lists back, and plans one wake-up for the time at which it opens.
Background lists get a tenth of the requests and threads while interactive killmails can be fetched. Which sync is next
is decided by `ledger/sync_window.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import dramatiq

import ledger
import runtime
import settings
from actors import counts, sending
from actors.dispatching import FARTHEST_WAKE, window
from actors.expired import DISPATCH_MAX_AGE
from actors.middleware import THIS_ADDRESS
from actors.queues import MAINTENANCE, SECOND, SYNCS
from actors.sync_starts import NO_OWNER, SyncStarts
from database import from_epoch, utcnow
from esi import rate_store, refresh_slots, sso_gate
from esi.limiter import SPACING, Allowance
from esi.rate_limit import CHAR_KILLMAIL, KILLMAIL
from events import WaitsChanged, publish
from ledger import waits
from ledger.rules import INTERACTIVE_PRIORITY, SYNC_RESEND_AFTER
from ledger.sync_window import SHARE

logger = logging.getLogger(__name__)

#: How soon to look again: while interactive killmails go first, whether they are done; while the login service is
#: closed, whether one of the next syncs can be read without it.
LOOK_AGAIN = timedelta(seconds=1)
#: While the background's slots for refreshes are taken, how soon to look for a free one: a refresh takes about as long.
SLOTS_TAKEN = timedelta(seconds=0.3)
#: Syncs sent for each free slot while others are taken: what finds none goes back (`actors/sync_starts.py`).
SYNCS_PER_SLOT = 4


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=SECOND,
    max_retries=0,  # the tick does the same every minute anyway
    time_limit=60_000,  # some ten statements; beyond a minute the database is stuck, and the next tick is due
    max_age=DISPATCH_MAX_AGE,
)
def dispatch_syncs() -> None:
    """For waits that end and gates that open."""
    dispatch_syncs_now()


def dispatch_syncs_now(lowest: int = 0) -> bool:
    """Send the syncs that may be read now, of priority `lowest` or higher, and plan the next look.

    False: the broker did not take them all, and the tick sends them.
    """
    lists = runtime.limiter().allowance(CHAR_KILLMAIL, NO_OWNER, background=False)
    if lists.requests <= 0:
        if lists.reopens_at is not None and ledger.has_pending_sync():
            opens_at = from_epoch(lists.reopens_at)
            _tell_wait(waits.LISTS, waits.Wait(opens_at, lists.reason or "ESI"))
            wake_syncs_for(opens_at)
        wake_syncs_for(ledger.next_sync_wait())
        return True
    refreshes, sso_wait = _login_service()
    if waits.end([waits.LISTS] if sso_wait else [waits.LISTS, waits.REFRESHES]):
        publish(WaitsChanged())
    if lists.probe and _status_goes_first():
        return True
    fetching = killmails_first()
    interval = timedelta(seconds=SHARE * SPACING / settings.current().esi_requests_per_second)
    free = refresh_slots.count_free(interactive=False)
    room = ledger.SyncRoom(window(), lowest, lists.probe, refreshes, fetching, interval)
    chosen = ledger.choose_syncs(_with_slots(room, free))
    sent = _send(chosen)
    wakes = [ledger.next_sync_wait()]
    if sso_wait is not None and ledger.has_pending_sync():
        _tell_wait(waits.REFRESHES, sso_wait)
        wakes.append(sso_wait.until)
        if ledger.more_to_look_at():
            wakes.append(utcnow() + LOOK_AGAIN)
    if fetching is not None and ledger.has_pending_sync(highest=INTERACTIVE_PRIORITY - 1):
        wakes.append(min(ledger.next_share(), utcnow() + LOOK_AGAIN))
    if free < refresh_slots.FOR_BACKGROUND and ledger.has_pending_sync(highest=INTERACTIVE_PRIORITY - 1):
        wakes.append(utcnow() + SLOTS_TAKEN)
    wake_syncs_for(min((at for at in wakes if at is not None), default=None))
    return sent


def _with_slots(room: ledger.SyncRoom, free: int) -> ledger.SyncRoom:
    """The room while only so many slots for refreshes are free to the background: nearly each list needs one."""
    if free == refresh_slots.FOR_BACKGROUND:
        return room
    if free:
        return replace(room, window=min(room.window, SYNCS_PER_SLOT * free))
    return replace(room, lowest=max(room.lowest, INTERACTIVE_PRIORITY))


def _tell_wait(name: str, wait: waits.Wait) -> None:
    """Write down what a class waits for, and tell the viewers if it is news."""
    if waits.note(name, wait.until, wait.reason):
        publish(WaitsChanged())


def _login_service() -> tuple[int | None, waits.Wait | None]:
    """How many syncs may need another access token (None: all), and until when none may, if so, and why.

    Closed, its gate lets none through; when its pause is over, one finds out for all.
    """
    now, gate = rate_store.read_gate(sso_gate.GATE)
    if not gate.failures:
        return None, None
    if gate.closed_until <= now:
        return 1, None
    return 0, waits.Wait(from_epoch(gate.closed_until), gate.reason)


def killmails_first() -> int | None:
    """How many interactive killmails are being fetched, if background lists have to make room for them; else None.

    They have to while an interactive killmail may be requested. Where all of them wait for ESI, its slots are free.
    """
    fetches = ledger.interactive_fetches()
    if not fetches:
        return None
    details: Allowance = runtime.limiter().allowance(
        KILLMAIL, THIS_ADDRESS, background=False, upcoming=ledger.upcoming()
    )
    return fetches.fetching if details.requests > 0 else None


def wake_syncs_for(at: datetime | None) -> None:
    """Send one delayed `dispatch_syncs` for that time, unless one is on its way. Far ahead, the tick is enough."""
    now = utcnow()
    if at is None or at > now + FARTHEST_WAKE:
        return
    at = max(at, now + timedelta(milliseconds=50))
    if not ledger.set_sync_wake(at):
        return
    # A little late on purpose: a wake-up that comes too early finds nothing to send.
    if not sending.send(dispatch_syncs, delay_seconds=(at - now).total_seconds() + 0.05):
        ledger.forget_sync_wake(at)


def take_back_lost_messages(resend_after: timedelta = SYNC_RESEND_AFTER) -> int:
    """Make syncs pending again whose messages were sent long ago and are in the queue no more; returns how many.

    A queue that holds as many messages as are out has lost none: they wait for a free thread.
    """
    before = utcnow() - resend_after
    out, overdue = ledger.overdue_messages(before)
    if not overdue:
        return 0
    try:
        lost = out - counts.messages_in(SYNCS)
    except counts.BrokerUnreachable:
        return 0  # nothing could be sent anyway
    return ledger.take_back_lost(before, lost) if lost > 0 else 0


def lists_until(seconds: float) -> int:
    """How many lists can be read in that time, at the ceiling."""
    return max(1, int(settings.current().esi_requests_per_second / SPACING * seconds))


def _status_goes_first() -> bool:
    """Whether `/status` is asked, and no list is read, to find out if ESI is up."""
    from actors.downtime import ask_whether_up

    if not runtime.limiter().is_status_due() or not ledger.has_pending_sync():
        return False
    return sending.send(ask_whether_up)


def _send(chosen: Sequence[ledger.OutgoingSync]) -> bool:
    """In order. False: the broker refused one. That one and all after it are pending again."""
    from actors.users import sync_user

    refill_at = len(chosen) // 2
    for position, sync in enumerate(chosen):
        options = {SyncStarts.REFILL: True} if position == refill_at else {}
        if not sending.send(sync_user, sync.sync_id, priority=sync.priority, **options):
            ledger.mark_unsent([late.sync_id for late in chosen[position:]])
            return False
    return True
