"""Asking ESI's `/status` in a downtime, so that no killmail pays for finding out that it is not over."""

from __future__ import annotations

import logging

import dramatiq

import runtime
from actors import sending
from actors.dispatching import dispatch_now
from actors.expired import EVERY_MINUTE_MAX_AGE
from actors.middleware import THIS_ADDRESS
from actors.permits import permit_for
from actors.queues import MAINTENANCE, SECOND
from actors.sync_dispatching import dispatch_syncs_now
from esi.errors import EsiError
from esi.limiter import Closed
from esi.rate_limit import STATUS

logger = logging.getLogger(__name__)


@dramatiq.actor(
    queue_name=MAINTENANCE,
    priority=SECOND,
    max_retries=0,  # the tick asks again when the next pause is over
    time_limit=60_000,  # one request, at ESI's slowest
    max_age=EVERY_MINUTE_MAX_AGE,
)
def ask_whether_up() -> None:
    """For failures in a row, and for a downtime whose pause is over. A failure begins the next pause. After a success
    one pilot's failures are its own; where several pilots failed, lists and then killmails find out, one at a time,
    whether their routes are back: `/status` may answer while those do not."""
    if runtime.limiter().is_status_due():
        try:
            status = runtime.esi().status(permit_for(STATUS, THIS_ADDRESS, background=False))
            logger.info("ESI's status answers, with %s players online", status.players)
        except (Closed, EsiError) as error:
            logger.debug("still down: %s", error)
    dispatch_syncs_now()
    dispatch_now()


def ask_if_due() -> None:
    """Send the question, where a failure has just made it due."""
    if runtime.limiter().is_status_due():
        sending.send(ask_whether_up)
