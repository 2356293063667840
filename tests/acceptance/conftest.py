"""Fixtures of the acceptance tests: a scratch database and a scratch broker for each system."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import postgres, rabbitmq
from tests.acceptance.cluster import Cluster, cluster
from tests.rabbitmq import clear_queues

#: The broker of this run's systems.
RABBITMQ = rabbitmq.address()
NO_RABBITMQ = rabbitmq.NOT_REACHABLE


@pytest.fixture(scope="session")
def both_services() -> None:
    """PostgreSQL and RabbitMQ are there; skips (fails with CI=true) otherwise."""
    postgres.require_server()
    rabbitmq.require_server()


@pytest.fixture(scope="module")
def system(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, both_services: None
) -> Iterator[Cluster]:
    """Web and two worker processes, for a module; its `SIMULATOR` holds the simulator's arguments."""
    arguments: tuple[str, ...] = getattr(request.module, "SIMULATOR", ())
    with services(tmp_path_factory.mktemp("system"), *arguments) as running:
        running.start_web()
        running.start_workers()
        yield running


@contextmanager
def services(directory: Path, *simulator: str) -> Iterator[Cluster]:
    """A system on services that is not started yet: a new database, migrated by the script, and empty queues."""
    with postgres.scratch_database() as database_url:
        clear_queues()
        with cluster(directory, database_url, RABBITMQ, *simulator) as made:
            assert made.script("migrate").returncode == 0
            yield made
