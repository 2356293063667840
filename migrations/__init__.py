"""The schema's history, run by peewee's own migration runner; and the check that code and schema belong together.

Any number of processes may upgrade at once, on either engine: one does it, the others wait and find nothing to do. A
migration that fails, or whose process dies, leaves what was there before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peewee import Database
from playhouse.migrations import Runner

from database import db, is_sqlite

DIRECTORY = Path(__file__).resolve().parent
#: PostgreSQL advisory lock: of two machines that migrate at once, one waits and then finds nothing to do.
ADVISORY_LOCK = 727_201


class SchemaError(RuntimeError):
    """Code and schema do not belong together; the text says what to run."""


def upgrade() -> list[str]:
    """Apply what is missing; returns the names of the migrations applied. Raises SchemaError on a newer schema."""
    with db.connection_context(), _alone():
        runner = _runner(db.obj)
        _refuse_newer(runner)
        return list(runner.up())


def check() -> None:
    """Raise SchemaError unless every migration this code knows is applied, and no other."""
    with db.connection_context():
        runner = _runner(db.obj)
        _refuse_newer(runner)
        if any(not state.applied for state in runner.status()):
            raise SchemaError("the database's schema is older than this code: run `python scripts/migrate.py`")


def _refuse_newer(runner: Runner) -> None:
    if any(state.path is None for state in runner.status()):
        raise SchemaError("the database's schema is newer than this code: update the code")


@contextmanager
def _alone() -> Iterator[None]:
    """Nobody else migrates this database meanwhile."""
    if is_sqlite():
        # Off before the transaction, where it cannot be switched: to rebuild a table is to drop the old one, and with
        # foreign keys on that deletes every row that refers to it.
        db.execute_sql("PRAGMA foreign_keys = OFF")
        try:
            with db.atomic():
                yield
        finally:
            db.execute_sql("PRAGMA foreign_keys = ON")
        return
    # Whoever waits here waits for as long as the other's migration takes; the migration itself waits for no lock long.
    db.execute_sql("SET lock_timeout = 0")
    try:
        db.execute_sql("SELECT pg_advisory_lock(%s)", (ADVISORY_LOCK,))
    finally:
        db.execute_sql("RESET lock_timeout")
    try:
        yield
    finally:
        db.execute_sql("SELECT pg_advisory_unlock(%s)", (ADVISORY_LOCK,))


def _runner(database: Database) -> Runner:
    return Runner(database, str(DIRECTORY))
