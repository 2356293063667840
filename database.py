"""The database connection: SQLite for one machine, PostgreSQL for many processes, behind one peewee handle.

Every process calls `connect` once. Threads check a connection out for one unit of work (`db.connection_context()`).
Times are naive UTC in every column: the same text sorts the same way on both engines. All writes on SQLite take the
write lock at BEGIN (`lock_type="IMMEDIATE"`), so that a reader never has to be upgraded and fail.
"""

from __future__ import annotations

import select
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import peewee
import psycopg2
from peewee import Database, DatabaseProxy, InterfaceError, InternalError, OperationalError
from playhouse.pool import MaxConnectionsExceeded

from clock import DatabaseClock
from connection_pool import LIFETIME_SECONDS, PostgresqlPool, SqlitePool

#: Seconds a writer waits for SQLite's single write lock before it gives up.
SQLITE_BUSY_SECONDS = 30
#: Bytes to which SQLite's log is cut when a checkpoint has emptied it: what SQLite checkpoints at by default, and more.
WAL_BYTES = 8 * 1024 * 1024
#: Connections of a web process, each held for one unit of work. Measured with 300 page loads at once: all answered in
#: 4.1 s with 20, and with more only the workers had fewer. PostgreSQL's default `max_connections` is 100 for all.
WEB_CONNECTIONS = 20
#: Connections of a worker process or the scheduler beside those of its worker threads: checks at start, and one spare.
OTHER_CONNECTIONS = 2
#: Seconds to wait for a free connection, and for a PostgreSQL server to answer a connect.
POOL_TIMEOUT_SECONDS = 10
CONNECT_TIMEOUT_SECONDS = 5

#: Bound parameters one statement may carry: SQLite's limit since 3.32 is 32,766, PostgreSQL's is 65,535.
MAX_PARAMETERS = 30_000

#: What is raised while the database cannot be used: it is away, it went away under a transaction, it may only be read
#: (PostgreSQL's InternalError: a standby, or a disk that is nearly full), or every connection of the pool is taken.
#: Nobody's bug; trying again later helps.
UNAVAILABLE_ERRORS: tuple[type[Exception], ...] = (
    OperationalError,
    InterfaceError,
    InternalError,
    MaxConnectionsExceeded,
)

#: Stands for the real database until `connect` is called; models bind to it.
db: Any = DatabaseProxy()
#: The one clock that times are compared by, on all machines: the database server's (`utcnow`, and the limiter).
clock = DatabaseClock()


def connect(database_url: str, max_connections: int = WEB_CONNECTIONS) -> Database:
    """Bind `db` to the database at `database_url` (already validated by settings) and return it.

    `max_connections`: how many this process may hold; a worker adds its threads' (`add_connections`). No connection is
    made yet. Raises peewee.OperationalError where SQLite's directory cannot be made.
    """
    make = _sqlite if database_url.startswith("sqlite") else _postgresql
    database = make(database_url, max_connections)
    db.initialize(database)
    clock.forget()
    return database


def add_connections(number: int) -> None:
    """Allow this process so many more connections, for as many threads that keep one each."""
    db.obj.add_connections(number)


def keep_connected() -> None:
    """Have this thread's connection open: the one it holds, or a new one if the server has cut that.

    For threads that hold one from one unit of work to the next. While it is alive, the cost is one short statement
    every clock.OBSERVE_EVERY_SECONDS for the whole process. Raises peewee's OperationalError if none can be opened.
    """
    if not db.is_closed() and not is_sqlite() and _was_cut(db.connection()):
        db.manual_close()
    db.connect(reuse_if_open=True)


def _was_cut(connection: Any) -> bool:
    """Whether an idle connection is dead. A server that goes away sends something or hangs up: only then, and when the
    clock is to be observed, a statement is run."""
    if connection.closed:
        return True
    looks = select.poll()
    looks.register(connection.fileno(), select.POLLIN)
    if not looks.poll(0) and not clock.should_observe():
        return False
    try:
        db.obj.read_clock(connection)
    except psycopg2.Error:
        return True
    return False


def is_sqlite() -> bool:
    """Which engine `db` is bound to."""
    return isinstance(db.obj, SqlitePool)


def _sqlite(url: str, max_connections: int) -> Database:
    path = Path("/" + url.removeprefix("sqlite:///").lstrip("/"))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OperationalError(f"cannot make the directory {path.parent}: {error.strerror}") from error
    return SqlitePool(
        str(path),
        max_connections=max_connections,
        stale_timeout=LIFETIME_SECONDS,
        timeout=POOL_TIMEOUT_SECONDS,
        lock_type="IMMEDIATE",
        check_same_thread=False,
        pragmas={
            "journal_mode": "wal",
            "busy_timeout": SQLITE_BUSY_SECONDS * 1000,
            "foreign_keys": 1,
            # WAL with NORMAL survives any crash of the process; a power cut may undo the last commits, never tear them.
            "synchronous": "normal",
            "cache_size": -16 * 1024,
            # Without a limit the log keeps the size of the largest transaction until the last connection is closed.
            "journal_size_limit": WAL_BYTES,
        },
    )


def _postgresql(url: str, max_connections: int) -> Database:
    parts = urlsplit(url)
    return PostgresqlPool(
        unquote(parts.path.lstrip("/")),
        clock,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        host=parts.hostname,
        port=parts.port or 5432,
        max_connections=max_connections,
        timeout=POOL_TIMEOUT_SECONDS,
        stale_timeout=LIFETIME_SECONDS,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        application_name="killmail-sync",
        client_encoding="UTF8",  # whatever PGCLIENTENCODING says: names hold characters of every script
        **dict(parse_qsl(parts.query)),  # sslmode and its like: settings let nothing else through
    )


def utcnow() -> datetime:
    """Now by the database's clock, as it is stored: naive UTC with microseconds."""
    return from_epoch(clock.now())


def from_epoch(seconds: float) -> datetime:
    """Seconds since the epoch, as they are stored: naive UTC."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def as_datetime(value: datetime | str) -> datetime:
    """A time as hand-written SQL returns it: text on SQLite."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def execute(sql: str, params: Sequence[Any] = ()) -> Any:
    """Run hand-written SQL with `?` placeholders on either engine; returns the DB-API cursor.

    The statements that run for every killmail are written by hand: building them with the query builder costs
    several times what the database needs to run them. Times that come back are `datetime` on PostgreSQL and text on
    SQLite: read rows whose times matter through the models.
    """
    if is_sqlite():
        values = [str(value) if isinstance(value, datetime) else value for value in params]
        return _SqliteRows(db.execute_sql(sql, values))
    return db.execute_sql(sql.replace("?", "%s"), params)


#: Turns the driver's errors into peewee's, as peewee itself does where a statement is executed.
_PEEWEES_ERRORS: Any = vars(peewee)["__exception_wrapper__"]


class _SqliteRows:
    """A cursor whose rows come with peewee's errors: SQLite does the work of RETURNING while they are fetched."""

    __slots__ = ("_cursor",)

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def fetchone(self) -> Any:
        with _PEEWEES_ERRORS:
            return self._cursor.fetchone()

    def fetchmany(self, size: int) -> Any:
        with _PEEWEES_ERRORS:
            return self._cursor.fetchmany(size)

    def fetchall(self) -> Any:
        with _PEEWEES_ERRORS:
            return self._cursor.fetchall()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


def placeholders(values: Collection[Any]) -> str:
    """`?, ?, ?` for as many as there are values."""
    return ", ".join("?" * len(values))


def insert_rows(table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], on_conflict: str = "") -> int:
    """Insert all rows in one statement (or as few as the engines' limit on parameters allows); returns how many.

    With DO NOTHING, rows that were there are not counted.
    """
    written = 0
    step = max(1, MAX_PARAMETERS // len(columns))
    row_marks = f"({placeholders(columns)})"
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        values = ", ".join([row_marks] * len(chunk))
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values} {on_conflict}"
        written += execute(sql, [value for row in chunk for value in row]).rowcount
    return written


def lock_clause(*, skip_locked: bool = False, share: bool = False, of: str = "") -> str:
    """FOR UPDATE where the engine has row locks; a SQLite writer holds the only lock there is already.

    `share`: the rows may be read and updated by others, and not be deleted, until the transaction ends.

    `of` names the one table of a join whose rows are meant: without it those of all are locked.
    """
    if is_sqlite():
        return ""
    words = ["FOR KEY SHARE" if share else "FOR UPDATE", f"OF {of}" if of else "", "SKIP LOCKED" if skip_locked else ""]
    return " ".join(word for word in words if word)
