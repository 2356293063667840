"""`refresh_prices`: ESI's market prices, at most once an hour and only when somebody looked at a value.

It needs no argument and may be sent any number of times: `prices.py` says whether it is wanted, and to one of them.
"""

from __future__ import annotations

import logging

import dramatiq

import prices
import runtime
from actors.expired import NAMES_MAX_AGE
from actors.middleware import THIS_ADDRESS
from actors.permits import permit_for
from actors.queues import LAST, NAMES
from esi.errors import EsiError
from esi.limiter import Closed
from esi.rate_limit import UNBUCKETED

logger = logging.getLogger(__name__)


@dramatiq.actor(
    queue_name=NAMES,
    priority=LAST,
    max_retries=0,  # the tick sends it again while prices are wanted
    time_limit=5 * 60_000,  # one request, and some 15,000 rows on a busy machine
    max_age=NAMES_MAX_AGE,
)
def refresh_prices() -> None:
    """Fetch the list if it is wanted."""
    if not prices.claim():
        return
    try:
        permit = permit_for(UNBUCKETED, THIS_ADDRESS, background=True)
        found = runtime.esi().market_prices(permit)
    except (Closed, EsiError) as error:
        logger.info("prices wait: %s", error)
        return
    prices.save(found.by_type)
    logger.info("market prices of %s types", len(found.by_type))
    if found.unreadable:
        logger.warning("market prices: skipped %s malformed entries", found.unreadable)
