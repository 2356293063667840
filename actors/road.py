"""The road for what can wait: names, and whatever else a page may lack for a while.

The invariant: whoever ends a run early knows when to come back. Who has to wait is written down by the caller.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from actors.middleware import THIS_ADDRESS, stopping
from actors.permits import permit_for
from database import from_epoch, utcnow
from esi.errors import EsiError, EsiTransport
from esi.limiter import Closed, RequestPermit
from esi.rate_limit import UNBUCKETED

logger = logging.getLogger(__name__)

#: After a failure; and the longest anybody waits for a closed road without looking again.
PAUSE = timedelta(minutes=2)


class Road:
    """Permission for the requests of one run. Once it was refused, the run is at its end.

    `reopens_at`: when to come back, naive UTC; None while nothing was refused. `handed_over`: at once, because only
    this worker stops; another one goes on.
    """

    def __init__(self) -> None:
        self.reopens_at: datetime | None = None
        self.handed_over = False

    def acquire(self) -> RequestPermit | None:
        """None where the run is at its end: what is found by then is kept."""
        if self.reopens_at is not None:
            return None
        if stopping():
            self.reopens_at, self.handed_over = utcnow(), True
            return None
        try:
            return permit_for(UNBUCKETED, THIS_ADDRESS, background=True)
        except Closed as closed:
            logger.info("names wait: %s", closed)
            self.reopens_at = min(from_epoch(closed.until), utcnow() + PAUSE)
        except EsiTransport as error:
            self.fail(error)
        return None

    def fail(self, error: EsiError) -> None:
        """A request failed: whatever asks next would perhaps fail, too, and errors are counted."""
        logger.info("names wait: %s", error)
        self.reopens_at = utcnow() + PAUSE
