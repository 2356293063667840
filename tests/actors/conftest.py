"""Fixtures of the actors' tests: the project's own broker in memory, a database file, and the simulator as ESI and SSO.

Nothing of ours is replaced: settings come from the environment, and whatever goes wrong does so at the simulator, in
the database, or at the broker (`post.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from dramatiq.brokers.stub import StubBroker
from peewee import Database

# Read when the actors are imported: without a broker's address the broker is the in-memory one.
os.environ["RABBITMQ_URL"] = ""

import actors
import database
import events
import runtime
import settings
from actors.schedule import tend
from models import Sync
from simulator import server
from tests.actors.asking import ask
from tests.actors.clock import shift_database
from tests.actors.crew import Crew
from tests.actors.post import Post, fresh_queues
from tests.actors.simulated import CONFIG, Pilot, Simulated

#: Encrypts the tokens of all tests.
TOKEN_KEY = Fernet.generate_key().decode()


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[server.RunningSimulator]:
    running = server.start(CONFIG)
    yield running
    running.stop()


@pytest.fixture
def simulated(running_simulator: server.RunningSimulator, configure: Callable[..., None]) -> Simulated:
    """ESI and SSO in a world without anybody."""
    made = Simulated(running_simulator)
    made.start_anew()
    configure(ESI_URL=made.url, SSO_URL=made.url)
    return made


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch, database_file: Path) -> Iterator[Callable[..., None]]:
    """Settings from the environment; called again it changes single ones, as a restart of the process would."""
    environment = {
        "DATABASE_URL": f"sqlite:///{database_file}",
        "RABBITMQ_URL": "",
        "EVE_CLIENT_ID": "demo",
        "EVE_CLIENT_SECRET": "demo",
        "SECRET_KEY": "not-a-secret-" * 4,
        "TOKEN_KEYS": TOKEN_KEY,
        "ESI_REQUESTS_PER_SECOND": "1000",
    }

    def forget_clients() -> None:
        for client in (runtime.esi, runtime.sso):
            if client.cache_info().currsize:
                client().close()
        for cached in (settings.current, runtime.esi, runtime.sso, runtime.limiter, runtime.cipher):
            cached.cache_clear()

    def change(**changes: str) -> None:
        for name, value in changes.items():
            monkeypatch.setenv(name, value)
        forget_clients()

    change(**environment)
    yield change
    forget_clients()


@pytest.fixture(autouse=True)
def connected(sqlite_db: Database, configure: Callable[..., None]) -> Iterator[None]:
    """The test's own thread has a connection; events stay in this process."""
    events.configure(None)
    with database.db.connection_context():
        yield
    events.close()


@pytest.fixture(autouse=True)
def post() -> Iterator[Post]:
    """What is sent in this test, and the faults of the way. The broker is the project's own, its queues are empty."""
    broker = actors.broker
    assert isinstance(broker, StubBroker), "the actors were imported with RABBITMQ_URL set: unset it for the tests"
    post = Post()
    middleware = list(broker.middleware)
    fresh_queues(broker, post)
    broker.add_middleware(post)
    yield post
    broker.middleware[:] = middleware
    fresh_queues(broker, Post())


@pytest.fixture
def crew(post: Post) -> Crew:
    """The workers."""
    assert isinstance(actors.broker, StubBroker)
    return Crew(actors.broker)


@pytest.fixture
def later(simulated: Simulated) -> Callable[[float], None]:
    """Let so many seconds pass, at our place and at ESI's."""

    def pass_time(seconds: float) -> None:
        shift_database(seconds)
        simulated.let_time_pass(seconds)

    return pass_time


@pytest.fixture
def sync(crew: Crew) -> Callable[..., Sync]:
    """Ask for a sync, work until there is nothing to do, and return its row."""

    def run(pilot: Pilot, *, threads: int = 1, **wishes: Any) -> Sync:
        asked = ask(pilot, **wishes)
        crew.drain(threads)
        return Sync.get_by_id(asked.sync_id)

    return run


@pytest.fixture
def tick(crew: Crew) -> Callable[[], None]:
    """One look of the clock at what was left behind, and the work that follows from it."""

    def look() -> None:
        tend()
        crew.drain()

    return look


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement run from now on, on every thread."""
    seen: list[str] = []

    def note(query: Any) -> None:
        seen.append(" ".join(str(getattr(query, "sql", query)).split()))

    database.db.obj.query_hooks.append(note)
    yield seen
    database.db.obj.query_hooks.remove(note)
