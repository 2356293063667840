"""Before `sync_user` runs: whether its list may be read now at all, and afterwards the next syncs.

A message that meets a closed gate (the login service's too, where the sync needs another access token), or a background
one that meets a login's killmails, is skipped and its sync is pending again: nothing was claimed, no token was
refreshed, and nothing is logged or published for it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import dramatiq
import peewee
from dramatiq.middleware import Middleware, SkipMessage

import ledger
import runtime
from actors.middleware import discard_connection
from database import from_epoch, keep_connected, utcnow
from esi import refresh_slots, sso_gate
from esi.rate_limit import CHAR_KILLMAIL
from killmails import INT64_MAX
from ledger.rules import INTERACTIVE_PRIORITY

logger = logging.getLogger(__name__)

#: Stands for any character where only gates matter, and no character's bucket.
NO_OWNER = "any"


class SyncStarts(Middleware):
    """Lets `sync_user` run only where its list may be read now; sends the next syncs where the window is half drained.

    A background sync that is sent as background's share goes at an interactive priority, and is not held back.
    """

    #: Message option: the window is half empty when this message ends; send more.
    REFILL = "refill_syncs"
    ACTOR = "sync_user"

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        if message.actor_name != self.ACTOR or not _is_sync_id(message.args):
            return
        from actors.sync_dispatching import wake_syncs_for

        try:
            look_again = self._held_back_until(message)
            if look_again is None:
                return
            ledger.mark_unsent([message.args[0]])
            wake_syncs_for(look_again)
        except peewee.PeeweeException as error:
            # What a hook raises is ignored: the actor runs, and it knows what to do without a database.
            logger.warning("sync %s: gates not checked: %s", message.args[0], type(error).__name__)
            return
        raise SkipMessage("not now")

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        self._refill(message)

    def after_skip_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._refill(message)

    def _held_back_until(self, message: dramatiq.MessageProxy) -> datetime | None:
        """When to look again whether this list may be read; None: it may be read now."""
        from actors.sync_dispatching import LOOK_AGAIN, SLOTS_TAKEN, killmails_first

        lists = runtime.limiter().allowance(CHAR_KILLMAIL, NO_OWNER, background=False)
        if lists.requests <= 0 and lists.reopens_at is not None:
            return from_epoch(lists.reopens_at)
        closed = sso_gate.closure()
        if closed is not None and ledger.needing_refresh([message.args[0]]):
            return utcnow() + timedelta(seconds=closed.wait)
        priority = message.options.get("broker_priority", INTERACTIVE_PRIORITY)
        if priority >= INTERACTIVE_PRIORITY:
            return None
        if not refresh_slots.any_free(interactive=False) and ledger.needing_refresh([message.args[0]]):
            return utcnow() + SLOTS_TAKEN
        return None if killmails_first() is None else utcnow() + LOOK_AGAIN

    def _refill(self, message: dramatiq.MessageProxy) -> None:
        if message.actor_name != self.ACTOR or not message.options.get(self.REFILL):
            return
        from actors.dispatching import dispatch_now
        from actors.sync_dispatching import dispatch_syncs_now

        try:
            keep_connected()
            dispatch_syncs_now()
            if runtime.limiter().is_down():
                dispatch_now()  # where no list is left to find out whether ESI is up, a killmail is
        except peewee.PeeweeException as error:
            logger.warning("dispatch of syncs left to the tick: %s", type(error).__name__)
            discard_connection()


def _is_sync_id(args: Any) -> bool:
    """Another shape is the actor's to refuse."""
    return len(args) == 1 and type(args[0]) is int and 0 < args[0] <= INT64_MAX
