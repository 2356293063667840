"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import pika
import psycopg2

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


def calm_down() -> float:
    """Wait until the machine is idle, PATIENCE_SECONDS at most; returns the share of its processors in use (0 to 1).

    Not the load average: a minute after a script it still tells of that script.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        busy = _busy_over(WATCH_SECONDS)
        if busy <= CALM or time.monotonic() >= deadline:
            return busy


def _busy_over(seconds: float) -> float:
    all_before, idle_before = _processor_time()
    time.sleep(seconds)
    all_after, idle_after = _processor_time()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def _processor_time() -> tuple[int, int]:
    """Ticks of all processors since the machine started, and those of them that were idle (proc_stat(5))."""
    first_line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, idle, iowait, *others = map(int, first_line.split()[1:9])
    return sum((user, nice, system, idle, iowait, *others)), idle + iowait


def lines() -> list[str]:
    """A line each, for a list."""
    return [
        f"{os.cpu_count()} processors ({_field('/proc/cpuinfo', 'model name')}), {_memory_gib():.0f} GiB memory",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        f"PostgreSQL {_postgresql()}, RabbitMQ {_rabbitmq()}, with their default settings, on the same machine",
        ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    ]


def _field(path: str, name: str) -> str:
    found = (line.partition(":")[2].strip() for line in Path(path).read_text().splitlines() if line.startswith(name))
    return next(found, "unknown")


def _memory_gib() -> float:
    return int(_field("/proc/meminfo", "MemTotal").split()[0]) / 1024**2


def _postgresql() -> str:
    connection = psycopg2.connect(postgres.SERVER)
    try:
        return str(connection.info.parameter_status("server_version")).split()[0]
    finally:
        connection.close()


def _rabbitmq() -> str:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.SERVER))
    try:
        return str(connection._impl.server_properties["version"])  # pika shows it nowhere else
    finally:
        connection.close()
