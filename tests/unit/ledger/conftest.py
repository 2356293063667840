"""Every test here runs in an empty, migrated database, on SQLite and on PostgreSQL unless its module says otherwise."""

from __future__ import annotations

import pytest
from peewee import Database

from database import execute, is_sqlite
from models import User
from tests.unit.ledger.world import make_user


@pytest.fixture(autouse=True)
def ledger_db(any_db: Database) -> Database:
    """The database of the test. What counts of a commit is what others see of it, not that it survives a power cut."""
    if not is_sqlite():
        execute("SET synchronous_commit TO off")
    return any_db


@pytest.fixture
def user(ledger_db: Database) -> User:
    """A pilot who is due."""
    return make_user()


@pytest.fixture
def other(ledger_db: Database) -> User:
    """Another pilot, whose lists overlap with the first one's."""
    return make_user()
