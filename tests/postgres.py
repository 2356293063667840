"""PostgreSQL for tests: scratch databases with random names on the server of TEST_DATABASE_URL, or the local one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

SERVER = os.environ.get("TEST_DATABASE_URL") or "postgresql://postgres@127.0.0.1/"
NOT_REACHABLE = "PostgreSQL not reachable: set TEST_DATABASE_URL, or start one at 127.0.0.1:5432"


def require_server() -> None:
    """Skip the test where there is no server; with CI=true, fail it."""
    try:
        psycopg2.connect(SERVER, connect_timeout=3).close()
    except psycopg2.OperationalError:
        missing(NOT_REACHABLE)


def missing(line: str) -> None:
    """A service that a test needs is not there: a skip with one line, or with CI=true a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


@contextmanager
def scratch_database(options: str = "") -> Iterator[str]:
    """The address of an empty database, dropped at the end with all connections to it. `options`: as CREATE takes."""
    name = f"killmails_test_{secrets.token_hex(6)}"
    administer(f'CREATE DATABASE "{name}" {options}')
    try:
        yield urlunsplit(urlsplit(SERVER)._replace(path=f"/{name}"))
    finally:
        administer(f'DROP DATABASE "{name}" WITH (FORCE)')


def administer(statement: str) -> None:
    """Run one statement on the server, outside any transaction."""
    with closing(psycopg2.connect(SERVER)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
