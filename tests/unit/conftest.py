"""Fixtures of the unit tests: an empty, migrated database of each kind, made by the migrations that production runs.

SQLite is a file of the test's own, copied from one that is migrated once a run. PostgreSQL is one scratch database
(`tests/postgres.py` says where), reset after every test and dropped at the end.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg2
import pytest
from cryptography.fernet import Fernet
from peewee import Database

import database
import migrations
import models
from tests import postgres
from tests.unit.fake_sso import FakeSso
from tokens import TokenCipher


@pytest.fixture(params=["sqlite", "postgres"])
def any_db_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The DATABASE_URL of an empty, migrated database of the test's own: the test runs once per engine.

    For what connects by itself, such as another process. Nothing is connected yet.
    """
    if request.param == "sqlite":
        path = tmp_path / "any.db"
        shutil.copyfile(request.getfixturevalue("migrated_sqlite_file"), path)
        yield f"sqlite:///{path}"
    else:
        url = request.getfixturevalue("shared_postgres_url")
        yield url
        _reset(url)


@pytest.fixture
def any_db(any_db_url: str) -> Iterator[Database]:
    """`database.db` bound to an empty, migrated database; the test runs once on SQLite and once on PostgreSQL.

    The test's own thread has a connection for the length of the test. Other threads take theirs as in production, with
    `with database.db.connection_context():`, and must have ended when the test does. What differs between the engines
    is decided by `database.is_sqlite()`.
    """
    with _connected(any_db_url) as connected:
        yield connected


@pytest.fixture
def token_key() -> str:
    """A TOKEN_KEYS of one key, this test's own."""
    return Fernet.generate_key().decode()


@pytest.fixture
def cipher(token_key: str) -> TokenCipher:
    """Encrypts tokens with this test's key."""
    return TokenCipher([token_key])


@pytest.fixture
def sso() -> FakeSso:
    """An SSO that knows nobody yet."""
    return FakeSso()


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with the schema, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "empty.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def shared_postgres_url() -> Iterator[str]:
    """The address of the database that the tests use one after the other, with a copy of what the migrations wrote."""
    postgres.require_server()
    with postgres.scratch_database() as url:
        _migrate(url)
        _run_sql(url, "CREATE SCHEMA migrated", *(f"CREATE TABLE migrated.{t} AS TABLE public.{t}" for t in _tables()))
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """All tests skipped for want of PostgreSQL as one line of the summary: pytest groups them by place and text."""
    report = yield
    if report.skipped and call.excinfo is not None and getattr(call.excinfo.value, "msg", "") == postgres.NOT_REACHABLE:
        report.longrepr = (__file__, 0, f"Skipped: {postgres.NOT_REACHABLE}")
    return report


@contextmanager
def _connected(url: str) -> Iterator[Database]:
    connected = database.connect(url)
    connected.connect()
    try:
        yield connected
    finally:
        connected.close()
        cast(Any, connected).close_all()  # those of threads that have ended, too


def _migrate(url: str) -> None:
    made = database.connect(url)
    migrations.upgrade()
    cast(Any, made).close_all()


def _reset(url: str) -> None:
    """Make it as the migrations left it: ten times faster than TRUNCATE or a fresh copy. Ids go on counting."""
    # Whoever is still connected might hold a lock for ever.
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    _run_sql(
        url,
        f"{others} AND pid <> pg_backend_pid()",
        *(f"DELETE FROM public.{table}" for table in reversed(_tables())),
        *(f"INSERT INTO public.{table} SELECT * FROM migrated.{table}" for table in _tables()),
    )


def _tables() -> list[str]:
    """Parents before children."""
    return [model._meta.table_name for model in models.TABLES]


def _run_sql(url: str, *statements: str) -> None:
    """Each statement by itself; as a user who may create databases and end connections."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)
