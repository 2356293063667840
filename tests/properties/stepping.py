"""Several workers at once, one statement at a time, in an order that hypothesis chooses (PostgreSQL).

Each work runs in a thread with a connection of its own and stops after every statement; who takes the next step is
decided outside. One that waits for a lock is seen to wait and passed over. On SQLite there is nothing to choose: every
write transaction is one step.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from database import db, execute

#: Seconds any wait in here may take before the test fails.
LIMIT = 10.0

_mine = threading.local()


class _Stepper:
    """One work, led by the hand."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go = threading.Semaphore(0)
        self._stopped = threading.Event()
        self.error: BaseException | None = None
        self.ended = False
        self.pid = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._stopped.wait(LIMIT)

    def step(self) -> bool:
        """Let it run one statement; False: it has ended, or waits for a lock."""
        if self.ended:
            return False
        if self._stopped.is_set():
            self._stopped.clear()
            self._go.release()
        deadline = time.monotonic() + LIMIT
        while not self._stopped.wait(0.001):
            if self._is_blocked():
                return False
            assert time.monotonic() < deadline, "neither done nor waiting for a lock"
        return not self.ended

    def pause(self) -> None:
        self._stopped.set()
        assert self._go.acquire(timeout=LIMIT), "forgotten in the middle"

    def join(self) -> None:
        self._thread.join(LIMIT)

    def _run(self) -> None:
        try:
            with db.connection_context():
                self.pid = execute("SELECT pg_backend_pid()").fetchone()[0]
                _mine.stepper = self
                self.pause()
                self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            self.error = error
        finally:
            _mine.stepper = None
            self.ended = True
            self._stopped.set()

    def _is_blocked(self) -> bool:
        return bool(execute("SELECT cardinality(pg_blocking_pids(?)) > 0", (self.pid,)).fetchone()[0])


def interleave(works: Sequence[Callable[[], object]], order: Iterable[int]) -> None:
    """Run all works at once: `order` says whose turn it is, and when it is used up they take turns.

    Raises what a work raised; a deadlock is one.
    """
    hooks: Any = db.obj.query_hooks
    hooks.append(_after_a_statement)
    try:
        steppers = [_Stepper(work) for work in works]
        for chosen in order:
            _step(steppers, chosen % len(steppers))
        deadline = time.monotonic() + LIMIT
        while not all(stepper.ended for stepper in steppers):
            for number in range(len(steppers)):
                _step(steppers, number)
            assert time.monotonic() < deadline, "they wait for each other"
        for stepper in steppers:
            stepper.join()
    finally:
        hooks.remove(_after_a_statement)
    for stepper in steppers:
        if stepper.error is not None:
            raise stepper.error


def _step(steppers: list[_Stepper], chosen: int) -> None:
    """The chosen one, or whoever can go on instead."""
    for offset in range(len(steppers)):
        if steppers[(chosen + offset) % len(steppers)].step():
            return


def _after_a_statement(*_event: object) -> None:
    stepper: _Stepper | None = getattr(_mine, "stepper", None)
    if stepper is not None:
        stepper.pause()
