"""Which killmails a page's address asks for: the filter in the URL, as people write it, and what is wrong with it.

    side=loss|kill  ship=NAME or id  system=NAME or id  from=2026-11-01  to=2026-11-23 (inclusive)  solo=1|0  npc=1|0

A name means everything that is called by it, an id one thing. What the form shows of an id, it is read back from.
The invariant: one of these that cannot be understood chooses nothing, and says why; it never chooses everything. Other
parameters, which links from elsewhere may carry, mean nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.killmails import Filter
from api.scalars import MAX_ID
from database import execute
from web.filters import short

SHIP, SYSTEM = "inventory_type", "solar_system"
_NAMES = ("side", "ship", "system", "from", "to", "solo", "npc")
#: Characters of a value that are looked at.
_MOST = 200
#: What the form shows for an id whose name alone would not lead back to it.
_NAME_AND_ID = re.compile(r".+ \(([0-9]+)\)")


@dataclass(frozen=True, slots=True)
class Choice:
    """`given`: the address's parameters, without what is empty; `shown`: the same as the form has them, names for ids.
    `chosen` is None where there are problems."""

    given: Mapping[str, str]
    shown: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    chosen: Filter | None = None


def read(arguments: Mapping[str, str]) -> Choice:
    """From a request's query."""
    given = {name: arguments[name].strip()[:_MOST] for name in _NAMES if arguments.get(name, "").strip()}
    problems: list[str] = []
    ships, systems = _ids(given, "ship", SHIP, problems), _ids(given, "system", SYSTEM, problems)
    chosen = Filter(
        is_loss=_side(given, problems),
        is_solo=_yes_or_no(given, "solo", problems),
        is_npc=_yes_or_no(given, "npc", problems),
        ship_type_ids=ships,
        solar_system_ids=systems,
        since=_day(given, "from", problems),
        until=_day_after(given, problems),
    )
    names = {"ship": _shown(ships, SHIP), "system": _shown(systems, SYSTEM)}
    shown = {each: names.get(each) or value for each, value in given.items()}
    return Choice(given, shown, problems, None if problems else chosen)


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


def _ids(given: Mapping[str, str], name: str, category: str, problems: list[str]) -> tuple[int, ...] | None:
    text = given.get(name)
    if text is None:
        return None
    found = _id(text) or _called(text, category) or _id(_NAME_AND_ID.sub(r"\1", text))
    if not found:
        problems.append(f"No {name} called “{text}” is known here.")
    return found


def _id(text: str) -> tuple[int, ...]:
    """The id that it is, or nothing."""
    return (int(text),) if text.isascii() and text.isdigit() and 0 < int(text) <= MAX_ID else ()


def _called(text: str, category: str) -> tuple[int, ...]:
    """The ids of everything with that name, in capitals or not."""
    if not text.isprintable():  # no name, and PostgreSQL takes no NUL
        return ()
    rows = execute(
        "SELECT id FROM names WHERE LOWER(name) = LOWER(?) AND category = ? ORDER BY id", (text, category)
    ).fetchall()
    return tuple(int(row[0]) for row in rows)


def _shown(ids: tuple[int, ...] | None, category: str) -> str | None:
    """The name of a single id, with the id where the name alone would not lead back to it. None: as it was typed."""
    if ids is None or len(ids) != 1:
        return None
    row = execute("SELECT name FROM names WHERE id = ? AND category = ?", (ids[0], category)).fetchone()
    if row is None or row[0] is None:
        return None
    name = short(str(row[0]))
    return name if not _id(name) and _called(name, category) == ids else f"{name} ({ids[0]})"


def _day(given: Mapping[str, str], name: str, problems: list[str]) -> datetime | None:
    text = given.get(name)
    if text is None:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        day = None
    if day is None or f"{day:%Y-%m-%d}".zfill(10) != text:  # a form field of the type date would show no other form
        problems.append(f"“{text}” is not a date like 2026-11-23.")
        return None
    return day


def _day_after(given: Mapping[str, str], problems: list[str]) -> datetime | None:
    day = _day(given, "to", problems)
    return None if day is None or day > datetime.max - timedelta(days=1) else day + timedelta(days=1)
