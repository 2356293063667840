"""Asking ESI's `/status` in a downtime, so that no killmail pays for finding out that it is not over."""

from __future__ import annotations

import logging

import runtime
from actors.middleware import THIS_ADDRESS
from actors.permits import permit_for
from esi.errors import EsiError
from esi.limiter import Closed
from esi.rate_limit import STATUS

logger = logging.getLogger(__name__)


def ask_whether_up() -> None:
    """Once ESI was found down and the pause is over. A failure begins the next pause; after a success the next killmail
    or list finds out whether its own route is back: `/status` may answer while those do not."""
    if not runtime.limiter().is_down():
        return
    try:
        status = runtime.esi().status(permit_for(STATUS, THIS_ADDRESS, background=False))
    except (Closed, EsiError) as error:
        logger.debug("still down: %s", error)
        return
    logger.info("ESI's status answers, with %s players online", status.players)
