"""Killmails a viewer may see: those that stood in the viewer's own lists, and nobody else's.

Every door asks here: query, page, subscription. The order is that of ESI's ids, which grow with time; pages go on below
an id, never by an OFFSET, so that a page costs the same wherever it lies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from peewee import JOIN, fn

from api.killmail_views import KILLMAIL_COLUMNS, KillmailView, build, rows_to_read
from api.pages import Page, make_page
from api.scalars import parse_id
from database import UNAVAILABLE_ERRORS, execute
from models import Killmail, User, UserKillmail, Victim

log = logging.getLogger(__name__)

CURSOR = "killmail"

#: Told how many attackers and items are about to be read; may raise.
Spend = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of my killmails; None means any, of several ids each will do. Times are naive UTC, `until` is exclusive."""

    is_loss: bool | None = None
    is_solo: bool | None = None
    is_npc: bool | None = None
    ship_type_ids: Sequence[int] | None = None
    solar_system_ids: Sequence[int] | None = None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of_input(cls, given: dict[str, Any]) -> Filter:
        """From GraphQL's KillmailFilter, its names in snake case. Raises BadUserInput."""
        ids: dict[str, Any] = {
            f"{name}s": [parse_id(given[name], told)]
            for name, told in (("ship_type_id", "shipTypeId"), ("solar_system_id", "solarSystemId"))
            if given.get(name) is not None
        }
        flags: dict[str, Any] = {name: given.get(name) for name in ("is_loss", "is_solo", "is_npc")}
        return cls(**flags, **ids, since=given.get("from"), until=given.get("to"))

    def apply(self, query: Any, viewer: User) -> Any:
        """`query` joins UserKillmail, Killmail and Victim."""
        lost = Victim.character_id == viewer.character_id
        conditions = [
            None if self.is_loss is None else lost if self.is_loss else (Victim.character_id.is_null() | ~lost),
            None if self.is_solo is None else Killmail.is_solo == self.is_solo,
            None if self.is_npc is None else Killmail.is_npc == self.is_npc,
            None if self.ship_type_ids is None else Victim.ship_type_id.in_(self.ship_type_ids),
            None if self.solar_system_ids is None else Killmail.solar_system_id.in_(self.solar_system_ids),
            None if self.since is None else Killmail.killmail_time >= self.since,
            None if self.until is None else Killmail.killmail_time < self.until,
        ]
        for condition in conditions:
            if condition is not None:
                query = query.where(condition)
        return query


def page_of(
    viewer: User,
    chosen: Filter,
    first: int,
    before_id: int | None,
    named_fields: frozenset[str],
    after: str | None = None,
    spend: Spend | None = None,
) -> Page[KillmailView]:
    """The newest `first` of the viewer's killmails, or those below `before_id`. ESI's ids grow with time."""
    query = chosen.apply(_mine(viewer, *KILLMAIL_COLUMNS), viewer)
    if before_id is not None:
        query = query.where(_bounds(lambda killmail_id: killmail_id < before_id))
    rows = list(query.order_by(UserKillmail.killmail_id.desc()).limit(first + 1).tuples())
    if spend is not None:
        spend(rows_to_read(rows[:first], named_fields))
    views = build(rows[:first], named_fields)
    return make_page(CURSOR, [(view.id, view) for view in views], len(rows) > first, after)


def newer_page_of(
    viewer: User, chosen: Filter, first: int, above_id: int, named_fields: frozenset[str], after: str | None = None
) -> Page[KillmailView]:
    """The way back: the `first` of the viewer's killmails next above an id, newest first as ever.

    `has_next_page` is about what is newer still.
    """
    query = chosen.apply(_mine(viewer, *KILLMAIL_COLUMNS), viewer)
    query = query.where(_bounds(lambda killmail_id: killmail_id > above_id))
    rows = list(query.order_by(UserKillmail.killmail_id).limit(first + 1).tuples())
    views = build(rows[:first][::-1], named_fields)
    return make_page(CURSOR, [(view.id, view) for view in views], len(rows) > first, after)


def count_of(viewer: User, chosen: Filter) -> int:
    """How many of the viewer's killmails the filter leaves."""
    return int(chosen.apply(_mine(viewer, fn.COUNT(1)), viewer).scalar())


def held_by(viewer: User) -> dict[str, int]:
    """Stored killmails in the viewer's lists: `alone` in nobody else's, `shared` in others' too."""
    row = execute(
        """
        SELECT COUNT(*), COALESCE(SUM(CASE WHEN EXISTS (
            SELECT 1 FROM user_killmails o WHERE o.killmail_id = u.killmail_id AND o.user_id <> u.user_id
        ) THEN 1 ELSE 0 END), 0)
        FROM user_killmails u JOIN killmails k ON k.killmail_id = u.killmail_id WHERE u.user_id = ?
        """,
        (viewer.id,),
    ).fetchone()
    return {"alone": int(row[0]) - int(row[1]), "shared": int(row[1])}


def one_of(
    viewer: User, killmail_id: int, named_fields: frozenset[str], spend: Spend | None = None
) -> KillmailView | None:
    """One of the viewer's killmails; None says as little about others' as about those that do not exist."""
    rows = list(_mine(viewer, *KILLMAIL_COLUMNS).where(UserKillmail.killmail_id == killmail_id).tuples())
    if spend is not None:
        spend(rows_to_read(rows, named_fields))
    views = build(rows, named_fields)
    return views[0] if views else None


def load(killmail_ids: Sequence[int], named_fields: frozenset[str]) -> list[KillmailView]:
    """Those that are stored, in the order given, whoever may see them: the caller has checked, or will.

    One whose rows make no killmail (edited by hand, say) is left out and logged.
    """
    query: Any = Killmail.select(*KILLMAIL_COLUMNS).join(Victim, on=Victim.killmail == Killmail.killmail_id)
    rows = {row[0]: row for row in query.where(Killmail.killmail_id.in_(list(killmail_ids))).tuples()}
    wanted = [rows[killmail_id] for killmail_id in killmail_ids if killmail_id in rows]
    try:
        return build(wanted, named_fields)
    except UNAVAILABLE_ERRORS:
        raise
    except Exception:  # noqa: BLE001 - whatever it was, each is tried alone, and logged
        return [view for row in wanted for view in _build_alone(row, named_fields)]


def _build_alone(row: Any, named_fields: frozenset[str]) -> list[KillmailView]:
    """The one, or none where its rows are no killmail."""
    try:
        return build([row], named_fields)
    except UNAVAILABLE_ERRORS:
        raise
    except Exception:
        log.exception("killmail %s: its rows cannot be read; it is left out", row[0])
        return []


def reached_at(viewer: User, killmail_id: int) -> datetime | None:
    """When a killmail reached the viewer's lists: when it was listed or stored, whichever was later. None: never."""
    query: Any = UserKillmail.select(UserKillmail.linked_at, Killmail.created_at).join(
        Killmail, JOIN.LEFT_OUTER, on=Killmail.killmail_id == UserKillmail.killmail_id
    )
    rows = list(query.where((UserKillmail.user == viewer.id) & (UserKillmail.killmail_id == killmail_id)).tuples())
    return max(at for at in rows[0] if at is not None) if rows else None


def reached_since(viewer: User, since: datetime) -> list[tuple[int, datetime]]:
    """The viewer's stored killmails that reached the lists at `since` or later: (id, when), the earliest first."""
    query: Any = UserKillmail.select(UserKillmail.killmail_id, UserKillmail.linked_at, Killmail.created_at).join(
        Killmail, on=Killmail.killmail_id == UserKillmail.killmail_id
    )
    late = (UserKillmail.linked_at >= since) | (Killmail.created_at >= since)
    rows = [(each, max(times)) for each, *times in query.where((UserKillmail.user == viewer.id) & late).tuples()]
    return sorted(rows, key=lambda row: (row[1], row[0]))


def last_reached(viewer: User) -> int | None:
    """Of the viewer's stored killmails, one that reached the lists last: where a page starts to follow them."""
    query: Any = UserKillmail.select(UserKillmail.killmail_id, UserKillmail.linked_at, Killmail.created_at).join(
        Killmail, on=Killmail.killmail_id == UserKillmail.killmail_id
    )
    mine = query.where(UserKillmail.user == viewer.id)
    newest = [
        row
        for column in (UserKillmail.linked_at, Killmail.created_at)
        for row in mine.order_by(column.desc()).limit(1).tuples()
    ]
    return max(newest, key=lambda row: max(row[1:]))[0] if newest else None


def viewers_of(killmail_ids: Sequence[int]) -> list[tuple[int, int]]:
    """(user id, killmail id) for the users in whose lists the killmails stood: two a killmail, hardly ever more."""
    query: Any = UserKillmail.select(UserKillmail.user, UserKillmail.killmail_id)
    rows = query.where(UserKillmail.killmail_id.in_(list(killmail_ids))).tuples()
    return [(user_id, killmail_id) for user_id, killmail_id in rows]


def _bounds(holds: Callable[[Any], Any]) -> Any:
    """A bound on the id, told of every table that is joined by it.

    Told of one only, PostgreSQL may merge the tables from their very ends: a page then costs what lies before it.
    """
    return holds(UserKillmail.killmail_id) & holds(Killmail.killmail_id) & holds(Victim.killmail)


def _mine(viewer: User, *columns: Any) -> Any:
    return (
        UserKillmail.select(*columns)
        .join(Killmail, on=Killmail.killmail_id == UserKillmail.killmail_id)
        .join(Victim, on=Victim.killmail == Killmail.killmail_id)
        .where(UserKillmail.user == viewer.id)
    )
