"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
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
