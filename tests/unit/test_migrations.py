"""The schema's history: applied once, whoever asks and how many at once; equal to models.py; and not for other code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from peewee import Database, IntegrityError
from playhouse.migrations import Runner

import database
import migrations
import models
import settings
from database import db, execute, is_sqlite
from tests import postgres

#: Every migration, in order.
ALL = sorted(path.stem for path in migrations.DIRECTORY.glob("[0-9]*.py"))

#: A rebuild of `users`, as SQLite needs it for most changes: what refers to a user must survive it.
REBUILD = """
def up(migrator, db):
    migrator.migrate(migrator.drop_not_null("users", "owner_hash"))
"""
ADDS = """
def up(migrator, db):
    db.execute_sql("CREATE TABLE added (id INTEGER)")
"""
REFUSES = """
from migrations import refuse_older_code


def up(migrator, db):
    refuse_older_code(db, 9999)
"""
FAILS_HALFWAY = """
def up(migrator, db):
    db.execute_sql("CREATE TABLE half_done (id INTEGER)")
    raise RuntimeError("broken")
"""


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database without anything in it; the test runs once per engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.db"
    else:
        postgres.require_server()
        with postgres.scratch_database() as url:
            yield url


@pytest.fixture
def empty_db(empty_url: str) -> Iterator[Database]:
    """`database.db` bound to an empty database. No connection is open."""
    with bound(empty_url) as made:
        yield made


@contextmanager
def bound(url: str) -> Iterator[Database]:
    made = database.connect(url)
    try:
        yield made
    finally:
        cast(Any, made).close_all()


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of migrations, where a test may add one."""
    made = tmp_path / "migrations"
    made.mkdir()
    for path in migrations.DIRECTORY.glob("[0-9]*.py"):
        (made / path.name).write_text(path.read_text())
    monkeypatch.setattr(migrations, "DIRECTORY", made)
    return made


def schema() -> dict[str, Any]:
    """Everything the engine says about our tables: columns, keys, checks and indexes."""
    with db.connection_context():
        found = _sqlite_schema() if is_sqlite() else _postgresql_schema()
    return {key: value for key, value in found.items() if "schema_migration" not in str(key)}


def _sqlite_schema() -> dict[str, Any]:
    """The statements it was made by: SQLite keeps them as they were."""
    rows = execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {f"{kind} {name}": re.sub(r"\s+", " ", sql) for kind, name, sql in rows if name != "sqlite_sequence"}


def _postgresql_schema() -> dict[str, Any]:
    columns = execute(
        "SELECT table_name, column_name, ordinal_position, data_type, character_maximum_length, is_nullable,"
        " column_default FROM information_schema.columns WHERE table_schema = 'public'"
    ).fetchall()
    constraints = execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace"
    ).fetchall()
    indexes = execute("SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'").fetchall()
    found: dict[str, Any] = {f"{row[0]}.{row[1]}": row[2:] for row in columns}
    found |= {f"{table}: constraint {name}": definition for table, name, definition in constraints}
    return found | {f"{table}: index {name}": definition for table, name, definition in indexes}


def test_the_migrated_schema_is_that_of_the_models(empty_url: str, tmp_path: Path) -> None:
    with bound(empty_url):
        migrations.upgrade()
        migrated = schema()

    with bound(f"sqlite:///{tmp_path}/models.db") if "sqlite" in empty_url else scratch() as made:
        with db.connection_context():
            made.create_tables(models.TABLES)
        of_models = schema()

    assert migrated == of_models
    assert any("priority BETWEEN" in str(value) or "priority >= 0" in str(value) for value in migrated.values())
    assert any("syncs_one_active" in str(key) for key in migrated)  # the comparison sees checks and indexes


@contextmanager
def scratch() -> Iterator[Database]:
    with postgres.scratch_database() as url, bound(url) as made:
        yield made


def test_every_table_of_the_models_is_listed(empty_db: Database) -> None:
    migrations.upgrade()
    with db.connection_context():
        tables = set(empty_db.get_tables())
    assert tables == {cast(Any, model)._meta.table_name for model in models.TABLES} | {"schema_migration"}


def test_a_second_time_does_nothing(empty_db: Database) -> None:
    assert migrations.upgrade() == ALL
    before = schema()

    assert migrations.upgrade() == []

    assert schema() == before
    with db.connection_context():
        assert execute("SELECT COUNT(*) FROM locks").fetchone()[0] == 3
    migrations.check()


def test_of_many_processes_at_once_one_does_it(empty_url: str) -> None:
    environment = {**os.environ, **dict.fromkeys(settings.NAMES, ""), "DATABASE_URL": empty_url}
    command = [sys.executable, "scripts/migrate.py", "--json"]
    started = [
        subprocess.Popen(command, cwd=settings.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(5)
    ]
    ended = [(*process.communicate(timeout=60), process.returncode) for process in started]

    applied, nothing = (json.dumps({"applied": names}).encode() + b"\n" for names in (ALL, []))
    assert sorted(ended) == sorted([(applied, b"", 0), *[(nothing, b"", 0)] * 4])


def test_down_leaves_nothing_and_up_again_everything(empty_db: Database) -> None:
    migrations.upgrade()
    before = schema()

    with db.connection_context():
        assert cast(Any, Runner)(empty_db, str(migrations.DIRECTORY)).down(ALL[0]) == ALL[::-1]
        assert empty_db.get_tables() == ["schema_migration"]

    assert migrations.upgrade() == ALL
    assert schema() == before


def test_systems_that_have_a_name_are_wanted(empty_db: Database, directory: Path) -> None:
    """Given names from before solar systems were kept, When it is upgraded, Then the systems of them are wanted."""
    later = [path for path in directory.glob("*.py") if path.stem >= "0003"]
    kept = {path: path.read_text() for path in later}
    for path in later:
        path.unlink()
    migrations.upgrade()
    named = [(30000142, "Jita", "solar_system"), (587, "Rifter", "inventory_type"), (30000144, None, None)]
    with db.connection_context():
        for id_, text, category in named:
            models.Name.create(id=id_, name=text, category=category, force_insert=True)
    for path, text in kept.items():
        path.write_text(text)

    assert migrations.upgrade() == [path.stem for path in sorted(later)]

    with db.connection_context():
        rows = models.SolarSystem.select(models.SolarSystem.id, models.SolarSystem.security_status).tuples()
        assert list(rows) == [(30000142, None)]


def test_what_waits_already_gets_its_turns(empty_db: Database, directory: Path) -> None:
    """Given rows from before syncs took turns, When it is upgraded, Then each has its place in its sync's list."""
    later = {path: path.read_text() for path in directory.glob("*.py") if path.stem >= "0008"}
    for path in later:
        path.unlink()
    migrations.upgrade()
    with db.connection_context():
        now = database.utcnow()
        for number, wanted in ((1, (10, 9, 8)), (2, (8, 3))):
            execute("INSERT INTO users (id, character_id, character_name, owner_hash, scopes, token_version,"
                    " session_epoch, last_sync_complete, full_requested, consecutive_failures, created_at)"
                    " VALUES (?, ?, 'A pilot', 'x', '', 0, 0, FALSE, FALSE, 0, ?)", (number, number, now))  # fmt: skip
            execute('INSERT INTO syncs (id, user_id, trigger, priority, "full", state, next_page, found, skipped,'
                    " saved, failed, attempts, queued_at)"
                    " VALUES (?, ?, 'LOGIN', 8, FALSE, 'FETCHING', 2, 3, 0, 0, 0, 0, ?)",
                    (number, number, now))  # fmt: skip
            for killmail_id in wanted:
                execute("INSERT INTO ledger (killmail_id, killmail_hash, priority, state, attempts, created_at)"
                        " VALUES (?, 'h', 8, 'pending', 0, ?) ON CONFLICT DO NOTHING", (killmail_id, now))  # fmt: skip
                execute("INSERT INTO sync_items (sync_id, killmail_id) VALUES (?, ?)", (number, killmail_id))
    for path, text in later.items():
        path.write_text(text)

    migrations.upgrade()

    with db.connection_context():
        rows = execute("SELECT killmail_id, turn FROM ledger ORDER BY killmail_id").fetchall()
        assert [tuple(row) for row in rows] == [(3, 1), (8, 0), (9, 1), (10, 0)]


@pytest.mark.parametrize("status", [1.1, -1.1, float("inf")])
def test_no_row_holds_an_impossible_security_status(empty_db: Database, status: float) -> None:
    migrations.upgrade()
    with db.connection_context(), pytest.raises(IntegrityError):
        models.SolarSystem.create(id=1, security_status=status, force_insert=True)


def test_an_older_schema_is_told_what_to_run(empty_db: Database) -> None:
    with pytest.raises(migrations.SchemaError, match=r"older than this code: run `\S+ scripts/migrate\.py`"):
        migrations.check()


def test_a_newer_schema_that_only_adds_is_accepted(empty_db: Database, directory: Path) -> None:
    """Given a host that has been upgraded, When a process of the older code starts elsewhere, Then it runs."""
    (directory / "9999_later.py").write_text(ADDS)
    migrations.upgrade()
    (directory / "9999_later.py").unlink()

    migrations.check()
    assert migrations.upgrade() == []


def test_a_newer_schema_that_older_code_cannot_run_on_is_refused_by_it(empty_db: Database, directory: Path) -> None:
    (directory / "9999_later.py").write_text(REFUSES)
    migrations.upgrade()
    migrations.check()  # the code that knows it runs
    (directory / "9999_later.py").unlink()

    for ask in (migrations.check, migrations.upgrade):
        with pytest.raises(migrations.SchemaError, match="newer than this code can run on: update the code"):
            ask()


def test_an_older_migration_that_came_later_is_still_applied(empty_db: Database, directory: Path) -> None:
    """Given a newer migration that is applied, Then one of this code's own that is missing is not forgotten."""
    (directory / "9999_later.py").write_text(ADDS)
    migrations.upgrade()
    (directory / "9999_later.py").unlink()
    (directory / "9998_between.py").write_text(ADDS.replace("added", "added_between"))

    with pytest.raises(migrations.SchemaError, match="older than this code"):
        migrations.check()
    assert migrations.upgrade() == ["9998_between"]
    migrations.check()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_cannot_hold_every_name_is_refused(encoding: str) -> None:
    postgres.require_server()
    with postgres.scratch_database(f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0") as url, bound(url) as made:
        for ask in (migrations.upgrade, migrations.check):
            with pytest.raises(migrations.SchemaError, match=f"encoding is {encoding}.*createdb --encoding=UTF8"):
                ask()
        with db.connection_context():
            assert made.get_tables() == []


def test_a_migration_that_fails_leaves_what_was_there(empty_db: Database, directory: Path) -> None:
    migrations.upgrade()
    before = schema()
    (directory / "9999_fails.py").write_text(FAILS_HALFWAY)

    with pytest.raises(RuntimeError, match="broken"):
        migrations.upgrade()

    assert schema() == before
    (directory / "9999_fails.py").unlink()
    assert migrations.upgrade() == []  # the lock is free again
    migrations.check()


def test_rebuilding_a_table_keeps_what_refers_to_it(empty_db: Database, directory: Path) -> None:
    """SQLite rebuilds by dropping; with foreign keys on, that would delete every user's links."""
    migrations.upgrade()
    with db.connection_context():
        user = models.User.create(character_id=1, character_name="A pilot", owner_hash="x")
        models.UserKillmail.create(user=user.id, killmail_id=1, force_insert=True)
    (directory / "9999_rebuild.py").write_text(REBUILD)

    assert migrations.upgrade() == ["9999_rebuild"]

    with db.connection_context():
        assert models.UserKillmail.select().count() == 1
        if is_sqlite():
            assert execute("PRAGMA foreign_keys").fetchone()[0] == 1
            assert execute("PRAGMA foreign_key_check").fetchall() == []


def test_who_waits_for_another_machine_waits_for_as_long_as_it_takes() -> None:
    """Given a limit of 50 ms on locks, When another machine migrates for longer, Then it waits for it."""
    postgres.require_server()
    with scratch() as made:
        cast(Any, made).connect_params["options"] += " -c lock_timeout=50ms"
        cast(Any, made).limits_transactions = False
        migrating, waited = threading.Event(), threading.Event()

        def migrate_slowly() -> None:
            with db.connection_context(), migrations._alone():
                migrating.set()
                waited.wait(0.5)

        other = threading.Thread(target=migrate_slowly)
        other.start()
        migrating.wait(10)
        assert migrations.upgrade() == ALL
        other.join()

        held = "SELECT COUNT(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        with db.connection_context():
            assert execute("SHOW lock_timeout").fetchone()[0] == "50ms"
            assert execute(f"{held} WHERE locktype = 'advisory' AND datname = current_database()").fetchone()[0] == 0
