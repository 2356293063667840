"""Skip messages that are too old to be worth running.

What an old message meant is in the database, and the tick sends another. So it is acknowledged and forgotten, where
Dramatiq's own AgeLimit fails it: after ten minutes without workers every message would be a dead letter, and none of
them a fault.

How old is too old stands here for all actors, so that it can be compared. Messages are dated and read by the database's
clock. Where CLOCKS_APART is added, it is for a database whose clock was set, and for messages of versions before that,
which are dated by their sender's clock.
"""

from __future__ import annotations

import logging
from typing import Any

import dramatiq
from dramatiq.common import current_millis
from dramatiq.middleware import Middleware, SkipMessage
from peewee import PeeweeException

from clock import CLOCKS_APART
from database import clock, keep_connected

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

#: The message option with the time of sending, in milliseconds by the database's clock.
SENT_AT = "sent_at"


class SkipExpired(Middleware):
    """Owns the actor option `max_age`: milliseconds since the message was sent, or None for no limit.

    The invariant: no machine's own clock, however wrong, makes every message seem too old.
    """

    @property
    def actor_options(self) -> set[str]:
        return {"max_age"}

    def before_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int) -> None:
        """Date the message. One that waited first, or is sent once more by Dramatiq, keeps its date."""
        if "scheduled_at" in message.options:
            _observe_clock()
        message.options.setdefault(SENT_AT, _now_ms())

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        max_age = broker.get_actor(message.actor_name).options.get("max_age")
        if max_age is None:
            return
        age = _age_ms(message)
        if age > max_age:
            logger.info("%s%s: skipped, it was sent %.0f s ago; the tick sends what is still to be done",
                        message.actor_name, tuple(message.args), age / 1000)  # fmt: skip
            raise SkipMessage("too old")


def _age_ms(message: dramatiq.MessageProxy) -> int:
    sent_at = message.options.get(SENT_AT)
    if type(sent_at) is int:
        return _now_ms() - sent_at
    return current_millis() - message.message_timestamp


def _now_ms() -> int:
    return int(clock.now() * 1000)


def _observe_clock() -> None:
    """For periodiq's process, which runs no other statement that would show it the database's clock."""
    try:
        keep_connected()
    except PeeweeException as error:
        logger.warning("the database's clock is not seen: %s", str(error).partition("\n")[0][:200])
