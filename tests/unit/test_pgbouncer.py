"""Behind pgbouncer in transaction mode: sessions belong to nobody, and options of a session are not passed on."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import psycopg2
import pytest
from playhouse.pool import PooledPostgresqlDatabase

import database
import ledger
import migrations
from database import db, execute
from esi.limiter import Limiter
from esi.rate_limit import KILLMAIL
from models import Sync
from tests import postgres
from tests.unit.ledger.world import make_user

LIMIT = 10.0


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


def configuration(server_url: str, port: int, ignored: str) -> str:
    parts = urlsplit(server_url)
    password = f" password={unquote(parts.password)}" if parts.password else ""
    return f"""
[databases]
* = host={parts.hostname} port={parts.port or 5432} user={unquote(parts.username or "postgres")}{password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
ignore_startup_parameters = {ignored}
"""


@pytest.fixture(params=["", "options"], ids=["refuses options", "ignores options"])
def bouncer(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of an empty database, through a pgbouncer of the test's own with two connections to the server."""
    postgres.require_server()
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        postgres.missing("pgbouncer is not installed")
    assert program is not None
    port = free_port()
    with postgres.scratch_database() as url, tempfile.TemporaryDirectory(prefix="pgbouncer-") as directory:
        Path(directory).chmod(0o755)  # it gives up root's rights before it reads the file
        path = Path(directory, "pgbouncer.ini")
        path.write_text(configuration(url, port, request.param))
        user = ["--user", "nobody"] if os.geteuid() == 0 else []
        child = subprocess.Popen([program, "--quiet", *user, str(path)], stderr=subprocess.PIPE)
        try:
            _wait_for(port, child)
            yield urlunsplit(urlsplit(url)._replace(netloc=f"anyone@127.0.0.1:{port}"))
        finally:
            child.terminate()
            child.communicate(timeout=LIMIT)


def _wait_for(port: int, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert child.poll() is None, child.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def pool(bouncer: str) -> Iterator[Any]:
    made: Any = database.connect(bouncer)
    yield made
    made.close_all()


def test_two_upgrades_at_once_take_turns_and_leave_no_lock(pool: Any) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrations.upgrade())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(len, applied)) == [0, len(list(migrations.DIRECTORY.glob("[0-9]*.py")))]
    migrations.check()
    with db.connection_context():
        locks = "SELECT COUNT(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory'"
        assert execute(f"{locks} AND datname = current_database()").fetchone()[0] == 0


def test_a_transaction_waits_for_no_lock_for_ever(pool: Any) -> None:
    with db.connection_context(), db.atomic():
        assert execute("SHOW lock_timeout").fetchone()[0] == "20s"
        assert execute("SHOW idle_in_transaction_session_timeout").fetchone()[0] == "1min"
    assert pool.limits_transactions


def test_two_first_attempts_at_once_both_end_in_a_connection(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given that pgbouncer has refused the options of both, Then the second finds them gone and goes on all the same.

    As long as peewee holds its lock while it connects, they come one after the other; this must not depend on it.
    """
    both, connect = threading.Barrier(2, timeout=LIMIT), PooledPostgresqlDatabase._connect
    attempts = threading.local()

    def connect_together(made: Any) -> Any:
        attempts.count = getattr(attempts, "count", 0) + 1
        try:
            return connect(made)
        finally:
            if attempts.count == 1:
                both.wait()

    monkeypatch.setattr(PooledPostgresqlDatabase, "_connect", connect_together)
    failed: list[Exception] = []

    def work() -> None:
        try:
            pool._close(pool._connect())
        except (KeyError, psycopg2.Error) as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert pool.limits_transactions


def test_syncs_and_permits_work_through_it(pool: Any) -> None:
    """More callers than connections: none keeps one between two transactions."""
    migrations.upgrade()
    with db.connection_context():
        make_user()
    limiter = Limiter(1000)
    failed: list[Exception] = []

    def work() -> None:
        try:
            with db.connection_context():
                ledger.open_due_syncs(10)
                limiter.acquire(KILLMAIL, secrets.token_hex(4), background=False)
        except psycopg2.Error as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with db.connection_context():
        assert (failed, Sync.select().count()) == ([], 1)
        assert execute("SELECT COUNT(*) FROM rate_buckets WHERE bucket LIKE ?", ("killmail:%",)).fetchone()[0] == 6
