"""A worker that was started while the database was down: it works only once code and schema are known to fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

import settings
from actors.broker import make_broker
from database import execute
from tests.actors.crew import Crew


@pytest.fixture
def runs() -> list[str]:
    return []


@pytest.fixture
def late_broker(configure, runs: list[str]) -> Iterator[StubBroker]:
    """The broker of a process that could not check the schema when it started, with an actor of its own."""
    broker = make_broker(settings.current(), schema_checked=False)
    assert isinstance(broker, StubBroker)

    @dramatiq.actor(broker=broker, max_retries=0)
    def work() -> None:
        runs.append("ran")

    yield broker
    broker.close()


def _send_and_drain(broker: StubBroker) -> None:
    for _ in range(3):
        broker.get_actor("work").send()
    Crew(broker).drain(threads=2)


def test_messages_are_dropped_until_the_schema_fits_and_one_line_says_why(late_broker, runs, caplog):
    execute("ALTER TABLE schema_migration RENAME TO applied_later")
    caplog.set_level(logging.ERROR, logger="actors")
    _send_and_drain(late_broker)
    assert runs == []
    [line] = [record.getMessage() for record in caplog.records]
    assert "scripts/migrate.py" in line

    execute("ALTER TABLE applied_later RENAME TO schema_migration")
    _send_and_drain(late_broker)
    assert runs == ["ran"] * 3
    assert late_broker.dead_letters == []
