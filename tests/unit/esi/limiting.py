"""What the limiter's tests do again and again: answers, moments of the rows, permits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import database
from esi.limiter import Closed, Limiter
from esi.rate_limit import KILLMAIL, SLICES

#: Fast enough that no test waits for its slot.
RATE = 100_000


def answer(limiter: Limiter, status: int, headers=None, group=KILLMAIL, owner="ip", *, background=False):
    """One request that is answered so."""
    limiter.acquire(group, owner, background=background).answered(status, headers or {})


def remaining(limiter: Limiter, group=KILLMAIL) -> int:
    """Tokens of the group's bucket, as an operator sees them."""
    return next(state.remaining or 0 for state in limiter.snapshot() if state.name == group.name)


def refused(limiter: Limiter, group=KILLMAIL, owner="ip", *, background=False) -> Closed:
    """The refusal of one request."""
    with pytest.raises(Closed) as caught:
        limiter.acquire(group, owner, background=background)
    return caught.value


def time_passes(seconds: float) -> None:
    """Every closure is so much nearer to its end, as if so much time had passed."""
    database.execute("UPDATE gates SET closed_until = closed_until - ? WHERE closed_until > 0", (seconds,))
    database.execute("UPDATE rate_buckets SET closed_until = closed_until - ? WHERE closed_until > 0", (seconds,))
    database.execute("UPDATE failing_owners SET failed_at = failed_at - ?", (seconds,))
    database.execute("UPDATE verdict_rate SET incident_until = incident_until - ?", (seconds,))
    database.execute("UPDATE refresh_slots SET held_until = held_until - ? WHERE held_until > 0", (seconds,))


@contextmanager
def counted_statements(db: Any) -> Iterator[list[str]]:
    """The statements that run meanwhile, BEGIN and COMMIT included."""
    statements: list[str] = []
    execute_sql = db.execute_sql

    def counting(sql: str, *args: Any, **kwargs: Any) -> Any:
        statements.append(sql)
        return execute_sql(sql, *args, **kwargs)

    db.execute_sql = counting
    try:
        yield statements
    finally:
        del db.execute_sql


def a_window_later(seconds: float = 901) -> None:
    """What was spent was spent so much earlier, and has returned."""
    for key, spends in database.execute("SELECT bucket, spends FROM rate_buckets WHERE spends <> ''").fetchall():
        first, *costs = spends.split()
        moved = " ".join([str(int(first) - SLICES - 2), *costs])
        database.execute("UPDATE rate_buckets SET spends = ? WHERE bucket = ?", (moved, key))
    time_passes(seconds)
