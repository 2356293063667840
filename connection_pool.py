"""The connections of one process: how many it may hold, and that it holds none it does not use.

The invariants: a process holds no more connections than it was given (`add_connections`), so that the sum over all
processes can be compared with PostgreSQL's `max_connections`; if none is free, a caller waits for one; a connection
that is not used is closed within a minute; one that the server has cut is detected before a caller gets it.
Every checkout on PostgreSQL reads the server's clock, in the statement that tests the connection anyway (`clock.py`).
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import Any

import psycopg2
from playhouse.pool import PooledDatabase, PooledPostgresqlDatabase, PooledSqliteDatabase
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from clock import DatabaseClock

#: Seconds a connection lives in the pool; then it is closed when it comes back, or where it lies.
LIFETIME_SECONDS = 45
#: Seconds between two looks at the connections that lie in the pool: with LIFETIME_SECONDS, idle ones live a minute.
SWEEP_SECONDS = 15.0

#: A lock held by a stuck process must end in an error, not in a stuck pipeline; a stuck process gives its locks up.
LIMITS = {"lock_timeout": "20s", "idle_in_transaction_session_timeout": "1min"}
#: What pgbouncer answers, of any version, to a startup parameter that it does not pass on.
_REFUSED_BY_PGBOUNCER = "unsupported startup parameter"

_READ_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::float8"


class ClosesIdle(PooledDatabase):
    """A pool that closes idle connections itself; peewee's looks at their age only when the next caller wants one."""

    _sweeping = False

    def add_connections(self, number: int) -> None:
        """Allow this process so many more connections."""
        with self._pool_lock:
            self._max_connections += number
            self._pool_available.notify_all()

    def _is_stale(self, timestamp: float) -> bool:
        """Also where this machine's clock was set back: such a connection would seem to be new for that long."""
        return not 0 <= time.time() - timestamp <= LIFETIME_SECONDS

    def _close(self, conn: Any, close_conn: bool = False) -> None:
        super()._close(conn, close_conn)
        with self._pool_lock:
            start = bool(self._connections) and not self._sweeping
            self._sweeping = self._sweeping or start
        if start:
            threading.Thread(target=self._sweep, name="connection-sweep", daemon=True).start()

    def _sweep(self) -> None:
        """Until no connection lies in the pool: the next one that does starts this again."""
        wait = threading.Event()
        while True:
            wait.wait(SWEEP_SECONDS)
            for conn in self._take_stale():
                self._close_raw(conn)
            with self._pool_lock:
                if not self._connections:
                    self._sweeping = False
                    return

    def _take_stale(self) -> list[Any]:
        with self._pool_lock:
            stale = [each for each in self._connections if self._is_stale(each[0])]
            self._connections = [each for each in self._connections if each not in stale]
            heapq.heapify(self._connections)
        return [conn for _, _, conn in stale]


class SqlitePool(ClosesIdle, PooledSqliteDatabase):  # type: ignore[misc]
    """Connections to one SQLite file."""


class PostgresqlPool(ClosesIdle, PooledPostgresqlDatabase):  # type: ignore[misc]
    """Connections to a PostgreSQL server, and `clock`, which follows the server's.

    LIMITS are options of each session. Behind pgbouncer, which passes no options on and gives a session to another
    client after each transaction, they are set in each transaction instead. What runs outside of one waits only for
    locks of transactions, which end within these limits.
    """

    def __init__(self, database: str, clock: DatabaseClock, **connecting: Any) -> None:
        self.clock = clock
        #: Whether LIMITS are set in each transaction; None: no connection has been made yet.
        self.limits_transactions: bool | None = None
        options = " ".join(f"-c {name}={value}" for name, value in ({"timezone": "UTC"} | LIMITS).items())
        super().__init__(database, options=options, **connecting)  # type: ignore[no-untyped-call]

    def begin(self, isolation_level: Any = None) -> None:
        super().begin(isolation_level)
        if self.limits_transactions:
            self.execute_sql("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in LIMITS.items()))

    def read_clock(self, conn: Any) -> None:
        """Observe the server's clock. Raises the driver's errors where the connection is dead."""
        sent = time.monotonic()
        with conn.cursor() as cursor:
            cursor.execute(_READ_CLOCK)
            [(epoch,)] = cursor.fetchall()
        self.clock.observe(sent, epoch, time.monotonic())

    def _connect(self) -> Any:
        # Another thread's refusal may remove them during this attempt, which had them all the same.
        had_options = "options" in self.connect_params
        try:
            conn = super()._connect()
        except psycopg2.OperationalError as error:
            if _REFUSED_BY_PGBOUNCER not in str(error) or not had_options:
                raise
            self.connect_params.pop("options", None)
            conn = super()._connect()
        try:
            if self.limits_transactions is None:  # pgbouncer may also be told to ignore options
                self.limits_transactions = not _has_limits(conn)
            if self.clock.should_observe():
                self.read_clock(conn)
        except BaseException:
            self._close(conn, close_conn=True)
            raise
        return conn

    def _is_closed(self, conn: Any) -> bool:
        """Whether a connection that lay in the pool is dead; asked at every checkout, one round trip."""
        if conn.closed or conn.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            return bool(super()._is_closed(conn))  # type: ignore[no-untyped-call]
        try:
            self.read_clock(conn)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, a new connection is the answer
            return True
        return False


def _has_limits(conn: Any) -> bool:
    with conn.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        return bool(cursor.fetchone() == (LIMITS["lock_timeout"],))
