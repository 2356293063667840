"""The connection: what both engines are told, and that hand-written SQL means the same to both."""

from __future__ import annotations

import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import peewee
import psycopg2
import pytest
from peewee import Database

import database
from database import db, execute, insert_rows, is_sqlite, lock_clause, placeholders, utcnow
from models import Gate, Lock


def names(prefix: str = "") -> list[str]:
    return [name for (name,) in execute("SELECT name FROM locks WHERE name LIKE ? ORDER BY name", (f"{prefix}%",))]


def test_hand_written_sql_takes_and_gives_values(any_db: Database) -> None:
    now = utcnow()
    execute("UPDATE locks SET wake_at = ? WHERE name = ?", (now, "dispatch"))

    assert Lock.get(Lock.name == "dispatch").wake_at == now
    assert execute("SELECT COUNT(*) FROM locks WHERE wake_at = ?", (now,)).fetchone()[0] == 1
    assert execute("SELECT COUNT(*) FROM locks").fetchone()[0] == 3


@pytest.mark.parametrize("hostile", ["'; DROP TABLE locks; --", "100%", "%s", "?", "\u00e9\U0001f680"])
def test_values_are_never_part_of_a_statement(any_db: Database, hostile: str) -> None:
    insert_rows("locks", ("name", "wake_at"), [(hostile, None)])
    assert execute("SELECT name FROM locks WHERE name = ?", (hostile,)).fetchone()[0] == hostile


def test_times_sort_the_same_with_and_without_a_fraction(any_db: Database) -> None:
    """As text, on SQLite: one that ends at the second comes before the same with a fraction."""
    even, later = datetime(2026, 11, 1, 12), datetime(2026, 11, 1, 12, 0, 0, 1)
    insert_rows("locks", ("name", "wake_at"), [("a", even), ("b", later)])

    assert [row.name for row in Lock.select().where(Lock.wake_at < later)] == ["a"]
    assert execute("SELECT name FROM locks WHERE wake_at < ?", (later,)).fetchall()[0][0] == "a"


def test_more_rows_than_one_statement_may_carry(any_db: Database) -> None:
    rows = [(f"x{number:06}", None) for number in range(database.MAX_PARAMETERS // 2 + 1)]

    with db.atomic():
        insert_rows("locks", ("name", "wake_at"), rows)

    assert names("x") == [name for name, _ in rows]


def test_no_rows_are_no_statement(any_db: Database) -> None:
    insert_rows("no_such_table", ("name",), [])


def test_a_conflict_is_decided_by_the_caller(any_db: Database) -> None:
    insert_rows("locks", ("name",), [("x",), ("dispatch",)], "ON CONFLICT DO NOTHING")
    with pytest.raises(peewee.IntegrityError), db.atomic():
        insert_rows("locks", ("name",), [("y",), ("dispatch",)])
    assert (names("x"), names("y")) == (["x"], [])


def test_placeholders() -> None:
    assert (placeholders([]), placeholders([7]), placeholders({1, 2, 3})) == ("", "?", "?, ?, ?")


def test_now_is_naive_utc() -> None:
    assert utcnow().tzinfo is None
    assert abs((utcnow() - datetime.now(UTC).replace(tzinfo=None)).total_seconds()) < 60


def test_locking_a_row(any_db: Database) -> None:
    """FOR UPDATE where there are row locks. SQLite's writer has the only lock from BEGIN on."""
    assert bool(lock_clause()) is not is_sqlite()
    with db.atomic():
        variants: tuple[dict[str, Any], ...] = (
            {},
            {"skip_locked": True},
            {"share": True},
            {"share": True, "skip_locked": True},
        )
        for options in variants:
            assert execute(f"SELECT name FROM locks {lock_clause(**options)}").fetchall()


def test_two_who_read_and_then_write_take_turns(any_db: Database) -> None:
    """On SQLite a reader that became a writer after somebody else wrote would fail, and no waiting would help."""
    both_have_read = threading.Barrier(2)
    failed: list[peewee.PeeweeException] = []

    def count() -> None:
        try:
            with db.connection_context(), db.atomic():
                row = execute(f"SELECT failures FROM gates WHERE name = 'x' {lock_clause()}").fetchone()
                with suppress(threading.BrokenBarrierError):  # the second one has to wait: they never meet
                    both_have_read.wait(timeout=0.3)
                execute("UPDATE gates SET failures = ? WHERE name = 'x'", (row[0] + 1,))
        except peewee.PeeweeException as error:
            failed.append(error)

    Gate.create(name="x", force_insert=True)
    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (failed, Gate.get(Gate.name == "x").failures) == ([], 2)


def test_every_sqlite_connection_keeps_foreign_keys_and_waits_for_the_lock(sqlite_db: Database) -> None:
    def pragmas() -> dict[str, Any]:
        names = ("foreign_keys", "journal_mode", "busy_timeout", "synchronous")
        return {name: execute(f"PRAGMA {name}").fetchone()[0] for name in names}

    found: list[dict[str, Any]] = []

    def look() -> None:
        with db.connection_context():
            found.append(pragmas())

    with db.connection_context():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        found.append(pragmas())
    assert found == [{"foreign_keys": 1, "journal_mode": "wal", "busy_timeout": 30_000, "synchronous": 1}] * 2


def test_sqlites_log_does_not_keep_the_size_of_its_largest_transaction(sqlite_db: Any, database_file: Path) -> None:
    """Given a transaction of 20 MB, When others follow, Then the log is as small as its limit again."""
    log = database_file.with_name(f"{database_file.name}-wal")
    with db.connection_context():
        with db.atomic():
            insert_rows("locks", ("name",), [(f"{number:06}{'x' * 20_000}",) for number in range(1_000)])
        assert log.stat().st_size > 15_000_000
        for number in range(3):
            insert_rows("locks", ("name",), [(f"after {number}",)])
        assert log.stat().st_size <= database.WAL_BYTES


def test_a_new_sqlite_file_gets_its_directory_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "c?d" / "k.db"
    made: Any = database.connect(f"sqlite:///{path}")
    with made.connection_context():
        made.execute_sql("SELECT 1")
    made.close_all()

    assert path.exists()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_a_database_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(peewee.OperationalError, match="cannot make the directory"):
        database.connect(f"sqlite:///{tmp_path}/file/k.db")


class TestPostgresqlAddress:
    """No server is asked: what would be sent to it is looked at."""

    def parameters(self, url: str) -> dict[str, Any]:
        made: Any = database.connect(url)
        return {"database": made.database, **made.connect_params}

    def test_parts_are_decoded(self) -> None:
        found = self.parameters("postgresql://us%40er:p%40ss%2Fw%25rd@h.example:6543/kill%20mails")
        assert (found["user"], found["password"], found["host"], found["port"], found["database"]) == (
            "us@er",
            "p@ss/w%rd",
            "h.example",
            6543,
            "kill mails",
        )

    def test_what_secures_the_connection_reaches_the_server(self) -> None:
        found = self.parameters("postgresql://u@h/db?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem")
        assert (found["sslmode"], found["sslrootcert"]) == ("verify-full", "/etc/ca.pem")

    def test_without_a_host_it_is_the_local_socket(self) -> None:
        assert self.parameters("postgresql:///db")["host"] is None


def test_a_postgresql_session_is_utc_and_never_waits_for_ever(shared_postgres_url: str) -> None:
    made: Any = database.connect(shared_postgres_url)
    with made.connection_context():
        shown = {
            name: made.execute_sql(f"SHOW {name}").fetchone()[0]
            for name in ("timezone", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
        }
    made.close_all()
    assert list(shown.values()) == ["UTC", "20s", "1min", "killmail-sync"]


def test_a_session_speaks_utf8_whatever_the_environment_says(
    shared_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    made: Any = database.connect(shared_postgres_url)
    with made.connection_context():
        assert execute("SELECT ?", ("\u2666 Apocalypse",)).fetchone()[0] == "\u2666 Apocalypse"
    made.close_all()


@pytest.mark.parametrize("where", ["here", "at the server"])
def test_a_connection_that_was_cut_is_replaced_before_it_is_used(shared_postgres_url: str, where: str) -> None:
    """Given the connection a thread has held since before a restart of PostgreSQL, Then nothing fails on it."""
    connected: Any = database.connect(shared_postgres_url)
    connected.connect()
    [(pid,)] = execute("SELECT pg_backend_pid()").fetchall()
    if where == "here":
        connected.connection().close()
    else:
        with psycopg2.connect(shared_postgres_url) as other:
            other.cursor().execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    database.keep_connected()

    assert execute("SELECT pg_backend_pid()").fetchall() != [(pid,)]
    connected.close_all()


def test_a_connection_that_lives_is_kept(any_db: Any) -> None:
    held = any_db.connection()
    database.keep_connected()
    assert any_db.connection() is held


def test_what_fails_while_rows_are_fetched_is_peewees_error_too(sqlite_db: Database) -> None:
    """SQLite runs a statement row by row: the second row is where this one overflows."""
    rows = execute("SELECT abs(n) FROM (SELECT 1 AS n UNION ALL SELECT -9223372036854775808)")

    with pytest.raises(peewee.OperationalError, match="overflow"):
        rows.fetchall()
