"""How many rows the tables have, for operators: exact while they are few, counted once a minute where they are many.

To count a million rows takes a database a tenth of a second, and anyone may ask (`/status`, `/metrics`). So a question
looks at no more than EXACT_ROWS rows of a table. Where there are more, it is answered with what the tick counted last,
and says when that was; before the first count it says "more than". The invariant: what an answer costs does not depend
on how many rows there are. Counting takes one hundredth of the time at most, however long one count takes.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import periodic_runs
from accounts import TOKEN_STATE_SQL, TokenState
from database import as_datetime, db, execute, insert_rows, utcnow
from models import FetchState, SyncState

#: Up to so many rows are counted when asked: one or two milliseconds on either engine.
EXACT_ROWS = 10_000
#: Time between two counts by the tick, at least; and as a multiple of what the last count took.
INTERVAL = timedelta(minutes=1)
REST_AFTER_COUNT = 100
#: The name of the tick's turn.
_TURN = "row counts"


@dataclass(frozen=True, slots=True)
class Counted:
    """What can be counted: the rows of a table by a label. `labels`: all there are; without one the label is ''."""

    name: str
    table: str
    label: str = "''"
    where: str = "TRUE"
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Count:
    """`rows` by label, those of none left out. `counted_at`: None: just now, exact. `more`: there are more than that,
    and they were not counted yet."""

    rows: dict[str, int]
    counted_at: datetime | None = None
    more: bool = False

    @property
    def total(self) -> int:
        """Of all labels."""
        return sum(self.rows.values())

    def of(self, *labels: str) -> int:
        """Of these labels together."""
        return sum(self.rows.get(label, 0) for label in labels)


KILLMAILS = Counted("killmails", "killmails")
LEDGER = Counted("ledger", "ledger", "state", labels=tuple(FetchState))
ACTIVE_SYNCS = Counted(
    "active syncs", "syncs", "state", "finished_at IS NULL", (SyncState.QUEUED, SyncState.LISTING, SyncState.FETCHING)
)
USERS = Counted("users", "users", TOKEN_STATE_SQL, labels=tuple(TokenState))
UNKNOWN_NAMES = Counted("unknown names", "names", where="name IS NULL")

ALL = (KILLMAILS, LEDGER, ACTIVE_SYNCS, USERS, UNKNOWN_NAMES)


def read(counted: Collection[Counted] = ALL) -> dict[str, Count]:
    """By name. One statement each, and one more where a table is large."""
    found = {each.name: _count_few(each) for each in counted}
    large = {name for name, count in found.items() if count is None}
    kept = _kept() if large else {}
    return {
        name: count if count is not None else kept.get(name, Count({"": EXACT_ROWS}, more=True))
        for name, count in found.items()
    }


def recount_if_due() -> None:
    """For the tick: count the tables that are large, if that is due."""
    if not periodic_runs.begin(_TURN, INTERVAL):
        return
    began = time.monotonic()
    for each in ALL:
        if _count_few(each) is None:
            _keep(each)
    took = timedelta(seconds=time.monotonic() - began)
    if took * REST_AFTER_COUNT > INTERVAL:
        periodic_runs.put_off(_TURN, took * REST_AFTER_COUNT)


def _count_few(counted: Counted) -> Count | None:
    """None: there are more than EXACT_ROWS."""
    rows = execute(
        f"SELECT label, COUNT(*) FROM (SELECT {counted.label} AS label FROM {counted.table} WHERE {counted.where} "
        f"LIMIT {EXACT_ROWS + 1}) AS few GROUP BY label"
    ).fetchall()
    count = Count({str(label): number for label, number in rows})
    return None if count.total > EXACT_ROWS else count


def _keep(counted: Counted) -> None:
    """Count all of it, and keep that."""
    now = utcnow()
    rows = execute(
        f"SELECT {counted.label} AS label, COUNT(*) FROM {counted.table} WHERE {counted.where} GROUP BY 1"
    ).fetchall()
    with db.atomic():
        execute("DELETE FROM row_counts WHERE table_name = ?", (counted.name,))
        insert_rows(
            "row_counts",
            ("table_name", "label", "row_count", "counted_at"),
            [(counted.name, label, number, now) for label, number in rows],
        )


def _kept() -> dict[str, Count]:
    found: dict[str, Count] = {}
    for name, label, number, at in execute(
        "SELECT table_name, label, row_count, counted_at FROM row_counts"
    ).fetchall():
        count = found.setdefault(name, Count({}, as_datetime(at)))
        count.rows[label] = number
    return found
