"""Fixtures of the attacks: the web application as its other tests have it, running sockets, and whole systems.

Nothing of ours is replaced. What attacks are made of (a forger's keys, a rogue message, a lying row) is in the tests.
"""

from tests.acceptance.conftest import both_services
from tests.api.conftest import connect, server_port

__all__ = ["both_services", "connect", "server_port"]
