"""Where a list ends, and whether it was seen whole: from its pages' numbers alone."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from ledger.reading import NOTHING_READ, Page, Reading, etag_is_trusted, is_proven

NOW = datetime(2026, 11, 30, 12)


@pytest.fixture(autouse=True)
def ledger_db() -> None:
    """Nothing here needs a database."""


def read(*pages: dict[str, Any] | int, x_pages: int | None = None) -> Reading:
    """What these pages are together; a number is a page of so many entries."""
    reading = NOTHING_READ
    for number, page in enumerate(pages, 1):
        assert not reading.ended, f"page {number} is not asked for"
        wishes = {"entries": page} if isinstance(page, int) else page
        reading = reading.with_page(Page(**{"number": number, "pages": x_pages, "entries": 0} | wishes))
    return reading


CHANGED = {"entries": 20, "changed": True}
PAST_END = {"past_end": True}


@pytest.mark.parametrize(
    ("pages", "x_pages", "ended", "moved", "lacking"),
    [
        # X-Pages says where the list ends
        ([0], 1, True, False, False),
        ([5], 1, True, False, False),
        ([20], 1, True, False, False),
        ([20], 2, False, False, False),
        ([20, 1], 2, True, False, False),
        ([20, 19], 2, True, False, False),
        ([20, 0], 3, False, True, True),  # empty below X-Pages: read on
        ([20, 0, 5], 3, True, True, True),
        ([0], 3, False, True, True),
        ([20, 0], 2, True, True, True),  # the last page promised is not there
        ([20, 19], 3, False, True, True),  # short, in the middle
        ([5, 20], 2, False, True, True),  # so page 1 was short
        ([20, {"pages": 4, "entries": 20}], 2, False, True, False),  # it grew
        ([20, {"pages": 2, "entries": 5}], 3, True, True, True),  # it shrank
        ([20, {"pages": 1, "entries": 20}], 3, False, True, True),
        ([20, PAST_END], 2, True, True, True),
        ([20, {"pages": None, "entries": 3}], 3, False, True, True),  # X-Pages of page 1 still says 3
        ([20, {"pages": None, "entries": 3}], 2, True, False, False),
        # a last page as full as the others, or as any, is followed by one more look
        ([20, 20], 2, False, False, False),
        ([20, 20, PAST_END], 2, True, False, False),
        ([20, 20, 0], 2, True, False, False),
        ([20, 20, 7], 2, False, True, True),
        ([20, 20, 7, PAST_END], 2, True, True, True),
        ([20, 20, {"entries": 20, "repeated": 20}], 2, True, True, True),
        ([1000], 1, False, False, False),
        ([1000, PAST_END], 1, True, False, False),
        ([1000, 3], 1, False, True, True),
        ([2, 2], 2, True, False, False),  # too short to be full
        # no X-Pages: until there is no such page, or nothing behind a short one
        ([PAST_END], None, True, False, False),
        ([0], None, False, False, False),
        ([0, PAST_END], None, True, False, False),
        ([0, 0], None, True, False, False),
        ([0, 7], None, False, True, True),
        ([20], None, False, False, False),
        ([20, 0], None, False, False, False),
        ([20, PAST_END], None, True, False, False),
        ([20, 0, PAST_END], None, True, False, False),
        ([20, 0, 0], None, True, False, False),
        ([20, 0, 15], None, False, True, True),
        ([20, 5], None, False, False, False),
        ([20, 19, 0], None, True, False, False),
        ([20, 5, PAST_END], None, True, False, False),
        ([20, 5, 15], None, False, True, True),
        ([20, 20, 12, 20], None, False, True, True),
        ([1, 1], None, False, False, False),
        ([20, {"entries": 20, "repeated": 20}], None, True, True, True),  # it does not look at the page's number
        ([20, {"entries": 20, "repeated": 19, "unreadable": 1}], None, True, True, True),
        ([20, {"entries": 20, "repeated": 3}], None, False, True, False),
        ([20, {"entries": 20, "unreadable": 20}], None, False, False, False),
        ([20, {"pages": 3, "entries": 20}], None, False, False, False),  # told later
        # new killmails move the others: the first page that changed repeats some, and nothing is missed
        ([20, CHANGED | {"repeated": 1}, CHANGED], 4, False, True, False),
        ([20, CHANGED, CHANGED], 4, False, True, True),
        ([{"entries": 20, "two_hashes": True}], 2, False, True, False),
    ],
)
def test_where_a_list_ends_and_whether_it_was_seen_whole(pages, x_pages, ended, moved, lacking):
    reading = read(*pages, x_pages=x_pages)
    assert (reading.ended, reading.moved, reading.lacking) == (ended, moved, lacking)
    assert reading.steady == (not moved and not reading.unreadable)


@pytest.mark.parametrize(
    ("entries", "pages", "before", "aged_out", "proven"),
    [
        # Read to its end for the first time
        (0, 1, None, 0, True),
        (55, 1, None, 0, True),
        (19, 3, None, 0, True),
        (20, 2, None, 0, False),
        (55, 3, None, 0, False),
        # Once more
        (55, 3, 55, 0, True),
        (60, 3, 55, 0, True),
        (43, 3, 55, 0, False),
        (20, 1, 55, 0, False),
        (43, 3, 55, 11, False),
        (43, 3, 55, 12, True),
        (0, 1, 3, 0, False),
    ],
)
def test_a_list_of_several_pages_is_proven_by_another_reading_to_its_end(entries, pages, before, aged_out, proven):
    assert is_proven(entries, pages, before, aged_out) == proven


@pytest.mark.parametrize(
    ("pages", "x_pages", "least"),
    [([20], None, 0), ([20], 1, 0), ([20], 2, 21), ([20], 3, 41), ([20, 20], 3, 41)],
)
def test_x_pages_tells_how_many_entries_a_list_has_at_least(pages, x_pages, least):
    assert read(*pages, x_pages=x_pages).least_entries == least


def test_what_was_left_out_is_counted_over_all_pages():
    reading = read({"entries": 9, "unreadable": 2}, {"entries": 9, "unreadable": 3}, x_pages=2)
    assert (reading.unreadable, reading.moved, reading.steady) == (5, False, False)


def test_another_state_of_the_list_is_not_forgotten():
    assert not read(20, {"entries": 20, "changed": True}, 20, x_pages=3).steady


@pytest.mark.parametrize(
    ("read_hours_ago", "changed_days_ago", "trusted"),
    [
        (None, None, False),
        (0.9, 6, True),
        (1.1, 6, False),
        (1.1, 8, True),
        (5.9, None, True),
        (6.1, None, False),
        # A clock that ran ahead wrote it: as good as none
        (-5, 1, False),
        (-0.5, 1, False),
        (-5, None, False),
        (5, -400, True),
        (6.1, -400, False),
        # A little is only another machine's
        (-0.01, 1, True),
        (1.1, -0.001, False),
    ],
)
def test_a_304_is_believed_for_an_hour_or_six(read_hours_ago, changed_days_ago, trusted):
    read_at = None if read_hours_ago is None else NOW - timedelta(hours=read_hours_ago)
    changed_at = None if changed_days_ago is None else NOW - timedelta(days=changed_days_ago)
    assert etag_is_trusted(read_at, changed_at, NOW) == trusted
