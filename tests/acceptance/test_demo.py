"""`make demo` and `make demo-services`, as the command they run: what is said, how it ends, and what stays behind."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from settings import ROOT
from tests import postgres
from tests.acceptance.conftest import RABBITMQ
from tests.acceptance.processes import Processes, wait_until

DEMO = [sys.executable, "scripts/demo.py"]
DATABASE = ROOT / "var" / "demo" / "killmails.db"


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """One demo at a time, which ends after its summary."""
    made = Processes(tmp_path, {"ONCE": "1", "COLUMNS": "160"})
    yield made
    made.end_all()


def ended(processes: Processes, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    process = processes.start("demo", [*DEMO, *arguments], **settings)
    code = process.child.wait(timeout=240)
    return subprocess.CompletedProcess(process.child.args, code, process.output(), "")


def test_the_demo_loses_nothing_whatever_the_caller_has_set(processes: Processes) -> None:
    """Given a shell with production's addresses and no keys, When the demo runs, Then it sees neither."""
    demo = ended(
        processes, DATABASE_URL="postgresql://nobody@127.0.0.1:1/production", RABBITMQ_URL="amqp://127.0.0.1:1"
    )

    assert demo.returncode == 0, demo.stdout
    assert "Nothing lost." in demo.stdout
    assert "520 killmails in " in demo.stdout


def test_a_demo_that_lost_something_says_what_and_fails(processes: Processes) -> None:
    """Given a stored killmail that is taken out of the database while the rest is fetched."""
    DATABASE.unlink(missing_ok=True)
    process = processes.start("demo", DEMO)
    lost = wait_until(lambda: process.child.poll() is None and take_one(DATABASE), "a killmail is stored", pause=0.02)

    assert process.child.wait(timeout=240) == 1, process.output()
    assert f"killmail {lost} is missing" in process.output()
    assert "The database differs from the truth." in process.output()
    assert "Nothing lost" not in process.output()


def take_one(path: Path) -> int | None:
    """Delete a killmail that is stored already, and return its id."""
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            oldest = "(SELECT MIN(killmail_id) FROM killmails)"
            row = connection.execute(
                f"DELETE FROM killmails WHERE killmail_id = {oldest} RETURNING killmail_id"
            ).fetchone()
    except sqlite3.OperationalError:
        return None  # no tables yet
    return row[0] if row else None


def test_the_demo_on_services_leaves_them_as_they_were(processes: Processes, both_services: None) -> None:
    """Given the two addresses and nothing else, When the demo has run, Then nothing of it is on either server."""
    with postgres.scratch_database() as database_url:
        before = databases()

        demo = ended(processes, "--services", DATABASE_URL=database_url, RABBITMQ_URL=RABBITMQ)

        assert demo.returncode == 0, demo.stdout
        assert "Nothing lost." in demo.stdout
        assert {name for name in databases() - before if name.startswith("killmails_demo_")} == set()
        assert rows(database_url, "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def databases() -> set[Any]:
    return {name for (name,) in rows(postgres.SERVER, "SELECT datname FROM pg_database")}


def rows(url: str, sql: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
