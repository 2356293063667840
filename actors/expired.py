"""Skip messages that are too old to be worth running.

What an old message meant is in the database, and the tick sends another. So it is acknowledged and forgotten, where
Dramatiq's own AgeLimit fails it: after ten minutes without workers every message would be a dead letter, and none of
them a fault.
"""

from __future__ import annotations

import logging

import dramatiq
from dramatiq.common import current_millis
from dramatiq.middleware import Middleware, SkipMessage

logger = logging.getLogger(__name__)


class SkipExpired(Middleware):
    """Owns the actor option `max_age`: milliseconds since the message was sent, or None for no limit.

    A message is dated by its sender's clock, so an actor's `max_age` allows for CLOCKS_APART where that matters.
    """

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
