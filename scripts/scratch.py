"""A database and a virtual host of the demo's own beside the caller's, which are not touched.

Where the role may not create databases, or no virtual host can be made, the caller's own are used if nothing of ours is
in them. Whatever was made is taken away at the end, so that production finds the services as they were.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import command
import pika
import pika.exceptions
from dramatiq.common import dq_name, xq_name

import database
from events_rabbitmq import EXCHANGE
from rabbitmq import why_no_connection

#: Seconds; a rabbitmqctl that finds its node answers within a few.
CONTROL_SECONDS = 60
#: Those of `actors.queues`; to import it is to build the broker, for which the caller's settings have to be whole.
ACTORS_QUEUES = ("esi_user_killmails_queue", "esi_killmail_details_queue", "esi_names_queue", "maintenance_queue")
QUEUES = tuple(name for queue in ACTORS_QUEUES for name in (queue, dq_name(queue), xq_name(queue)))


@contextmanager
def scratch_database(address: str) -> Iterator[str]:
    """The address of an empty PostgreSQL database. Raises command.Failure where there is none to be had."""
    with _connected(address):
        may_create = database.execute(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        ).fetchone()[0]
    if not may_create:
        with _emptied_database(address):
            yield address
        return
    name = _new_name()
    _administer(address, f'CREATE DATABASE "{name}"')
    try:
        yield _with_path(address, name)
    finally:
        _administer(address, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def scratch_broker(address: str) -> Iterator[str]:
    """The address of a virtual host without our queues. Raises command.Failure where there is none to be had."""
    _open(address).close()
    name = _new_name()
    made = _with_path(address, name)
    user = unquote(urlsplit(address).username or "guest")
    try:
        if (
            _control(address, "add_vhost", name)
            and _control(address, "set_permissions", "-p", name, user, ".*", ".*", ".*")
            and _reachable(made)
        ):
            yield made
            return
    finally:
        _control(address, "delete_vhost", name)
    with _emptied_broker(address):
        yield address


@contextmanager
def _emptied_database(address: str) -> Iterator[None]:
    with _connected(address):
        before = set(database.db.get_tables())
        users = "users" in before and database.execute("SELECT COUNT(*) FROM users").fetchone()[0]
    if users:
        raise command.Failure(
            f"this database holds {users} users, and its role may not create another: name an empty one in "
            "DATABASE_URL, or ALTER ROLE … CREATEDB"
        )
    if before:
        raise command.Failure(
            "this database is not empty, and its role may not create another: name an empty one in DATABASE_URL, "
            "or ALTER ROLE … CREATEDB"
        )
    try:
        yield
    finally:
        with _connected(address):
            for table in database.db.get_tables():
                database.db.execute_sql(f'DROP TABLE "{table}" CASCADE')


@contextmanager
def _emptied_broker(address: str) -> Iterator[None]:
    taken = [name for name in QUEUES if _exists(address, name)]
    if taken:
        raise command.Failure(
            f"this RabbitMQ has a queue {taken[0]}, and no virtual host can be made with rabbitmqctl: "
            "name an empty virtual host in RABBITMQ_URL"
        )
    try:
        yield
    finally:
        connection = _open(address)
        channel = connection.channel()
        for name in QUEUES:
            channel.queue_delete(name)
        channel.exchange_delete(EXCHANGE)
        connection.close()


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """`database.db` bound to this address meanwhile; nothing of it stays open."""
    connected: Any = database.connect(address)
    try:
        with connected.connection_context():
            yield
    finally:
        connected.close_all()


def _administer(address: str, statement: str) -> None:
    with _connected(address):
        database.db.execute_sql(statement)


def _open(address: str) -> pika.BlockingConnection:
    try:
        return pika.BlockingConnection(pika.URLParameters(address))
    except (pika.exceptions.AMQPError, OSError) as error:
        raise command.Failure(f"{why_no_connection(error)} (check RABBITMQ_URL)") from None


def _reachable(address: str) -> bool:
    """False where rabbitmqctl speaks to the machine's own node, and the address is another one's."""
    try:
        pika.BlockingConnection(pika.URLParameters(address)).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def _exists(address: str, queue: str) -> bool:
    connection = _open(address)
    try:
        connection.channel().queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return False
    finally:
        connection.close()
    return True


def _control(address: str, *arguments: str) -> bool:
    """Run rabbitmqctl on this machine's server; false where there is none or it refuses us."""
    program = shutil.which("rabbitmqctl")
    if program is None or urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1"):
        return False
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            [program, "-q", *arguments], capture_output=True, timeout=CONTROL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _new_name() -> str:
    return f"killmails_demo_{secrets.token_hex(6)}"


def _with_path(address: str, name: str) -> str:
    return urlunsplit(urlsplit(address)._replace(path=f"/{name}"))
