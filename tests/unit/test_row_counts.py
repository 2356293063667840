"""How many rows there are: exact while they are few, as counted last where they are many. On both engines."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import periodic_runs
import row_counts
from database import execute, insert_rows, utcnow
from row_counts import EXACT_ROWS, KILLMAILS, LEDGER, UNKNOWN_NAMES, Count
from tests.unit.esi.limiting import counted_statements

pytestmark = pytest.mark.usefixtures("any_db")


def _killmails_to_fetch(first: int, count: int, state: str) -> None:
    now = utcnow()
    insert_rows(
        "ledger",
        ("killmail_id", "killmail_hash", "priority", "state", "attempts", "created_at"),
        [(each, "0" * 40, 3, state, 0, now) for each in range(first, first + count)],
    )


def _due() -> None:
    periodic_runs.put_off("row counts", -timedelta(seconds=1))


def test_few_rows_are_counted_when_asked() -> None:
    _killmails_to_fetch(1, 3, "pending")
    _killmails_to_fetch(11, 2, "rejected")
    counts = row_counts.read()
    assert counts[LEDGER.name] == Count({"pending": 3, "rejected": 2})
    assert counts[LEDGER.name].total == 5
    assert counts[KILLMAILS.name] == Count({})
    assert set(counts) == {each.name for each in row_counts.ALL}


def test_many_rows_are_those_of_the_last_count_and_say_when_that_was() -> None:
    # Given more than are counted for an answer
    _killmails_to_fetch(1, EXACT_ROWS, "pending")
    _killmails_to_fetch(EXACT_ROWS + 1, 5, "deferred")
    # Then at first it is known only that they are many
    assert row_counts.read()[LEDGER.name] == Count({"": EXACT_ROWS}, more=True)
    # When the tick has counted
    row_counts.recount_if_due()
    count = row_counts.read()[LEDGER.name]
    assert count.rows == {"pending": EXACT_ROWS, "deferred": 5}
    assert count.counted_at is not None and utcnow() - count.counted_at < timedelta(minutes=1)
    # Then more rows show with the next count, which is not due before a minute has passed
    _killmails_to_fetch(EXACT_ROWS + 6, 1, "deferred")
    row_counts.recount_if_due()
    assert row_counts.read()[LEDGER.name].rows["deferred"] == 5
    _due()
    row_counts.recount_if_due()
    assert row_counts.read()[LEDGER.name].rows["deferred"] == 6
    # And when there are few again they are exact at once
    execute("DELETE FROM ledger WHERE killmail_id > 2")
    assert row_counts.read()[LEDGER.name] == Count({"pending": 2})


def test_an_answer_costs_the_same_statements_however_many_rows_there_are(any_db: Any) -> None:
    insert_rows("names", ("id", "updated_at"), [(each, utcnow()) for each in range(1, EXACT_ROWS + 2)])
    row_counts.recount_if_due()
    with counted_statements(any_db) as statements:
        assert row_counts.read()[UNKNOWN_NAMES.name].total == EXACT_ROWS + 1
    assert len(statements) == len(row_counts.ALL) + 1
    assert all("LIMIT" in each or "row_counts" in each for each in statements)


def test_a_tick_that_is_not_due_to_count_costs_one_statement(any_db: Any) -> None:
    row_counts.recount_if_due()
    with counted_statements(any_db) as statements:
        row_counts.recount_if_due()
    assert len(statements) == 1
