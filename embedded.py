"""Embedded mode: web, workers and scheduler in one process, for a machine that has nothing but Python.

Only `python app.py` may embed. A lock beside the database refuses a second process; whoever holds it knows that
nobody else is at work, so at start it takes back whatever was in the hands of the process before it.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import IO

import peewee
from dramatiq.worker import Worker

import embedded_lock
import ledger
import migrations
from database import db
from embedded_lock import AlreadyRunning
from settings import Settings

__all__ = ["AlreadyRunning", "EmbeddedSystem", "start"]

logger = logging.getLogger(__name__)

#: How often the tick looks for what a second terminal wrote (`scripts/queue_users.py`).
TICK_SECONDS = 1.0
SECONDS_A_MINUTE = 60.0
#: In one process a message is not lost without the process: what was not taken up in this time never will be.
RESEND_AFTER = timedelta(seconds=10)
#: How long a stop waits for killmails in flight.
STOP_TIMEOUT_MS = 20_000


class EmbeddedSystem:
    """The running workers and the clock. `stop` finishes what is in flight."""

    def __init__(self, worker: Worker, lock: IO[str], schedule_minutes: int) -> None:
        self._worker = worker
        self._lock = lock
        self._schedule_seconds = schedule_minutes * SECONDS_A_MINUTE
        self._stopping = threading.Event()
        self._clock = threading.Thread(target=self._run_clock, name="clock", daemon=True)
        self._clock.start()

    def stop(self) -> None:
        """End the clock and the workers, and give up the lock."""
        self._stopping.set()
        self._clock.join()
        self._worker.stop(timeout=STOP_TIMEOUT_MS)
        self._lock.close()

    def _run_clock(self) -> None:
        from actors.schedule import TickFailed, queue_due_users, tend
        from actors.sending import send

        ticks_a_look = max(1, round(self._schedule_seconds / TICK_SECONDS))
        tick = 0
        while not self._stopping.wait(TICK_SECONDS):
            try:
                # First, and without the database: a tick that fails must not cost the users who are due their turn.
                if tick % ticks_a_look == 0:
                    send(queue_due_users)
                with db.connection_context():
                    tend(RESEND_AFTER)
            except TickFailed:
                pass  # it was logged
            except peewee.OperationalError as error:
                logger.error("the tick failed, the next one tries again: %s", str(error).partition("\n")[0])
            except Exception:  # the clock must not stop: without it nothing is repaired and nobody is due
                logger.exception("the tick failed; the next one tries again")
            tick += 1


def start(settings: Settings) -> EmbeddedSystem:
    """Create or upgrade the schema, take back what was left, and start workers and clock. Raises AlreadyRunning."""
    lock = embedded_lock.take(settings.database_url)
    migrations.upgrade()
    with db.connection_context():
        ledger.reset_unfinished()
    from actors import broker
    from actors.dispatching import EMBEDDED_THREADS

    worker = Worker(broker, worker_threads=EMBEDDED_THREADS, worker_timeout=100)
    worker.queue_prefetch = EMBEDDED_THREADS
    # What `dramatiq actors` does once a process: it starts the watch over time limits.
    broker.emit_after("process_boot")
    worker.start()
    return EmbeddedSystem(worker, lock, settings.schedule_minutes)
