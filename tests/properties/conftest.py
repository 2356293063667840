"""Fixtures of the property tests: an empty database of each engine, wiped between the examples of one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from peewee import Database

from database import execute, is_sqlite
from tests.properties.budget import seed_long_runs
from tests.unit.conftest import any_db, any_db_url, migrated_sqlite_file, shared_postgres_url

__all__ = ["any_db", "any_db_url", "migrated_sqlite_file", "shared_postgres_url"]


def pytest_report_collectionfinish() -> str:
    """Say how this run can be repeated."""
    return seed_long_runs()


@pytest.fixture
def quick_db(any_db: Database) -> Iterator[Database]:
    """`any_db`, which need not survive a power cut."""
    if is_sqlite():
        execute("PRAGMA synchronous = off")
    else:
        execute("SET synchronous_commit TO off")
        cast(Any, any_db).connect_params["options"] += " -c synchronous_commit=off"  # of other connections
    yield any_db
