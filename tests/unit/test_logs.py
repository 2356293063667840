"""Logs: one line an event, in both formats, and nothing in it that a stranger or a library put there unasked."""

from __future__ import annotations

import io
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import peewee
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker

import logs
from actors.counts import BrokerUnreachable, connect
from settings import Settings

#: Ends a line, starts a line of its own, clears the screen, ends a line for Unicode.
HOSTILE = "x\n12:00:00 INFO    ledger: all is well\r\x1b[2J\x9b2J\u2028y"


@dataclass
class Log:
    """What was written to stderr, from a configuration on."""

    make_settings: Callable[..., Settings]
    monkeypatch: pytest.MonkeyPatch
    stream: io.StringIO = field(default_factory=io.StringIO)

    def configure(self, log_format: str, level: str = "INFO") -> None:
        self.monkeypatch.setattr(sys, "stderr", self.stream)
        logging.getLogger().handlers.clear()  # pytest's own would be closed
        logs.configure(self.make_settings(log_format=log_format, log_level=level))

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()  # also at what only Unicode calls a line end

    def line(self) -> str:
        (line,) = self.lines()
        return line


@pytest.fixture
def log(make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    root = logging.getLogger()
    level = root.level
    quiet = {name: logging.getLogger(name).level for name in logs.QUIET}
    yield Log(make_settings, monkeypatch)
    root.handlers.clear()
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


def test_a_line_for_people(log: Log) -> None:
    log.configure("console")
    logging.getLogger("ledger").warning("user %d: %s", 7, "waits")
    assert log.line().partition(" ")[2] == "WARNING ledger: user 7: waits"


def test_a_line_for_machines(log: Log) -> None:
    log.configure("json")
    logging.getLogger("ledger").warning("user %d: %s", 7, "waits")

    line: dict[str, Any] = json.loads(log.line())
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "WARNING", "logger": "ledger", "message": "user 7: waits"}


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_a_stranger_says_stays_in_its_line(log: Log, log_format: str) -> None:
    log.configure(log_format)
    logging.getLogger("esi").info("answered %s", HOSTILE)

    line = log.line()
    assert line.isprintable()
    assert "all is well" in line


def test_what_a_stranger_said_can_be_read_from_json_again(log: Log) -> None:
    log.configure("json")
    logging.getLogger("esi").info("%s", HOSTILE + "\ud800")
    assert json.loads(log.line())["message"] == HOSTILE + "\ud800"


def test_a_traceback_is_part_of_its_json_line(log: Log) -> None:
    log.configure("json")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("ledger").exception("failed", stack_info=True)

    line = json.loads(log.line())
    assert "KeyError: 'gone'" in line["traceback"]
    assert "test_logs.py" in line["stack"]


def test_a_traceback_follows_its_line_for_people(log: Log) -> None:
    log.configure("console")
    try:
        raise KeyError("gone")
    except KeyError:
        logging.getLogger("ledger").exception("failed")
    assert (log.lines()[0].partition(" ")[2], log.lines()[-1]) == ("ERROR   ledger: failed", "KeyError: 'gone'")


def test_a_broker_that_is_away_is_left_to_us_to_tell(log: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    rabbitmq = RabbitmqBroker(url=f"amqp://guest:guest@127.0.0.1:{port}")
    log.configure("console")
    with pytest.raises(BrokerUnreachable):
        connect(rabbitmq)
    assert log.lines() == []


@pytest.mark.parametrize("library", ["peewee", "peewee.pool", "urllib3.connectionpool", "pika.connection", "werkzeug"])
def test_at_debug_libraries_do_not_say_what_they_hold(log: Log, library: str) -> None:
    """Statements with their parameters, addresses with killmail hashes, a broker's address."""
    log.configure("console", "DEBUG")

    logging.getLogger("ledger").debug("ours")
    logging.getLogger(library).debug("SELECT … geheim")
    logging.getLogger(library).info("SELECT … geheim")

    assert log.line().endswith("ledger: ours")


def test_urllib3_does_not_warn_with_the_address_it_tries_again(log: Log) -> None:
    log.configure("console", "DEBUG")
    logging.getLogger("urllib3.connectionpool").warning("Retrying: /killmails/1/geheim")
    assert log.lines() == []


def test_a_skipped_message_is_no_news_and_a_failed_one_is(log: Log) -> None:
    log.configure("console")
    log.configure("console")  # twice is as good as once
    worker = logging.getLogger("dramatiq.worker.WorkerThread")
    worker.warning("Message %s was skipped.", "id")
    worker.error("Failed to process message %s.", "id")
    assert log.line().endswith("Failed to process message id.")


def test_the_level_is_the_settings(log: Log) -> None:
    log.configure("console", "ERROR")
    logging.getLogger("ledger").warning("unheard")
    logging.getLogger("pika").warning("unheard")
    logging.getLogger("ledger").error("heard")
    assert log.line().endswith("heard")


def test_a_full_disk_is_told_by_what_failed_first(log: Log) -> None:
    """COMMIT fails for want of room, and ROLLBACK then for want of a transaction: the second says nothing."""
    log.configure("console")
    try:
        try:
            raise peewee.OperationalError("database or disk is full")
        except peewee.OperationalError:
            raise peewee.OperationalError("cannot rollback - no transaction is active")  # noqa: B904 - as peewee does
    except peewee.OperationalError:
        logging.getLogger("dramatiq.worker.WorkerThread").exception("Failed to process message 7.")

    assert log.line().endswith("Failed to process message 7. database or disk is full")


@pytest.mark.parametrize("kind", [peewee.OperationalError, peewee.InterfaceError, peewee.InternalError])
def test_a_database_that_cannot_be_used_is_one_line_a_message(log: Log, kind: type[Exception]) -> None:
    """InternalError is PostgreSQL's word for one that may only be read."""
    log.configure("console")
    try:
        raise kind("cannot execute UPDATE in a read-only transaction\nLINE 1: UPDATE users")
    except kind:
        logging.getLogger("dramatiq.worker.WorkerThread").exception("Failed to process message 7.")

    assert log.line().endswith("Failed to process message 7. cannot execute UPDATE in a read-only transaction")
