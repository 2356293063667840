"""What a demo on real services makes for itself beside the caller's database and broker, and takes away again."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pika
import psycopg2
import pytest

from actors import queues
from settings import ROOT
from tests import postgres, rabbitmq


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("scripts.scratch")


@contextmanager
def database_of_a_plain_role() -> Iterator[str]:
    """The address of an empty database whose owner may not make another."""
    role, password = f"killmails_test_{secrets.token_hex(6)}", secrets.token_hex(12)
    with postgres.scratch_database() as url:
        postgres.administer(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        postgres.administer(f'ALTER DATABASE "{parts.path[1:]}" OWNER TO {role}')
        try:
            yield urlunsplit(parts._replace(netloc=f"{role}:{password}@{host}"))
        finally:
            postgres.administer(f'ALTER DATABASE "{parts.path[1:]}" OWNER TO CURRENT_USER')
            run(url, f"DROP OWNED BY {role}")
            postgres.administer(f"DROP ROLE {role}")


def run(url: str, *statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def names(url: str, sql: str) -> set[Any]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return {row[0] for row in cursor.fetchall()}


def tables(url: str) -> set[Any]:
    return names(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


class TestDatabase:
    @pytest.fixture(autouse=True)
    def server(self) -> None:
        postgres.require_server()

    def test_it_is_another_than_the_callers_and_gone_afterwards(self, scratch: Any) -> None:
        with postgres.scratch_database() as theirs:
            run(theirs, "CREATE TABLE users (id int)", "INSERT INTO users VALUES (1)")
            with scratch.scratch_database(theirs) as made:
                run(made, "CREATE TABLE users (id int)")
                name = urlsplit(made).path[1:]
                assert name != urlsplit(theirs).path[1:]
            assert name not in names(theirs, "SELECT datname FROM pg_database")
            assert names(theirs, "SELECT id FROM users") == {1}

    def test_a_role_that_may_not_create_one_uses_its_empty_one_and_leaves_it_empty(self, scratch: Any) -> None:
        with database_of_a_plain_role() as theirs:
            with scratch.scratch_database(theirs) as made:
                assert made == theirs
                run(made, "CREATE TABLE users (id int PRIMARY KEY)", "CREATE TABLE syncs (id int REFERENCES users)")
            assert tables(theirs) == set()

    @pytest.mark.parametrize(
        ("users", "words"), [((1, 2), "this database holds 2 users"), ((), "this database is not empty")]
    )
    def test_one_that_is_in_use_is_refused_and_left_as_it_is(
        self, scratch: Any, users: tuple[int, ...], words: str
    ) -> None:
        with database_of_a_plain_role() as theirs:
            run(theirs, "CREATE TABLE users (id int)", *(f"INSERT INTO users VALUES ({each})" for each in users))

            with pytest.raises(scratch.command.Failure, match=words) as caught, scratch.scratch_database(theirs):
                pass

            assert "\n" not in str(caught.value)
            assert names(theirs, "SELECT id FROM users") == set(users)


class TestBroker:
    @pytest.fixture(autouse=True)
    def server(self) -> None:
        rabbitmq.require_server()

    @pytest.fixture
    def without_rabbitmqctl(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a machine that is not the broker's own; this run's virtual host has none of our queues."""
        rabbitmq.clear_queues()
        monkeypatch.setenv("PATH", "/nonexistent")

    def test_it_is_another_than_the_callers_and_gone_afterwards(self, scratch: Any) -> None:
        if rabbitmq.address() == rabbitmq.SERVER:
            pytest.skip("no virtual host can be made on this RabbitMQ")
        with scratch.scratch_broker(rabbitmq.address()) as made:
            assert made != rabbitmq.address()
            pika.BlockingConnection(pika.URLParameters(made)).close()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(made))

    def test_without_rabbitmqctl_the_callers_is_used_and_left_without_our_queues(
        self, scratch: Any, without_rabbitmqctl: None
    ) -> None:
        with scratch.scratch_broker(rabbitmq.address()) as made:
            assert made == rabbitmq.address()
            declare(made, queues.SYNCS)
        assert not scratch._exists(made, queues.SYNCS)

    def test_one_that_is_in_use_is_refused_and_left_as_it_is(self, scratch: Any, without_rabbitmqctl: None) -> None:
        declare(rabbitmq.address(), queues.NAMES)

        with pytest.raises(scratch.command.Failure, match=queues.NAMES), scratch.scratch_broker(rabbitmq.address()):
            pass

        assert scratch._exists(rabbitmq.address(), queues.NAMES)
        rabbitmq.clear_queues()

    def test_one_that_does_not_answer_is_told(self, scratch: Any) -> None:
        with (
            pytest.raises(scratch.command.Failure, match="check RABBITMQ_URL"),
            scratch.scratch_broker("amqp://guest:guest@127.0.0.1:1/%2F"),
        ):
            pass


def declare(url: str, queue: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(queue, durable=True, arguments={"x-max-priority": queues.MAX_PRIORITY})
    connection.close()


def test_the_queues_are_the_actors_own(scratch: Any) -> None:
    assert scratch.ACTORS_QUEUES == queues.ALL
