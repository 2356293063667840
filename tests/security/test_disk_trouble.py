"""Embedded mode on a disk that is full, or may not be written: told in one line, nothing lost, over when it is over.

The disk is full for one process: its files may not grow past a limit (RLIMIT_FSIZE), which is lifted again.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import database
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import Process, wait_until
from tests.web_app import make_user

SIMULATOR = (
    "--pilots", "2", "--killmails-count", "150", "--cache-seconds", "0", "--limit", "char-killmail=1000/1m",
    "--latency-ms", "5-20",
)  # fmt: skip


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Cluster]:
    """Embedded mode, not started yet."""
    with cluster(tmp_path, f"sqlite:///{tmp_path}/data/killmails.db", "", *SIMULATOR) as made:
        yield made


@pytest.fixture
def database_file(system: Cluster) -> Path:
    assert system.script("migrate").returncode == 0
    return Path(system.processes.environment["DATABASE_URL"].removeprefix("sqlite:///"))


def fill_the_disk(process: Process, room: int) -> None:
    """No file of the process grows beyond `room` bytes from now on."""
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def free_the_disk(process: Process) -> None:
    resource.prlimit(process.child.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_disk_that_fills_up_in_the_middle(system: Cluster, database_file: Path) -> None:
    web = system.start_web()
    browsers = [system.browser() for _ in system.simulated.truth()]
    for pilot, browser in zip(system.simulated.truth(), browsers, strict=True):
        browser.log_in(pilot)
    wait_until(lambda: system.scalar("SELECT COUNT(*) FROM killmails") >= 10, "a part is stored", 30, 0.02)

    fill_the_disk(web, web.log.stat().st_size + 100_000)
    before = len(web.output())
    wait_until(lambda: web.output()[before:].count("disk") + web.output()[before:].count("full") > 0, "it is told", 30)
    assert web.child.poll() is None
    assert browsers[0].session.get(f"{system.web_url}/healthz", timeout=30).status_code == 200
    assert browsers[0].session.get(f"{system.web_url}/", timeout=60).status_code in (200, 503)
    said = web.output()[before:]
    free_the_disk(web)
    let_leases_run_out()
    system.wait_for_syncs(60)

    # Then it goes on by itself, and nothing is lost; and nobody's trouble was a page of Python
    assert system.differences() == []
    assert integrity(database_file) == "ok"
    assert said.count("Traceback") == 0, said[:3000]


def let_leases_run_out() -> None:
    """As some minutes do: whoever held a row and could not write it is thought dead."""
    past = "2026-01-01 00:00:00"
    database.execute("UPDATE ledger SET claimed_until = ? WHERE state IN ('sent', 'fetching')", [past])
    database.execute("UPDATE ledger SET not_before = ? WHERE state = 'deferred'", [past])
    database.execute("UPDATE syncs SET claimed_until = ? WHERE claimed_until IS NOT NULL", [past])
    database.execute("UPDATE syncs SET waiting_until = ?, sent_at = ? WHERE finished_at IS NULL", [past, past])


def test_a_disk_that_is_full_at_the_start(system: Cluster, database_file: Path) -> None:
    before = content(database_file)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
    ended = system.processes.run([sys.executable, "-c", f"{limit}import sys, app; sys.exit(app.main())"], PORT="0")
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if line]
    assert [line[:7] for line in lines] == ["error: "], ended.stderr
    assert content(database_file) == before


def unprivileged() -> list[str]:
    """Root may write what is read-only; without this capability it may not."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and root may write everything")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@pytest.mark.parametrize("directory_too", [False, True])
@pytest.mark.parametrize("command", [["app.py"], ["scripts/queue_users.py", "--force"]])
def test_a_database_that_may_not_be_written(
    system: Cluster, database_file: Path, command: list[str], directory_too: bool
) -> None:
    make_user()
    database.db.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.db.close()
    database.db.close_all()
    for leftover in database_file.parent.glob("killmails.db-*"):
        leftover.unlink()
    before = content(database_file)
    database_file.chmod(0o444)
    if directory_too:
        database_file.parent.chmod(0o555)
    try:
        ended = system.processes.run([*unprivileged(), sys.executable, *command])
    finally:
        database_file.parent.chmod(0o755)
        database_file.chmod(0o644)
    assert ended.returncode == 1, ended.stdout
    lines = [line for line in ended.stderr.splitlines() if line]
    assert [line[:7] for line in lines] == ["error: "], ended.stderr
    assert content(database_file) == before
    assert system.script("migrate").returncode == 0


def test_a_postgresql_that_may_only_be_read(tmp_path: Path, both_services: None) -> None:
    """As a standby after a failover, or a server whose disk is nearly full."""
    with services(tmp_path, "--pilots", "1", "--killmails-count", "200", "--latency-ms", "20-40") as system:
        web, workers, browser = system.start_web(), system.start_workers(processes=1), system.browser()
        scheduler = system.start_scheduler()
        (pilot,) = system.simulated.truth()
        browser.log_in(pilot)
        wait_until(lambda: system.scalar("SELECT COUNT(*) FROM killmails") >= 20, "a part is stored", 30, 0.02)

        only_read(system, "on")
        wait_until(lambda: "read-only" in workers.output(), "the workers say so", 30)
        answer = browser.ask("mutation { syncMyKillmails { queued } }")
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAVAILABLE"]
        assert browser.session.get(f"{system.web_url}/killmails", timeout=30).status_code == 200
        assert "read-only" in web.output()
        only_read(system, "off")
        let_leases_run_out()
        system.wait_for_syncs(90)

        assert system.differences() == []
        for process in (web, workers, scheduler):
            assert process.output().count("Traceback") == 0, process.output()[:3000]


def only_read(system: Cluster, state: str) -> None:
    """From now on, for every connection: those that are open are cut."""
    name = database.db.database
    database.execute("SET default_transaction_read_only = off")
    database.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {state}')
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    database.execute(f"{others} AND pid <> pg_backend_pid()")


@pytest.mark.parametrize("damage", ["not a database", "cut off", "empty"])
def test_a_damaged_file_is_told_and_left_alone(system: Cluster, database_file: Path, damage: str) -> None:
    for leftover in database_file.parent.glob("killmails.db-*"):
        leftover.unlink()
    whole = database_file.read_bytes()
    damaged = {"not a database": b"This is text." * 500, "cut off": whole[: len(whole) // 3], "empty": b""}
    database_file.write_bytes(damaged[damage])
    before = content(database_file)
    ended = system.processes.run([sys.executable, "scripts/check_queue.py"])
    assert ended.returncode == 1
    assert len([line for line in ended.stderr.splitlines() if line]) == 1, ended.stderr
    if damage != "empty":
        assert content(database_file) == before


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def integrity(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
