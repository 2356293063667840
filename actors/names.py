"""`resolve_names`: what the ids in stored killmails are called, and how safe the solar systems among them are.

It needs no argument: the tables say what is wanted. What a run does not get to is handed back, never held until a claim
runs out: a worker that stops leaves it to the next one, and a closed road until it opens.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

import dramatiq

import runtime
import solar_systems
from actors import sending
from actors.expired import NAMES_MAX_AGE
from actors.queues import LAST, NAMES
from actors.road import Road
from actors.solar_systems import resolve_systems
from database import db, execute, lock_clause, placeholders, utcnow
from esi.client import Name as EsiName
from esi.errors import EsiError, EsiNotFound, EsiStatus
from events import NamesResolved, publish
from models import Name

logger = logging.getLogger(__name__)

#: The most ids that /universe/names takes at once.
BATCH = 1000
#: A batch in somebody's hands is left alone for so long.
CLAIM = timedelta(minutes=2)
#: ESI knows new characters after about an hour (esi-issues 1086), and some never (1391).
UNKNOWN_RETRY = timedelta(hours=6)
#: After an answer that failed with a status for all that was asked for.
FAILED_RETRY = timedelta(minutes=2)
#: Both waits grow up to this: each try costs errors, which others need.
LONGEST_RETRY = timedelta(days=2)
#: What an answer left out, or named in a way we cannot use.
UNSETTLED_RETRY = timedelta(minutes=15)
#: Characters that /universe/names does not know and that are asked for one by one, a run.
SINGLE_CHARACTERS = 10
#: Ids of player characters (EVE's documentation, "asset safety of id ranges").
CHARACTER_IDS = (range(90_000_000, 98_000_000), range(2_100_000_000, 2_147_483_648))


@dramatiq.actor(
    queue_name=NAMES,
    priority=LAST,
    max_retries=0,  # the tick sends it again while anything is wanted
    time_limit=10 * 60_000,  # a batch that is halved down to its bad ids, and twenty systems, at ESI's slowest
    max_age=NAMES_MAX_AGE,
)
def resolve_names() -> None:
    """Resolve up to 1,000 wanted ids, then a few solar systems; go on where more is wanted."""
    road = Road()
    more = [_resolve_ids(road), resolve_systems(road)]
    if (any(more) and road.reopens_at is None) or road.handed_over:
        sending.send(resolve_names)


def _resolve_ids(road: Road) -> bool:
    """Whether it was a whole batch, so that more may be wanted."""
    wanted = frozenset(_claim_wanted())
    if not wanted:
        return False
    try:
        found = runtime.esi().names(wanted, road.acquire)
    except EsiStatus as error:
        road.fail(error)
        _put_off_longer(wanted, FAILED_RETRY)
        return False
    except EsiError as error:
        road.fail(error)
        return False
    if found.unreadable:
        logger.warning("names: skipped %s malformed or unexpected entries of ESI's answers", found.unreadable)
    singles, unanswered = _single_characters(found.unknown, road)
    names = [*found.names, *singles]
    _save(names)
    unknown = found.unknown - unanswered - {name.id for name in singles}
    _put_off_longer(unknown, UNKNOWN_RETRY)
    unsettled = wanted - unknown - {name.id for name in names}
    if road.reopens_at is not None:
        _put_off(unsettled, road.reopens_at)
    elif not found.unknown:  # nothing was halved: every id was in an answer
        _put_off(unsettled, utcnow() + UNSETTLED_RETRY)
    if names:
        publish(NamesResolved())
    return len(wanted) == BATCH


def names_wanted() -> bool:
    """Whether any id, or the status of any solar system, is due to be asked for."""
    row = execute(
        "SELECT 1 FROM names WHERE name IS NULL AND (retry_at IS NULL OR retry_at <= ?) LIMIT 1", (utcnow(),)
    ).fetchone()
    return row is not None or solar_systems.wanted()


def _claim_wanted() -> list[int]:
    now = utcnow()
    rows = execute(
        f"""
        UPDATE names SET retry_at = ? WHERE id IN (
            SELECT id FROM names WHERE name IS NULL AND (retry_at IS NULL OR retry_at <= ?)
            LIMIT ? {lock_clause(skip_locked=True)})
        RETURNING id
        """,
        (now + CLAIM, now, BATCH),
    ).fetchall()
    return [id_ for (id_,) in rows]


def _single_characters(unknown: frozenset[int], road: Road) -> tuple[list[EsiName], set[int]]:
    """Characters' names by their own route, and those of the characters that it gave no answer for."""
    names = []
    characters = [id_ for id_ in sorted(unknown) if any(id_ in ids for ids in CHARACTER_IDS)]
    unanswered = set(characters)
    for character_id in characters[:SINGLE_CHARACTERS]:
        permit = road.acquire()
        if permit is None:
            break
        try:
            name = runtime.esi().character_name(character_id, permit)
            names.append(EsiName(character_id, name, "character"))
        except EsiNotFound:
            pass
        except EsiError as error:
            road.fail(error)
            break
        unanswered.remove(character_id)
    return names, unanswered


def _save(names: list[EsiName]) -> None:
    """Solar systems among them are wanted from now on: their status is next."""
    now = utcnow()
    with db.atomic():
        for name in sorted(names, key=lambda name: name.id):
            Name.update(name=name.name, category=name.category, retry_at=None, updated_at=now).where(
                Name.id == name.id
            ).execute()
        solar_systems.enter([name.id for name in names if name.category == "solar_system"])


def _put_off_longer(ids: Collection[int], least: timedelta) -> None:
    """Each for about as long as it has been wanted already, so that the waits double, and `least` at least."""
    if not ids:
        return
    now = utcnow()
    by_wait: dict[timedelta, list[int]] = {}
    for row in Name.select(Name.id, Name.updated_at).where(Name.id.in_(sorted(ids))):
        wait = least
        while wait * 2 <= min(LONGEST_RETRY, now - row.updated_at):
            wait *= 2
        by_wait.setdefault(wait, []).append(row.id)
    for wait, waiting in by_wait.items():
        _put_off(waiting, now + wait)


def _put_off(ids: Collection[int], until: datetime) -> None:
    if ids:
        ordered = sorted(ids)
        execute(f"UPDATE names SET retry_at = ? WHERE id IN ({placeholders(ordered)})", (until, *ordered))
