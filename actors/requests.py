"""Ask for a sync: the one door for login, dashboard and scripts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta

import ledger
import settings
from actors import sending
from actors.dispatching import dispatch
from actors.sync_dispatching import dispatch_syncs_now
from database import UNAVAILABLE_ERRORS, utcnow
from events import SyncChanged, publish
from models import Trigger

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What came of it, in words for the pilot. `queued` is false where nothing will happen now.

    `sent` is false where the broker took no message, or was given none: the tick sends it.
    """

    sync_id: int | None
    queued: bool
    message: str
    opened: ledger.Opened
    sent: bool = True


def request_sync(
    user_id: int, trigger: Trigger, *, full: bool = False, force: bool = False, may_send: bool = True
) -> SyncRequest:
    """Open the user's sync and send what may be read now. A broker that is down delays the sync and fails nothing.

    Where an active sync was raised while it fetches, a `dispatch` looks what of it may be fetched now.

    `may_send=False`: this process has no broker (a script beside an embedded system); the tick sends the message.
    """
    cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
    opened = ledger.open_sync(user_id, trigger, cooldown=cooldown, full=full, force=force)
    sent = may_send
    if opened.send and opened.sync_id is not None and may_send:
        sent = _send(opened.sync_id, opened.priority)
    if opened.dispatch and may_send:
        sent = sending.send(dispatch) and sent
    if opened.sync_id is not None and may_send:
        publish(SyncChanged(opened.sync_id))
    queued = opened.outcome in (ledger.Outcome.CREATED, ledger.Outcome.JOINED)
    return SyncRequest(opened.sync_id, queued, _message(opened, utcnow(), full=full), opened, sent)


def _send(sync_id: int, priority: int) -> bool:
    """False where the tick has to send it. The row is written: what goes wrong here delays it, and fails nothing."""
    try:
        # Of this priority or higher: a login does not send background work along.
        return dispatch_syncs_now(priority)
    except UNAVAILABLE_ERRORS as error:
        logger.warning("sync %s not sent now, the tick sends it: %s", sync_id, type(error).__name__)
        return False


def _message(opened: ledger.Opened, now: datetime, *, full: bool) -> str:
    match opened.outcome:
        case ledger.Outcome.CREATED:
            return "Full sync queued." if opened.full else "Sync queued."
        case ledger.Outcome.JOINED:
            return "A sync is already under way" + (", and it or the next one is a full one." if full else ".")
        case ledger.Outcome.COOLDOWN if opened.last_synced_at and opened.cooldown_ends_at:
            ago = minutes(now - opened.last_synced_at)
            ends = opened.cooldown_ends_at
            return (
                f"Last synced {ago} ago. The next sync is possible in {minutes(ends - now)}, at {ends:%H:%M} EVE time."
            )
        case _:
            return "This character cannot be synced until its pilot logs in again."


def minutes(span: timedelta) -> str:
    """`1 minute`, `12 minutes`: whole minutes, at least one once there is any time at all."""
    count = max(1, round(span.total_seconds() / 60))
    return f"{count} minute{'' if count == 1 else 's'}"
