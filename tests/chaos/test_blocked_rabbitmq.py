"""A RabbitMQ that answers and takes no messages, short of memory: nothing hangs, and operators are told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from peewee import Database

from database import db
from models import Sync
from tests.chaos.servers import PrivateRabbitmq, servers_directory
from tests.unit.test_scripts import error_of, run
from tests.web_app import make_user

pytestmark = pytest.mark.services

#: Seconds for three users. It took 541 when each message was tried six times, half a minute each.
LIMIT = 25


@pytest.fixture
def short_of_memory() -> Iterator[PrivateRabbitmq]:
    """A node of the test's own whose memory alarm is on from the start."""
    with servers_directory() as directory:
        rabbitmq = PrivateRabbitmq(directory / "rabbitmq")
        with (directory / "rabbitmq" / "rabbitmq.conf").open("a") as config:
            config.write("vm_memory_high_watermark.absolute = 1MB\n")
        rabbitmq.start()
        yield rabbitmq
        rabbitmq.stop()


def test_users_are_queued_and_the_alarm_is_told(
    sqlite_db: Database, database_file: Path, short_of_memory: PrivateRabbitmq
) -> None:
    with db.connection_context():
        for character_id in (90_000_001, 90_000_002, 90_000_003):
            make_user(character_id)
    settings = {
        "DATABASE_URL": f"sqlite:///{database_file}",
        "RABBITMQ_URL": short_of_memory.url,
        "SECRET_KEY": "geheim" * 8,
        "TOKEN_KEYS": Fernet.generate_key().decode(),
    }
    began = time.monotonic()
    queued = run("queue_users", **settings)
    took = time.monotonic() - began
    looked = run("check_queue", **settings)

    assert queued.returncode == 0, queued.stderr
    assert "Queued 3 of 3 users." in queued.stdout
    assert len(queued.stderr.splitlines()) == 1
    assert "RabbitMQ takes no messages: it is short of memory or disk" in queued.stderr
    assert took < LIMIT
    print(f"queue_users took {took:.1f} s for three users")
    assert error_of(looked).startswith("RabbitMQ takes no messages")
    with db.connection_context():
        assert Sync.select().count() == 3
