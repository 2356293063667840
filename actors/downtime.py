"""Asking ESI's `/status` in a downtime, so that no killmail pays for finding out that it is not over."""

from __future__ import annotations

import logging

import dramatiq

import runtime
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
    """For a downtime whose pause is over. A failure begins the next pause; after a success the next killmail or list
    finds out whether its own route is back: `/status` may answer while those do not."""
    if runtime.limiter().is_status_due():
        try:
            status = runtime.esi().status(permit_for(STATUS, THIS_ADDRESS, background=False))
            logger.info("ESI's status answers, with %s players online", status.players)
        except (Closed, EsiError) as error:
            logger.debug("still down: %s", error)
    dispatch_now()
    dispatch_syncs_now()
