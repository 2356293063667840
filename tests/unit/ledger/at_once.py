"""Several workers at once: threads with connections of their own, started together or led step by step.

Lock-step on PostgreSQL: a step that has to wait for a lock is seen to wait, and only then the test goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from database import db, execute

#: Seconds any wait in here may take before the test fails.
LIMIT = 10.0

#: For `pytestmark`: SQLite has one writer at a time; what is tested here are row locks.
postgres_only = pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)

_T = TypeVar("_T")


def together(*works: Callable[[], _T]) -> list[_T]:
    """Start all at the same moment; their results, in order. Raises what the first of them raised."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], _T]) -> _T:
        with db.connection_context():
            start.wait(LIMIT)
            return work()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        return [future.result(LIMIT) for future in futures]


class Another:
    """Somebody else, with a connection of their own. A context, because a thread must not outlive its test."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Another:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._pool.shutdown()

    def start(self, work: Callable[..., _T], *args: Any, **options: Any) -> Future[_T]:
        """Begin this, and return once it is done or waits for a lock that somebody holds."""
        backend: Future[int] = Future()

        def run() -> _T:
            with db.connection_context():
                backend.set_result(execute("SELECT pg_backend_pid()").fetchone()[0])
                return work(*args, **options)

        future = self._pool.submit(run)
        pid = backend.result(LIMIT)
        deadline = time.monotonic() + LIMIT
        while not future.done() and not _is_blocked(pid):
            assert time.monotonic() < deadline, "neither done nor waiting"
            time.sleep(0.002)
        return future


def waits(future: Future[Any]) -> bool:
    """Whether what was started still waits for its lock."""
    return not future.done()


def _is_blocked(pid: int) -> bool:
    return bool(execute("SELECT cardinality(pg_blocking_pids(?)) > 0", (pid,)).fetchone()[0])
