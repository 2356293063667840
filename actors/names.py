"""`resolve_names`: what the ids in stored killmails are called. It needs no argument: the table says what is wanted."""

from __future__ import annotations

import logging
from datetime import timedelta

import dramatiq

import runtime
from actors import sending
from actors.middleware import THIS_ADDRESS, stopping
from actors.permits import permit_for
from actors.queues import LAST, NAMES
from database import db, execute, lock_clause, placeholders, utcnow
from esi.client import Name as EsiName
from esi.errors import EsiError, EsiNotFound, EsiTransport
from esi.limiter import Closed, RequestPermit
from esi.rate_limit import UNBUCKETED
from events import NamesResolved, publish
from models import Name

logger = logging.getLogger(__name__)

#: The most ids that /universe/names takes at once.
BATCH = 1000
#: A batch in somebody's hands is left alone for so long.
CLAIM = timedelta(minutes=2)
#: ESI knows new characters after about an hour (esi-issues 1086), and some never (1391).
UNKNOWN_RETRY = timedelta(hours=6)
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
    time_limit=5 * 60_000,  # a batch that is halved down to its bad ids, at ESI's slowest
    max_age=30 * 60_000,  # carries nothing: a newer one does the same
)
def resolve_names() -> None:
    """Resolve up to 1,000 wanted ids."""
    wanted = _claim_wanted()
    if not wanted:
        return
    road = Road()
    try:
        found = runtime.esi().names(wanted, road.acquire)
        names = [*found.names, *_single_characters(found.unknown, road)]
    except EsiError as error:
        logger.info("%s names wait: %s", len(wanted), error)
        return
    _save(names)
    named = {name.id for name in names}
    _put_off(found.unknown - named, UNKNOWN_RETRY)
    if not road.closed and not found.unknown:  # nothing was halved: every id was in an answer
        _put_off(frozenset(wanted) - found.unknown - named, UNSETTLED_RETRY)
    if names:
        publish(NamesResolved())
    if len(wanted) == BATCH:
        sending.send(resolve_names)


def names_wanted() -> bool:
    """Whether any id is due to be asked for."""
    row = execute(
        "SELECT 1 FROM names WHERE name IS NULL AND (retry_at IS NULL OR retry_at <= ?) LIMIT 1", (utcnow(),)
    ).fetchone()
    return row is not None


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


class Road:
    """Permission for the requests of one run; remembers whether it was refused."""

    closed = False

    def acquire(self) -> RequestPermit | None:
        """None where the road is closed, or ESI cannot be reached: what is found by then is kept."""
        if stopping():
            self.closed = True
            return None
        try:
            return permit_for(UNBUCKETED, THIS_ADDRESS, background=True)
        except (Closed, EsiTransport) as closed:
            logger.info("names wait: %s", closed)
            self.closed = True
            return None


def _single_characters(unknown: frozenset[int], road: Road) -> list[EsiName]:
    names = []
    characters = [id_ for id_ in sorted(unknown) if any(id_ in ids for ids in CHARACTER_IDS)]
    for character_id in characters[:SINGLE_CHARACTERS]:
        permit = road.acquire()
        if permit is None:
            break
        try:
            name = runtime.esi().character_name(character_id, permit)
        except EsiNotFound:
            continue
        except EsiError as error:
            logger.info("single names wait: %s", error)
            break
        names.append(EsiName(character_id, name, "character"))
    return names


def _save(names: list[EsiName]) -> None:
    now = utcnow()
    with db.atomic():
        for name in sorted(names, key=lambda name: name.id):
            Name.update(name=name.name, category=name.category, retry_at=None, updated_at=now).where(
                Name.id == name.id
            ).execute()


def _put_off(unknown: frozenset[int], wait: timedelta) -> None:
    if unknown:
        ids = sorted(unknown)
        execute(f"UPDATE names SET retry_at = ? WHERE id IN ({placeholders(ids)})", (utcnow() + wait, *ids))
