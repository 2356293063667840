"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pika
import psycopg2
from pika.exceptions import AMQPError

from tests import postgres, rabbitmq

#: Packages whose speed is part of the figures.
PACKAGES = (
    "dramatiq", "pika", "peewee", "psycopg2-binary", "requests", "Flask", "gunicorn", "ariadne", "graphql-core",
    "flask-sock", "celery",
)  # fmt: skip


#: Seconds over which the processors are watched, and how long the servers may still be busy with what was before.
WATCH_SECONDS, PATIENCE_SECONDS = 3.0, 90.0
#: Share of the processors below which nobody is at work.
CALM = 0.03

#: Of PostgreSQL's settings, those that decide how fast it writes.
SETTINGS = ("fsync", "synchronous_commit", "shared_buffers", "max_wal_size")


class ServerAwayError(Exception):
    """PostgreSQL or RabbitMQ cannot be reached."""


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """Ticks of all processors together (proc_stat(5)): in all, without work, and given to other machines (steal)."""

    ticks: int
    idle_ticks: int
    stolen_ticks: int

    @classmethod
    def now(cls) -> ProcessorTime:
        """Since the machine started."""
        first_line = Path("/proc/stat").read_text().partition("\n")[0]
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, first_line.split()[1:9])
        return cls(user + nice + system + idle + iowait + irq + softirq + steal, idle + iowait, steal)

    def since(self, earlier: ProcessorTime) -> ProcessorTime:
        """What came to it between the two."""
        return ProcessorTime(
            max(1, self.ticks - earlier.ticks),
            self.idle_ticks - earlier.idle_ticks,
            self.stolen_ticks - earlier.stolen_ticks,
        )

    @property
    def busy(self) -> float:
        """Share (0 to 1) that somebody here used."""
        return 1 - (self.idle_ticks + self.stolen_ticks) / self.ticks

    @property
    def stolen(self) -> float:
        """Share (0 to 1) that others on the same host were given instead."""
        return self.stolen_ticks / self.ticks


def calm_down() -> float:
    """Wait until the machine is idle, PATIENCE_SECONDS at most; returns the share of its processors in use (0 to 1).

    Not the load average: a minute after a script it still tells of that script.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        before = ProcessorTime.now()
        time.sleep(WATCH_SECONDS)
        busy = ProcessorTime.now().since(before).busy
        if busy <= CALM or time.monotonic() >= deadline:
            return busy


def lines() -> list[str]:
    """A line each, for a list. Raises ServerAwayError."""
    return [
        f"{os.cpu_count()} processors ({_field('/proc/cpuinfo', 'model name')}), {_memory_gib():.0f} GiB memory",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"PostgreSQL {_postgresql()}",
        f"RabbitMQ {_rabbitmq()}",
        ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    ]


def _field(path: str, name: str) -> str:
    found = (line.partition(":")[2].strip() for line in Path(path).read_text().splitlines() if line.startswith(name))
    return next(found, "unknown")


def _memory_gib() -> float:
    return int(_field("/proc/meminfo", "MemTotal").split()[0]) / 1024**2


def _postgresql() -> str:
    try:
        connecting = psycopg2.connect(postgres.SERVER)
    except psycopg2.OperationalError as error:
        reason = str(error).partition("\n")[0]
        raise ServerAwayError(f"no PostgreSQL ({reason}); set TEST_DATABASE_URL") from error
    with closing(connecting) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (list(SETTINGS),))
        settings = ", ".join(f"{name} {value}" for name, value in cursor.fetchall())
        version = str(connection.info.parameter_status("server_version")).split()[0]
        return f"{version} at {connection.info.host} ({settings})"


def _rabbitmq() -> str:
    parameters = pika.URLParameters(rabbitmq.SERVER)
    try:
        connecting = pika.BlockingConnection(parameters)
    except AMQPError as error:
        where = f"{parameters.host}:{parameters.port}"
        raise ServerAwayError(f"no RabbitMQ at {where} ({type(error).__name__}); set TEST_RABBITMQ_URL") from error
    with closing(connecting) as connection:
        version = connection._impl.server_properties["version"]  # pika shows it nowhere else
        return f"{version} at {parameters.host}"
