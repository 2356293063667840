"""Every test here runs in an empty, migrated database, on SQLite and on PostgreSQL unless its module says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

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
def plans(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], list[str]]:
    """For a module of the ledger: the plans of the statements it runs from now on, as the engine tells them."""

    def watch(module: ModuleType) -> list[str]:
        seen: list[str] = []

        def explain(sql: str, params: Sequence[Any] = ()) -> Any:
            if "SELECT" in sql or "UPDATE" in sql:
                seen.append(str(execute(f"EXPLAIN {'QUERY PLAN' if is_sqlite() else ''} {sql}", params).fetchall()))
            return execute(sql, params)

        monkeypatch.setattr(module, "execute", explain)
        return seen

    return watch


@pytest.fixture
def user(ledger_db: Database) -> User:
    """A pilot who is due."""
    return make_user()


@pytest.fixture
def other(ledger_db: Database) -> User:
    """Another pilot, whose lists overlap with the first one's."""
    return make_user()
