"""What a viewer's killmails add up to: one statement for each picture, and only the viewer's own lists.

Days and hours are EVE time, which is UTC. A loss is where the viewer was the victim, everything else in the lists is a
kill. How it is drawn is left to `web/pictures.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from database import execute, is_sqlite
from models import User

#: Rows of a "top" list.
TOP = 8

_MINE = """
    FROM user_killmails u JOIN killmails k ON k.killmail_id = u.killmail_id
    JOIN victims v ON v.killmail_id = u.killmail_id
"""
_LOST = "CASE WHEN v.character_id = ? THEN 1 ELSE 0 END"


@dataclass(frozen=True, slots=True)
class Day:
    """Kills and losses of one day."""

    day: date
    kills: int
    losses: int


@dataclass(frozen=True, slots=True)
class Hour:
    """`weekday` 0 is Monday, `hour` 0 to 23."""

    weekday: int
    hour: int
    count: int


@dataclass(frozen=True, slots=True)
class Ranked:
    """Something with an id, its name where it is known, and how often it occurs."""

    id: int
    name: str | None
    count: int


def days(viewer: User, since: datetime) -> list[Day]:
    """Kills and losses by day from `since` on, the earliest first. Days without any are left out."""
    day = "substr(k.killmail_time, 1, 10)" if is_sqlite() else "to_char(k.killmail_time, 'YYYY-MM-DD')"
    rows = execute(
        f"""
        SELECT {day}, COUNT(*), SUM({_LOST}) {_MINE}
        WHERE u.user_id = ? AND k.killmail_time >= ? GROUP BY 1 ORDER BY 1
        """,
        (viewer.character_id, viewer.id, since),
    ).fetchall()
    return [Day(date.fromisoformat(each), int(count) - int(lost), int(lost)) for each, count, lost in rows]


def hours(viewer: User) -> list[Hour]:
    """Killmails by hour of the week, of all that are stored."""
    if is_sqlite():
        weekday, hour = (
            "CAST(strftime('%w', k.killmail_time) AS INTEGER)",
            "CAST(substr(k.killmail_time, 12, 2) AS INTEGER)",
        )
    else:
        weekday, hour = (
            "CAST(extract(dow FROM k.killmail_time) AS INTEGER)",
            "CAST(extract(hour FROM k.killmail_time) AS INTEGER)",
        )
    rows = execute(
        f"SELECT {weekday}, {hour}, COUNT(*) {_MINE} WHERE u.user_id = ? GROUP BY 1, 2 ORDER BY 1, 2", (viewer.id,)
    ).fetchall()
    # Both engines count from Sunday.
    return [Hour((sunday_first - 1) % 7, hour, count) for sunday_first, hour, count in rows]


def ships_lost(viewer: User) -> list[Ranked]:
    """The ships the viewer lost most often."""
    return _top(
        "v.ship_type_id", f"{_MINE} WHERE u.user_id = ? AND v.character_id = ?", (viewer.id, viewer.character_id)
    )


def ships_flown(viewer: User) -> list[Ranked]:
    """The ships the viewer was in when something was killed."""
    return _top(
        "a.ship_type_id",
        "FROM user_killmails u JOIN attackers a ON a.killmail_id = u.killmail_id "
        "WHERE u.user_id = ? AND a.character_id = ? AND a.ship_type_id IS NOT NULL",
        (viewer.id, viewer.character_id),
    )


def systems(viewer: User) -> list[Ranked]:
    """The systems with most of the viewer's killmails."""
    return _top("k.solar_system_id", f"{_MINE} WHERE u.user_id = ?", (viewer.id,))


def _top(column: str, source: str, parameters: tuple[Any, ...]) -> list[Ranked]:
    rows = execute(
        f"""
        SELECT t.id, n.name, t.count FROM (
            SELECT {column} AS id, COUNT(*) AS count {source} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP}) t
        LEFT JOIN names n ON n.id = t.id ORDER BY t.count DESC, t.id
        """,
        parameters,
    ).fetchall()
    return [Ranked(*row) for row in rows]
