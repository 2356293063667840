"""Pictures as geometry: what was counted becomes bars, cells and labels with places and sizes. Pure; no markup, no SQL.

Units are those of the picture's own viewBox. Kills stand above the line and losses hang below it, so that nobody needs
the colours to tell them apart; what a cell's shade says is said in its title too, and in the table behind the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from api.statistics import Day, Hour

DAYS = 90
WIDTH = 720.0
#: Room for the labels: on the left, and under the picture.
LEFT, BOTTOM = 44.0, 22.0
DAYS_HEIGHT = 190.0
#: Between two dates under the days.
DAYS_A_LABEL = 14

CELL_HEIGHT = 22.0
#: Shades above "none".
LEVELS = 4
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Box:
    """A bar or a cell. `kind` is its CSS class."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Label:
    """A text in a picture, and where it stands."""

    x: float
    y: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True, slots=True)
class Picture:
    """`line`: height of the base line; None where there is none."""

    width: float
    height: float
    boxes: Sequence[Box]
    labels: Sequence[Label]
    line: float | None = None


def by_day(counted: Sequence[Day], today: date) -> Picture:
    """The last DAYS days up to `today`, kills up and losses down on one scale."""
    found = {each.day: each for each in counted}
    shown = [today - timedelta(days=DAYS - 1 - number) for number in range(DAYS)]
    days = [found.get(day, Day(day, 0, 0)) for day in shown]
    up, down = max(each.kills for each in days), max(each.losses for each in days)
    plot = DAYS_HEIGHT - BOTTOM
    scale = (plot - 20) / max(1, up + down)
    line = round(10 + up * scale, 1)
    step = (WIDTH - LEFT) / DAYS
    boxes = []
    for number, each in enumerate(days):
        x = round(LEFT + number * step, 1)
        for kind, count in (("kill", each.kills), ("loss", each.losses)):
            if count:
                height = round(count * scale, 1)
                y = round(line - height, 1) if kind == "kill" else line
                boxes.append(Box(x, y, round(step - 1, 1), height, kind, _day_title(each)))
    return Picture(WIDTH, DAYS_HEIGHT, boxes, [*_scale(up, down, line, scale), *_dates(shown, step)], line)


def by_hour(counted: Sequence[Hour]) -> Picture:
    """Weekdays down, hours across."""
    counts = {(each.weekday, each.hour): each.count for each in counted}
    most = max(counts.values(), default=0)
    step = (WIDTH - LEFT) / 24
    boxes = [
        Box(
            x=round(LEFT + hour * step, 1),
            y=weekday * CELL_HEIGHT,
            width=round(step - 2, 1),
            height=CELL_HEIGHT - 2,
            kind=f"level-{level(counts.get((weekday, hour), 0), most)}",
            title=f"{WEEKDAYS[weekday]} {hour:02}:00: {counts.get((weekday, hour), 0)}",
        )
        for weekday in range(7)
        for hour in range(24)
    ]
    height = 7 * CELL_HEIGHT
    weekdays = [Label(0, number * CELL_HEIGHT + 15, name, "start") for number, name in enumerate(WEEKDAYS)]
    hours = [Label(round(LEFT + hour * step, 1), height + 16, f"{hour:02}", "start") for hour in range(0, 24, 3)]
    return Picture(WIDTH, height + BOTTOM, boxes, weekdays + hours)


def level(count: int, most: int) -> int:
    """The shade of a count: 0 for none, LEVELS for the most."""
    return 0 if count <= 0 or most <= 0 else max(1, -(-count * LEVELS // most))


def share(part: float, whole: float) -> float:
    """Percent with one decimal, for the width of a bar; 0 of nothing is 0."""
    return round(100 * part / whole, 1) if whole > 0 else 0.0


def _day_title(each: Day) -> str:
    return f"{each.day:%d %B}: {each.kills} killed, {each.losses} lost"


def _scale(up: int, down: int, line: float, scale: float) -> list[Label]:
    """How high the highest bars are."""
    above = [Label(LEFT - 6, round(line - up * scale + 10, 1), str(up), "end")] if up else []
    below = [Label(LEFT - 6, round(line + down * scale + 2, 1), str(down), "end")] if down else []
    return above + below


def _dates(shown: Sequence[date], step: float) -> list[Label]:
    last = len(shown) - 1
    return [
        Label(round(LEFT + (number + 0.5) * step, 1), DAYS_HEIGHT - 6, f"{shown[number]:%d %b}")
        for number in range(last - 3, 0, -DAYS_A_LABEL)
    ]
