"""The system as it runs in production: web, workers and scheduler as processes, on PostgreSQL and RabbitMQ."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee
from cryptography.fernet import Fernet

import database
from scripts import truth
from tests.acceptance.pilots import Browser, Simulated
from tests.acceptance.processes import BIN, Process, Processes, free_port, wait_until


@dataclass
class Cluster:
    """A running system, its simulator and its database. `database.db` of the test's process is bound to the latter."""

    processes: Processes
    simulated: Simulated
    web_url: str = ""
    web: Process | None = None

    def start_web(self) -> Process:
        self.web = self.processes.start("web", [sys.executable, "app.py"])
        self.web_url = self.web.wait_for_output(r"Listening on (http://\S+)")[1]
        return self.web

    def start_workers(self, processes: int = 2, threads: int = 4, module: str = "actors", **extra: str) -> Process:
        arguments = ["--processes", str(processes), "--threads", str(threads), module]
        options = {"dramatiq_queue_prefetch": str(threads), "dramatiq_worker_timeout": "100"} | extra
        workers = self.processes.start("workers", [str(BIN / "dramatiq"), *arguments], **options)
        workers.wait_for_output("(?s)" + "Worker process is ready for action.*" * processes)
        return workers

    def start_scheduler(self) -> Process:
        return self.processes.start("scheduler", [str(BIN / "periodiq"), "actors"])

    def script(self, name: str, *arguments: str) -> Any:
        return self.processes.run([sys.executable, f"scripts/{name}.py", *arguments])

    def browser(self) -> Browser:
        return Browser(self.web_url)

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read from the database. A connection that a restarted server has closed is replaced."""
        try:
            return list(database.execute(sql, parameters).fetchall())
        except (peewee.OperationalError, peewee.InterfaceError):
            database.db.manual_close()
            return list(database.execute(sql, parameters).fetchall())

    def scalar(self, sql: str, *parameters: Any) -> Any:
        return self.rows(sql, *parameters)[0][0]

    def wait_for_syncs(self, seconds: float = 120.0) -> None:
        """Until no sync is active and nothing is left to fetch at once."""
        wait_until(self.is_quiet, "all syncs end", seconds)

    def is_quiet(self) -> bool:
        active = self.scalar("SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL")
        return bool(active == 0 and self.scalar("SELECT COUNT(*) FROM ledger WHERE state <> 'rejected'") == 0)

    def differences(self, *character_ids: int) -> list[str]:
        """What differs between the database and the simulator's truth about these characters (or all)."""
        return truth.differences(self.simulated.url, set(character_ids) or None)


def system_settings(simulator_url: str, database_url: str, rabbitmq_url: str = "") -> dict[str, str]:
    """The environment of a system under test."""
    port = free_port()
    return {
        "PORT": str(port),
        "EVE_CALLBACK_URL": f"http://127.0.0.1:{port}/auth/callback",
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "ESI_URL": simulator_url,
        "SSO_URL": simulator_url,
        "EVE_CLIENT_ID": "demo",
        "EVE_CLIENT_SECRET": "demo",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "TOKEN_KEYS": Fernet.generate_key().decode(),
    }


@contextmanager
def cluster(directory: Path, database_url: str, rabbitmq_url: str, *simulator: str) -> Iterator[Cluster]:
    """A simulator (started with these arguments) and a system on it that is not started yet."""
    processes = Processes(directory, {})
    try:
        server = processes.start("simulator", [sys.executable, "-m", "simulator", *simulator])
        url = server.wait_for_output(r"listening on (http://\S+)")[1]
        processes.environment = system_settings(url, database_url, rabbitmq_url)
        database.connect(database_url).connect()
        yield Cluster(processes, Simulated(url))
    finally:
        processes.end_all()
        if not database.db.is_closed():
            database.db.close()
        database.db.close_all()
