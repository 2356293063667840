"""Syncs that no message is out for, and which of them need another access token before their list can be read.

Whether a sync needs one is written in its user's row, so that no index of `syncs` tells. The invariant: what is asked
while the login service is closed does not grow with the syncs that are pending, and no sync that could be read is
hidden for good by others in front of it. `look` sees the first ones at every look, and some of the others in turn.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from database import execute, placeholders, utcnow

#: What an access token has left at least, to be used without a refresh (`tokens/access.py`).
TOKEN_LIFE = timedelta(seconds=60)
#: Syncs of one part of a look; a look has two. Several windows, and some milliseconds.
LOOK = 500

# SQLite uses a partial index only for a query that repeats the index's own terms, word for word.
ACTIVE = "state IN ('QUEUED', 'LISTING')"
#: True for a sync that may be sent.
PENDING = f"{ACTIVE} AND sent_at IS NULL AND claimed_until IS NULL AND waiting_until IS NULL"


@dataclass(frozen=True, slots=True)
class PendingSync:
    """A sync that may be sent. `has_token`: its list can be read without another access token. `fails_alone`: its
    user's refreshes fail while those of others succeed."""

    sync_id: int
    priority: int
    attempts: int
    has_token: bool
    fails_alone: bool

    @property
    def failures(self) -> tuple[bool, int]:
        """The less, the more likely is its failure to be everybody's."""
        return self.fails_alone, self.attempts


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the order in which syncs are sent: behind this sync."""

    priority: int
    sync_id: int

    def is_before(self, other: Place) -> bool:
        return (-self.priority, self.sync_id) < (-other.priority, other.sync_id)


#: Before all syncs.
START = Place(11, 0)


def needing_refresh(sync_ids: Collection[int]) -> set[int]:
    """Of these syncs, those whose user has no access token that lives long enough."""
    if not sync_ids:
        return set()
    rows = execute(
        f"""SELECT s.id FROM syncs s JOIN users u ON u.id = s.user_id WHERE s.id IN ({placeholders(sync_ids)})
            AND (u.access_token IS NULL OR u.expires_at IS NULL OR u.expires_at < ?)""",
        (*sync_ids, utcnow() + TOKEN_LIFE),
    ).fetchall()
    return {sync_id for (sync_id,) in rows}


def first_pending(lowest: int = 0) -> list[PendingSync]:
    """The first LOOK pending syncs of this priority or a higher one, in the order in which they are sent."""
    return _behind(START, lowest, utcnow())


def look() -> list[PendingSync]:
    """The first pending syncs, and those behind the place where the last look ended, in the order they are sent in.

    The place moves on once nothing there can be read. The caller holds the lock row 'syncs', where it is kept.
    """
    now = utcnow()
    first = _behind(START, 0, now)
    place = _place()
    if len(first) < LOOK:
        _set_place(None, place)
        return first
    begin = _of(first[-1])
    if place is not None and begin.is_before(place):
        begin = place
    further = _behind(begin, 0, now)
    if not any(sync.has_token for sync in further):
        _set_place(_of(further[-1]) if len(further) == LOOK else None, place)
    return first + further


def more_to_look_at() -> bool:
    """Whether the last look ended before the last pending sync."""
    return _place() is not None


def _of(sync: PendingSync) -> Place:
    return Place(sync.priority, sync.sync_id)


def _place() -> Place | None:
    row = execute("SELECT passed_priority, passed_id FROM locks WHERE name = 'syncs'").fetchone()
    return None if row is None or row[1] is None else Place(*row)


def _set_place(place: Place | None, former: Place | None) -> None:
    if place != former:
        columns = (None, None) if place is None else (place.priority, place.sync_id)
        execute("UPDATE locks SET passed_priority = ?, passed_id = ? WHERE name = 'syncs'", columns)


def _behind(place: Place, lowest: int, now: datetime) -> list[PendingSync]:
    """Two ranges of the index `syncs_pending`, and one user's row for each sync in them."""
    columns = "SELECT id, user_id, priority, attempts FROM syncs"
    # A scalar sub-select: of an EXISTS or a join, PostgreSQL may make a scan of all users.
    rows = execute(
        f"""
        SELECT p.id, p.priority, p.attempts,
               (SELECT u.access_token IS NOT NULL AND u.expires_at >= ? FROM users u WHERE u.id = p.user_id),
               (SELECT u.refresh_fails_since IS NOT NULL FROM users u WHERE u.id = p.user_id)
        FROM (SELECT * FROM ({columns} WHERE {PENDING} AND priority = ? AND id > ? ORDER BY id LIMIT {LOOK}) AS same
              UNION ALL
              SELECT * FROM ({columns} WHERE {PENDING} AND priority < ? AND priority >= ?
                             ORDER BY priority DESC, id LIMIT {LOOK}) AS lower
              ORDER BY priority DESC, id LIMIT {LOOK}) AS p
        """,
        (now + TOKEN_LIFE, place.priority, place.sync_id, place.priority, lowest),
    ).fetchall()
    found = [
        PendingSync(sync_id, priority, attempts, bool(has_token), bool(fails_alone))
        for sync_id, priority, attempts, has_token, fails_alone in rows
    ]
    return sorted(found, key=lambda sync: (-sync.priority, sync.sync_id))
