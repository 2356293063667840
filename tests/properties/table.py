"""The database as the model sees it: read whole, compared whole, and wiped between examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from database import db, execute
from models import TABLES, Lock
from tests.properties.model import Model

T = TypeVar("T")

SYNC = 'id, user_id, state, priority, "full", next_page, found, skipped, saved, failed, foreign_entries'
FOREIGN_LINKS = """
    FROM user_killmails l JOIN users u ON u.id = l.user_id JOIN victims v ON v.killmail_id = l.killmail_id
    WHERE COALESCE(v.character_id, 0) <> u.character_id AND NOT EXISTS (
        SELECT 1 FROM attackers a WHERE a.killmail_id = l.killmail_id AND a.character_id = u.character_id)
"""
ENDED = ("FINISHED", "FAILED")


def wipe() -> None:
    """Nobody, and nothing to do; ids go on counting."""
    for table in reversed(TABLES):
        if table is not Lock:
            execute(f"DELETE FROM {table._meta.table_name}")
    execute("UPDATE locks SET wake_at = NULL, sent = 0")


class TwoConnections:
    """Work is done on one of two connections in turn, so that nothing relies on what one of them remembers."""

    def __init__(self) -> None:
        self._other = ThreadPoolExecutor(1)
        self._turn = 0

    def close(self) -> None:
        self._other.shutdown()

    def run(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        self._turn += 1
        if self._turn % 2:
            return work(*args, **options)
        done: Future[T] = self._other.submit(_with_a_connection, work, *args, **options)
        return done.result()


def _with_a_connection(work: Callable[..., T], *args: Any, **options: Any) -> T:
    with db.connection_context():
        return work(*args, **options)


@dataclass(frozen=True)
class Snapshot:
    """All that is written down, read at one moment when nobody is at work."""

    ledger: dict[int, tuple[Any, ...]]  # state, attempts, priority, refusals, turn
    stored: set[int]
    links: dict[int, set[int]]  # of a user
    items: dict[int, set[int]]  # of a sync
    syncs: dict[int, tuple[Any, ...]]  # user, state, priority, full, next_page, found, skipped, saved, failed, foreign
    foreign_links: int  # of stored killmails, to pilots whom they do not name
    users: dict[int, tuple[bool, bool]]  # a full sync is asked for, the last list was read to its end

    @classmethod
    def taken(cls) -> Snapshot:
        rows = execute("SELECT killmail_id, state, attempts, priority, refusals, turn FROM ledger").fetchall()
        syncs = execute(f"SELECT {SYNC} FROM syncs").fetchall()
        users = execute("SELECT id, full_requested, last_sync_complete FROM users").fetchall()
        return cls(
            ledger={killmail_id: tuple(columns) for killmail_id, *columns in rows},
            stored=set(_column("SELECT killmail_id FROM killmails")),
            links=_grouped("SELECT user_id, killmail_id FROM user_killmails"),
            foreign_links=_column(f"SELECT COUNT(*) {FOREIGN_LINKS}")[0],
            items=_grouped("SELECT sync_id, killmail_id FROM sync_items"),
            syncs={row[0]: (*row[1:4], bool(row[4]), *row[5:]) for row in syncs},
            users={user_id: (bool(full), bool(complete)) for user_id, full, complete in users},
        )

    def compare(self, model: Model) -> None:
        """Row by row, column by column."""
        rows = {w: (r.state, r.attempts, r.priority, r.refusals, r.turn) for w, r in model.rows.items()}
        assert self.ledger == rows, "the ledger"
        assert self.stored == model.stored, "stored killmails"
        assert self.links == {u: pilot.links for u, pilot in model.pilots.items() if pilot.links}, "links"
        assert self.users == {u: (p.full_requested, p.complete) for u, p in model.pilots.items()}, "users"
        assert self.items == {s: run.items for s, run in model.runs.items() if run.items}, "sync items"
        assert self.syncs == {
            sync_id: (
                *(r.user_id, r.state, r.priority, r.full, r.next_page),
                *(r.found, r.skipped, r.saved, r.failed, r.foreign),
            )
            for sync_id, r in model.runs.items()
        }, "syncs"

    def keeps_the_promises(self, may_be_hidden: Collection[int] = ()) -> None:
        """What holds at any moment, whatever was done, in which order and by how many at once.

        `may_be_hidden`: killmails that appeared in lists of pilots whom they do not name.
        """
        wanted = self.ledger.keys()
        listed: set[int] = set().union(*self.links.values())
        assert listed <= self.stored | wanted, "every listed killmail is stored or has a row"
        assert (self.stored | wanted) - listed <= set(may_be_hidden) - wanted, "nothing is nobody's"
        assert not self.foreign_links, "what is stored is linked only to pilots whom it names"
        assert not self.stored & wanted, "what is stored has no row"
        for sync_id, waits_for in self.items.items():
            assert waits_for <= wanted, f"sync {sync_id} waits for what nobody will fetch"
        assert self.links.keys() <= self.users.keys(), "no link of a user who left"
        active = [user_id for user_id, state, *_ in self.syncs.values() if state not in ENDED]
        assert len(active) == len(set(active)), "one active sync a user"
        for sync_id, (_, state, _, _, _, found, skipped, saved, failed, _) in self.syncs.items():
            assert min(found, skipped, saved, failed) >= 0, f"sync {sync_id} counts below zero"
            if state in ENDED:
                assert found == skipped + saved + failed, f"the counts of sync {sync_id} do not add up"


def _column(sql: str) -> list[int]:
    return [value for (value,) in execute(sql).fetchall()]


def _grouped(sql: str) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    for key, value in execute(sql).fetchall():
        found[key].add(value)
    return dict(found)
