"""Skip messages that are too old to be worth running.

What an old message meant is in the database, and the tick sends another. So it is acknowledged and forgotten, where
Dramatiq's own AgeLimit fails it: after ten minutes without workers every message would be a dead letter, and none of
them a fault.

How old is too old stands here for all actors, so that it can be compared. A message is dated by its sender's clock and
read by another's: it may seem older than it is by CLOCKS_APART, which is added where the limit is not much longer.
"""

from __future__ import annotations

import logging

import dramatiq
from dramatiq.common import current_millis
from dramatiq.middleware import Middleware, SkipMessage

from clock import CLOCKS_APART

logger = logging.getLogger(__name__)

#: Milliseconds.
_MINUTE = 60_000
_CLOCKS_APART = int(CLOCKS_APART.total_seconds() * 1000)

#: `tend_ledger`, `ask_whether_up`: a newer one, which does the same, has arrived after a minute.
EVERY_MINUTE_MAX_AGE = _MINUTE + _CLOCKS_APART
#: `queue_due_users`: the next look, which finds the same users, is ten minutes away, or SCHEDULE_MINUTES.
LOOK_MAX_AGE = 5 * _MINUTE + _CLOCKS_APART
#: `dispatch`, `dispatch_syncs`: longer than the farthest wake-up is delayed; older ones have been made up for.
DISPATCH_MAX_AGE = 30 * _MINUTE
#: `resolve_names`, `refresh_names`, `refresh_prices`: they carry nothing, and a newer one does the same.
NAMES_MAX_AGE = 30 * _MINUTE
#: `fetch_killmail`: its row went back to pending long ago.
KILLMAIL_MAX_AGE = 30 * _MINUTE
#: `sync_user`, `finalize_sync`: the tick has sent the sync again, or ended it, long ago.
SYNC_MAX_AGE = 60 * _MINUTE
#: Seconds. For periodiq, which looks at the time a message was planned for: a newer one does the same. After an outage
#: of the workers the last few are run one after the other, which does nothing twice.
CRON_MAX_AGE_SECONDS = 50 + _CLOCKS_APART // 1000


class SkipExpired(Middleware):
    """Owns the actor option `max_age`: milliseconds since the message was sent, or None for no limit."""

    @property
    def actor_options(self) -> set[str]:
        return {"max_age"}

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        max_age = broker.get_actor(message.actor_name).options.get("max_age")
        if max_age is None:
            return
        age = current_millis() - message.message_timestamp
        if age > max_age:
            logger.info("%s%s: skipped, it was sent %.0f s ago; the tick sends what is still to be done",
                        message.actor_name, tuple(message.args), age / 1000)  # fmt: skip
            raise SkipMessage("too old")
