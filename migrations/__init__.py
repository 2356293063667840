"""The schema's history, run by peewee's own migration runner; and the check that code and schema belong together.

Any number of processes may upgrade at once, on either engine: one does it, the others wait and find nothing to do. An
upgrade is one transaction: one that fails, or whose process dies, leaves what was there before it.

Code may run on a schema that is newer, as long as `schema_compat` does not say otherwise: most migrations only add. One
that older code cannot live with calls `refuse_older_code` in `up`; README.md ("Upgrades") says what that means.
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
    """Apply what is missing; returns the names of the migrations applied.

    Raises SchemaError on a schema that this code is too old for, and on an encoding that cannot hold every name.
    """
    with db.connection_context(), _alone():
        runner = _runner(db.obj)
        _refuse_encoding()
        _refuse_newer(runner)
        return list(runner.up())


def check() -> None:
    """Raise SchemaError unless every migration this code knows is applied, and the schema admits code this old."""
    with db.connection_context():
        runner = _runner(db.obj)
        _refuse_encoding()
        _refuse_newer(runner)
        if any(not state.applied for state in runner.status()):
            raise SchemaError(
                "the database's schema is older than this code: run `.venv/bin/python scripts/migrate.py`"
            )


def refuse_older_code(database: Database, number: int) -> None:
    """For a migration's `up`, with its own number: code that does not know it may not run on the schema any more.

    Its `down` passes the number that was required before, 0 if there was none.
    """
    database.execute_sql(  # type: ignore[no-untyped-call]
        f"UPDATE schema_compat SET min_code = {int(number)}"
    )


def _refuse_newer(runner: Runner) -> None:
    newest = max((state.idx for state in runner.status() if state.path is not None), default=0)
    if _oldest_code() > newest:
        raise SchemaError("the database's schema is newer than this code can run on: update the code")


def _oldest_code() -> int:
    """The newest migration that code has to know; 0 on a schema from before this was written down."""
    if not db.table_exists("schema_compat"):
        return 0
    row = db.execute_sql("SELECT MAX(min_code) FROM schema_compat").fetchone()
    return int(row[0] or 0)


def _refuse_encoding() -> None:
    """SQLite's is UTF-8, or another that holds the same characters."""
    if is_sqlite():
        return
    [encoding] = db.execute_sql("SHOW server_encoding").fetchone()
    if encoding != "UTF8":
        raise SchemaError(
            f"the database's encoding is {encoding}, which cannot hold every name: make one with "
            "`createdb --encoding=UTF8 --template=template0` and set DATABASE_URL to it"
        )


@contextmanager
def _alone() -> Iterator[None]:
    """No other process migrates this database in the meantime."""
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
    # The lock is the transaction's: behind pgbouncer, a session's lock could end up on another client's connection.
    with db.atomic():
        [limit] = db.execute_sql("SHOW lock_timeout").fetchone()
        # Waiting here takes as long as the other's migration does; the migration itself waits for no lock that long.
        db.execute_sql("SET LOCAL lock_timeout = 0")
        db.execute_sql("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
        db.execute_sql("SELECT set_config('lock_timeout', %s, true)", (limit,))
        yield


def _runner(database: Database) -> Runner:
    return Runner(database, str(DIRECTORY))
