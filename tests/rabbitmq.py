"""RabbitMQ for tests: a virtual host of this run's own where one can be made, else the one of the address.

The server is that of TEST_RABBITMQ_URL, or the local one. Virtual hosts are made with `rabbitmqctl`, which only the
server's own machine and user (or root) can; without it our queues are deleted first, unless somebody consumes them.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import subprocess
import time
from functools import cache
from urllib.parse import urlsplit, urlunsplit

import pika
import pika.exceptions
import pytest
from dramatiq.common import dq_name, xq_name

from actors import queues
from tests.postgres import missing

SERVER = os.environ.get("TEST_RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/%2F"
NOT_REACHABLE = "RabbitMQ not reachable: set TEST_RABBITMQ_URL, or start one at 127.0.0.1:5672"


def require_server() -> None:
    """Skip the test where there is no server; with CI=true, fail it."""
    try:
        pika.BlockingConnection(pika.URLParameters(SERVER)).close()
    except (pika.exceptions.AMQPConnectionError, OSError):
        missing(NOT_REACHABLE)


@cache
def address() -> str:
    """Where this run's systems find their broker: two runs at once, or one beside a working system, do not meet."""
    name = f"killmails_test_{secrets.token_hex(6)}"
    user = urlsplit(SERVER).username or "guest"
    if not (_control("add_vhost", name) and _control("set_permissions", "-p", name, user, ".*", ".*", ".*")):
        return SERVER
    atexit.register(_control, "delete_vhost", name)
    made = urlunsplit(urlsplit(SERVER)._replace(path=f"/{name}"))
    try:
        pika.BlockingConnection(pika.URLParameters(made)).close()
    except (pika.exceptions.AMQPError, OSError):
        return SERVER  # rabbitmqctl speaks to the machine's own node, and that is another one
    return made


def clear_queues() -> None:
    """Delete our queues: what was in them is in the ledger of its database. Fails where somebody consumes them."""
    connection = pika.BlockingConnection(pika.URLParameters(address()))
    try:
        for queue in queues.ALL:
            for name in (queue, dq_name(queue), xq_name(queue)):
                connection.channel().queue_delete(name, if_unused=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        pytest.fail(f"RabbitMQ's queues are in use; stop the system that uses them, or set TEST_RABBITMQ_URL ({error})")
    finally:
        if connection.is_open:
            connection.close()


def put(queue: str, body: bytes, seconds: float = 30.0) -> None:
    """Into one of our queues, once somebody has declared it: until then RabbitMQ would drop it without a word."""
    deadline = time.monotonic() + seconds
    connection = pika.BlockingConnection(pika.URLParameters(address()))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        while True:
            try:
                channel.basic_publish("", queue, body, mandatory=True)
                return
            except pika.exceptions.UnroutableError:
                if time.monotonic() > deadline:
                    raise
                connection.sleep(0.1)
    finally:
        connection.close()


def _control(*arguments: str) -> bool:
    """Run rabbitmqctl on the local server; false where there is none or it refuses us."""
    if shutil.which("rabbitmqctl") is None or urlsplit(SERVER).hostname not in ("127.0.0.1", "localhost"):
        return False
    done = subprocess.run(["rabbitmqctl", "-q", *arguments], capture_output=True, timeout=60, check=False)
    return done.returncode == 0
