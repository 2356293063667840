"""Around every message: a database connection; in front of `fetch_killmail`: its claim and its slot.

`FetchClaims` is the rate-limit middleware. It owns the actor option `rate_limit_group`. A message whose row cannot be
claimed is skipped at the price of one statement and no slot. Where the road is closed, the row goes back to pending
and the message is skipped: nothing sleeps for long, and no message is delayed or sent twice.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dramatiq
import peewee
from dramatiq.middleware import Middleware, SkipMessage

import ledger
import migrations
from actors.permits import permit_for
from actors.queues import KILLMAILS, MAINTENANCE, MAINTENANCE_PRIORITY, NAMES, NAMES_PRIORITY
from database import UNAVAILABLE_ERRORS, add_connections, clock, db, from_epoch, keep_connected, utcnow
from esi import downtime
from esi.errors import EsiTransport
from esi.limiter import Closed, RequestPermit
from esi.rate_limit import Doubt, RateGroup
from esi.rate_store import SLOTS
from killmails import INT64_MAX
from ledger.rules import INTERACTIVE_PRIORITY
from logs import without_secrets

logger = logging.getLogger(__name__)

#: How often a worker process looks whether its master is still there.
MASTER_WATCH_SECONDS = 1.0
#: The owner of buckets that ESI keeps per source address: one for all users and workers.
THIS_ADDRESS = "ip"


class Connections(Middleware):
    """Each worker thread keeps one database connection, and drops it when it breaks.

    Where the schema could not be checked when the process started, it is before the first message; as long as it does
    not fit the code, messages are dropped: what they meant is written down.
    """

    def __init__(self, *, schema_checked: bool = True) -> None:
        self._schema_checked = schema_checked
        self._schema_error: str | None = None
        self._lock = threading.Lock()

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        try:
            if not self._schema_checked:
                self._check_schema()
            keep_connected()
        except peewee.PeeweeException as error:
            logger.warning("database unreachable, %s dropped: %s", message.actor_name, _first_line(error))
            raise SkipMessage from error

    def _check_schema(self) -> None:
        """One thread for all, and one line for each thing that is wrong. Raises SkipMessage and PeeweeException."""
        with self._lock:
            if self._schema_checked:
                return
            try:
                migrations.check()
            except migrations.SchemaError as error:
                if str(error) != self._schema_error:
                    self._schema_error = str(error)
                    logger.error("messages are dropped until this is done: %s", error)
                raise SkipMessage("the schema does not fit the code") from error
            self._schema_checked = True

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        if isinstance(exception, UNAVAILABLE_ERRORS):
            discard_connection()

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        add_connections(worker.worker_threads)

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        add_connections(-worker.worker_threads)

    def before_worker_thread_shutdown(self, broker: dramatiq.Broker, thread: Any) -> None:
        if not db.is_closed():
            db.close()


class Stopping(Middleware):
    """Long actors look here between two steps, and hand back what they hold: a worker that is told to stop waits for
    them, and whoever told it does not wait for ever."""

    def __init__(self) -> None:
        self._told = threading.Event()

    @property
    def told(self) -> bool:
        return self._told.is_set()

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self._told.set()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: Any) -> None:
        self._told.clear()  # a process may start another worker: embedded mode in tests


def stopping() -> bool:
    """Whether the worker that this actor runs in is told to stop."""
    return any(isinstance(each, Stopping) and each.told for each in dramatiq.get_broker().middleware)


class EndsWithMaster(Middleware):
    """A worker process whose master was killed stops as on SIGTERM: others have been started by then."""

    def after_process_boot(self, broker: dramatiq.Broker) -> None:
        threading.Thread(target=_end_with, args=(os.getppid(),), name="master-watch", daemon=True).start()


def _end_with(master: int) -> None:
    while os.getppid() == master:
        time.sleep(MASTER_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


class NoSecretsInMessages(Middleware):
    """Dramatiq sends the traceback along when it tries again; PostgreSQL's errors quote the row they refused."""

    def before_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int) -> None:
        traceback = message.options.get("traceback")
        if isinstance(traceback, str):
            message.options["traceback"] = without_secrets(traceback)


class DefaultPriority(Middleware):
    """Gives messages without one their queue's priority: periodiq sends none."""

    PRIORITIES = {NAMES: NAMES_PRIORITY, MAINTENANCE: MAINTENANCE_PRIORITY}

    def before_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int) -> None:
        priority = self.PRIORITIES.get(message.queue_name.removesuffix(".DQ"))
        if priority is not None:
            message.options.setdefault("broker_priority", priority)


@dataclass(frozen=True, slots=True)
class Held:
    """What this thread may do now: one request for one killmail."""

    claim: ledger.Claim
    permit: RequestPermit


class FetchClaims(Middleware):
    """Claims the ledger row, sees to the connection, reserves the request, then lets the actor run; cleans up
    whatever happens."""

    #: Message option: the window is half empty when this one is taken up; dispatch more.
    REFILL = "refill"

    def __init__(self) -> None:
        self._thread = threading.local()
        self._slow_pilots = downtime.SlowPilots()

    @property
    def actor_options(self) -> set[str]:
        return {"rate_limit_group"}

    def held(self) -> Held:
        """The claim of this thread. Raises RuntimeError outside a claimed message."""
        held = getattr(self._thread, "held", None)
        if held is None:
            raise RuntimeError("fetch_killmail runs only on messages that FetchClaims let through")
        return held  # type: ignore[no-any-return]

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._thread.held = None
        if message.queue_name != KILLMAILS:
            return
        group = broker.get_actor(message.actor_name).options.get("rate_limit_group")
        if group is None:
            return
        try:
            self._thread.held = self._take(message, group)
        except SkipMessage:
            raise
        except Exception as error:
            # Dramatiq logs and ignores what a hook raises, and the actor would run without its claim.
            logger.warning(
                "killmail %s left to the tick: %s: %s", message.args, type(error).__name__, _first_line(error)
            )
            if isinstance(error, peewee.PeeweeException):
                discard_connection()
            raise SkipMessage from error

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: Any = None,
        exception: BaseException | None = None,
    ) -> None:
        held = getattr(self._thread, "held", None)
        if held is None:
            return
        self._thread.held = None
        if exception is not None:
            self._put_off(held.claim, exception)
        self._refill(message)

    def after_skip_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._thread.held = None
        self._refill(message)

    def _take(self, message: dramatiq.MessageProxy, group: RateGroup) -> Held:
        killmail_id = _killmail_id(message)
        claim = ledger.claim(killmail_id)
        if claim is None:
            if getattr(message, "redelivered", False):
                self._wait_for_lease(killmail_id)
            raise SkipMessage("nothing to fetch")
        if not claim.slow and self._slow_pilots.includes(claim.character_id, clock.now()):
            # Its pilot's killmails may hold every thread: the dispatcher sends a few of them at a time.
            ledger.put_with_slow(claim)
            self._look_soon(message)
            raise SkipMessage("behind the others")
        try:
            background = claim.priority < INTERACTIVE_PRIORITY
            permit = permit_for(
                group,
                THIS_ADDRESS,
                background=background,
                failed_before=claim.attempts > 0,
                subject=claim.character_id,
                doubt=_doubt_about(claim),
            )
        except Closed as closed:
            ledger.release(claim)
            self._look_again(message, closed)
            raise SkipMessage(closed.reason) from closed
        except EsiTransport as error:
            self._take_failure(claim, error)
            raise SkipMessage("no connection") from error
        except BaseException:
            ledger.release(claim)
            raise
        return Held(claim, permit)

    def _wait_for_lease(self, killmail_id: int) -> None:
        """RabbitMQ gives a killed worker's messages to others at once; what it held is free when its lease runs out."""
        from actors.dispatching import wake_for

        wake_for(ledger.lease_ends(killmail_id))

    def _look_again(self, message: dramatiq.MessageProxy, closed: Closed) -> None:
        """See to it that somebody dispatches once the road is open."""
        if closed.road != SLOTS:
            message.options[self.REFILL] = True  # the dispatcher will see the closed road and say until when
            return
        # The dispatcher knows nothing of slots: asked now, it would send the same killmail round and round.
        self._wake_for(message, from_epoch(closed.until))

    def _look_soon(self, message: dramatiq.MessageProxy) -> None:
        """One dispatch for all that were put back at once."""
        self._wake_for(message, utcnow())

    def _wake_for(self, message: dramatiq.MessageProxy, at: datetime) -> None:
        from actors.dispatching import wake_for

        message.options.pop(self.REFILL, None)
        wake_for(at)

    def _take_failure(self, claim: ledger.Claim, error: EsiTransport) -> None:
        """No connection to ESI: the row is tried again like after a request that was not answered."""
        from actors.dispatching import wake_for
        from actors.syncs import finish_if_complete

        logger.info("killmail %s failed (%s of its tries): %s", claim.killmail_id, claim.attempts + 1, error)
        finish_if_complete(ledger.defer(claim, str(error)))
        wake_for(ledger.next_due())

    def _put_off(self, claim: ledger.Claim, exception: BaseException) -> None:
        """An actor ended in an exception it does not know: the row is tried again like after any other failure."""
        from actors.syncs import finish_if_complete

        try:
            keep_connected()
            finish_if_complete(ledger.defer(claim, f"internal error: {type(exception).__name__}"))
        except peewee.PeeweeException as error:
            logger.warning("killmail %s left to the tick: %s", claim.killmail_id, _first_line(error))
            discard_connection()

    def _refill(self, message: dramatiq.MessageProxy) -> None:
        if message.queue_name != KILLMAILS or not message.options.get(self.REFILL):
            return
        from actors.dispatching import dispatch_now

        try:
            keep_connected()
            dispatch_now()
        except peewee.PeeweeException as error:
            logger.warning("dispatch left to the tick: %s", _first_line(error))
            discard_connection()


def discard_connection() -> None:
    """Close this thread's connection for good, so that the next message gets a new one."""
    if not db.is_closed():
        db.manual_close()


def _killmail_id(message: dramatiq.MessageProxy) -> int:
    """The only argument. A message of another shape is skipped: what it meant is in the ledger."""
    if len(message.args) == 1 and isinstance(message.args[0], int) and not message.kwargs:
        killmail_id = message.args[0]
        if 0 < killmail_id <= INT64_MAX:
            return killmail_id
    logger.warning("message %s has arguments this version does not know; skipped", message.message_id)
    raise SkipMessage("unknown arguments")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


def _doubt_about(claim: ledger.Claim) -> Doubt:
    if claim.put_behind:
        return Doubt.MUCH
    return Doubt.SOME if claim.refusals else Doubt.NONE
