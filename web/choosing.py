"""Which killmails a page's address asks for: the filter in the URL, as people write it, and what is wrong with it.

    side=loss|kill  ship=NAME or id  system=NAME or id  from=2026-11-01  to=2026-11-23 (inclusive)  solo=1|0  npc=1|0

The invariant: a filter that cannot be understood chooses nothing, and says why; it never chooses everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.killmails import Filter
from api.scalars import MAX_ID
from database import execute

SHIP, SYSTEM = "inventory_type", "solar_system"
_NAMES = ("side", "ship", "system", "from", "to", "solo", "npc")
#: Characters of a value that are looked at.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Choice:
    """`given`: what stands in the form, without what is empty. `chosen` is None where there are problems."""

    given: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    chosen: Filter | None = None

    def without(self, name: str) -> dict[str, str]:
        """The address's parameters with one filter less."""
        return {each: value for each, value in self.given.items() if each != name}


def read(arguments: Mapping[str, str]) -> Choice:
    """From a request's query."""
    given = {name: arguments[name].strip()[:_MOST] for name in _NAMES if arguments.get(name, "").strip()}
    problems: list[str] = []
    chosen = Filter(
        is_loss=_side(given, problems),
        is_solo=_yes_or_no(given, "solo", problems),
        is_npc=_yes_or_no(given, "npc", problems),
        ship_type_id=_id(given, "ship", SHIP, problems),
        solar_system_id=_id(given, "system", SYSTEM, problems),
        since=_day(given, "from", problems),
        until=_day_after(given, problems),
    )
    return Choice(given, problems, None if problems else chosen)


def _side(given: Mapping[str, str], problems: list[str]) -> bool | None:
    side = given.get("side")
    if side not in (None, "kill", "loss"):
        problems.append("Kills or losses: there is nothing else to choose.")
    return None if side is None else side == "loss"


def _yes_or_no(given: Mapping[str, str], name: str, problems: list[str]) -> bool | None:
    text = given.get(name)
    if text not in (None, "0", "1"):
        problems.append(f"{name} is 1 for yes or 0 for no.")
    return None if text is None else text == "1"


def _id(given: Mapping[str, str], name: str, category: str, problems: list[str]) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_ID:
        return int(text)
    found = _find(text, category)
    if found is None:
        problems.append(f"No {name} called “{text}” is known here.")
    return found


def _find(text: str, category: str) -> int | None:
    if not text.isprintable():  # no name, and PostgreSQL takes no NUL
        return None
    row = execute(
        "SELECT id FROM names WHERE LOWER(name) = LOWER(?) AND category = ? ORDER BY id LIMIT 1", (text, category)
    ).fetchone()
    return None if row is None else int(row[0])


def _day(given: Mapping[str, str], name: str, problems: list[str]) -> datetime | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        problems.append(f"“{text}” is not a date like 2026-11-23.")
        return None


def _day_after(given: Mapping[str, str], problems: list[str]) -> datetime | None:
    day = _day(given, "to", problems)
    return None if day is None or day > datetime.max - timedelta(days=1) else day + timedelta(days=1)
