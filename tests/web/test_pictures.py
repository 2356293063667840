"""The pictures' geometry: nothing outside, nothing on top of something else, and in proportion."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.statistics import Day, Hour
from web.pictures import DAYS, LEVELS, Picture, by_day, by_hour, level, share

TODAY = date(2026, 11, 23)


def inside(picture: Picture) -> bool:
    return all(
        box.x >= 0 and box.y >= 0 and box.x + box.width <= picture.width and box.y + box.height <= picture.height
        for box in picture.boxes
    ) and all(0 <= label.x <= picture.width and 0 <= label.y <= picture.height for label in picture.labels)


def test_kills_stand_on_the_line_and_losses_hang_from_it() -> None:
    picture = by_day([Day(TODAY, 4, 2), Day(TODAY - timedelta(days=1), 2, 0)], TODAY)
    assert picture.line is not None
    before, kills, losses = picture.boxes
    assert (before.kind, kills.kind, losses.kind) == ("kill", "kill", "loss")
    assert kills.y + kills.height == pytest.approx(picture.line, abs=0.11)
    assert losses.y == picture.line
    assert kills.height == pytest.approx(2 * before.height, abs=0.11)
    assert kills.height == pytest.approx(2 * losses.height, abs=0.11)
    assert kills.x == losses.x > before.x
    assert kills.title == "23 November: 4 killed, 2 lost"


def test_days_outside_the_picture_are_not_in_it() -> None:
    days = [Day(TODAY - timedelta(days=ago), 1, 0) for ago in (DAYS, DAYS - 1, 0, -1)]
    assert len(by_day(days, TODAY).boxes) == 2


@given(st.dictionaries(st.integers(0, DAYS - 1), st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))))
def test_every_day_fits(counts: dict[int, tuple[int, int]]) -> None:
    assert inside(by_day([Day(TODAY - timedelta(days=ago), *pair) for ago, pair in counts.items()], TODAY))


@given(st.lists(st.builds(Hour, st.integers(0, 6), st.integers(0, 23), st.integers(1, 10**9)), max_size=168))
def test_every_hour_has_its_cell(hours: list[Hour]) -> None:
    picture = by_hour(hours)
    assert inside(picture)
    assert len({(box.x, box.y) for box in picture.boxes}) == 7 * 24


def test_the_shade_of_an_hour() -> None:
    picture = by_hour([Hour(0, 0, 8), Hour(6, 23, 1)])
    assert (picture.boxes[0].kind, picture.boxes[0].title) == ("level-4", "Mon 00:00: 8")
    assert (picture.boxes[-1].kind, picture.boxes[-1].title) == ("level-1", "Sun 23:00: 1")
    assert picture.boxes[1].kind == "level-0"


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_shades_rise_with_the_count_and_any_is_more_than_none(count: int, most: int) -> None:
    count = min(count, most)
    shade = level(count, most)
    assert (shade == 0) == (count == 0)
    assert shade <= LEVELS
    assert (shade == LEVELS) >= (count == most)


@pytest.mark.parametrize(("part", "whole", "percent"), [(1, 3, 33.3), (0, 0, 0.0), (5, 5, 100.0), (0, 7, 0.0)])
def test_shares(part: float, whole: float, percent: float) -> None:
    assert share(part, whole) == percent
