"""A simulator for each test, on a free port and in its own thread."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator import server
from simulator.config import Config
from tests.simulator.client import Client

Simulate = Callable[..., Client]
#: What CCP publishes of ESI and SSO: the OpenAPI document, cut to the routes used here, and the key set.
DOCUMENTS = Path(__file__).parents[1] / "fixtures" / "esi"


@pytest.fixture
def simulate() -> Iterator[Simulate]:
    """Starts simulators with small worlds; keyword arguments are those of `Config`."""
    running: list[server.RunningSimulator] = []
    clients: list[Client] = []

    def start(**wishes: Any) -> Client:
        simulator = server.start(Config(**{"killmail_count": 12, "pilots": 2, "cache_seconds": 0, **wishes}))
        running.append(simulator)
        clients.append(Client(simulator.url))
        return clients[-1]

    yield start
    for client in clients:
        client.session.close()
    for simulator in running:
        simulator.stop()
