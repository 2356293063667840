"""Messages that nobody of ours sent, on each queue of a running RabbitMQ: garbage, strangers, the past and the future.

Whoever reaches the broker may send anything, and an older or newer version of this code is somebody, too. Each message
ends in a log line and, where it may have meant something, among the dead letters; the workers work on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from dramatiq.common import xq_name

from actors import queues
from tests import rabbitmq
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import Process, wait_until

pytestmark = pytest.mark.services

#: One pilot for every message, to see afterwards that the workers work on.
SIMULATOR = ("--pilots", "60", "--killmails-count", "120", "--shared", "0", "--attackers", "2", "--items", "1")
ACTORS = {
    queues.SYNCS: "sync_user",
    queues.KILLMAILS: "fetch_killmail",
    queues.NAMES: "resolve_names",
    queues.MAINTENANCE: "tend_ledger",
}
LOUD = ("WARNING", "ERROR", "CRITICAL")


def message(queue: str, **changes: Any) -> bytes:
    """A message as Dramatiq 2.2 writes it, but for the changes; a change of ... leaves the field out."""
    fields: dict[str, Any] = {
        "queue_name": queue,
        "actor_name": ACTORS[queue],
        "args": [] if queue in (queues.NAMES, queues.MAINTENANCE) else [999_999_999],
        "kwargs": {},
        "options": {},
        "message_id": "5b6a8d0c-poison",
        "message_timestamp": int(time.time() * 1000),
    }
    return json.dumps({name: value for name, value in {**fields, **changes}.items() if value is not ...}).encode()


#: What a worker cannot understand at all.
UNREADABLE: dict[str, Any] = {
    "garbage bytes": lambda queue: b"\x00\xff\xfe\x80garbage",
    "nothing": lambda queue: b"",
    "pickle": lambda queue: b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "JSON of another kind": lambda queue: b'["sync_user", 1]',
    "nested deeply": lambda queue: b"[" * 50_000,
    "an old format": lambda queue: message(queue, options=..., message_timestamp=...),
    "a future format": lambda queue: message(queue, version=2, trace={"id": 1}),
    "an unknown actor": lambda queue: message(queue, actor_name="sync_everything"),
    "an actor that is no name": lambda queue: message(queue, actor_name={"name": "sync_user"}),
    "options that are none": lambda queue: message(queue, options=None),
    "arguments by name that are none": lambda queue: message(queue, kwargs=None),
    "a queue that does not exist": lambda queue: message(queue, queue_name="somewhere_else"),
    "another queue's name": lambda queue: message(
        queue, queue_name=queues.ALL[(queues.ALL.index(queue) + 1) % len(queues.ALL)]
    ),
}
#: What it can read, and has to refuse or leave.
UNUSABLE: dict[str, Any] = {
    "an argument too many": lambda queue: message(queue, args=[1, 2, 3]),
    "an argument of the future": lambda queue: message(queue, args=[], kwargs={"of": [1], "since": "2027"}),
}
#: What it can read and use: options nobody knows yet change nothing.
HARMLESS: dict[str, Any] = {
    "options of the future": lambda queue: message(queue, options={"deadline": 5, "tenant": {"id": 1}}),
    "an argument of another type": lambda queue: message(
        queue, args=[] if queue in (queues.NAMES, queues.MAINTENANCE) else ["1; DROP TABLE users"]
    ),
    "an id beyond 64 bits": lambda queue: message(
        queue, args=[] if queue in (queues.NAMES, queues.MAINTENANCE) else [2**80]
    ),
    "a message from long ago": lambda queue: message(queue, message_timestamp=1),
    "a message from the far future": lambda queue: message(queue, message_timestamp=2**60),
    "times that are no times": lambda queue: message(queue, message_timestamp="yesterday", options={"eta": "tomorrow"}),
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, both_services: None) -> Iterator[Cluster]:
    with services(tmp_path_factory.mktemp("poison"), *SIMULATOR) as running:
        running.start_web()
        running.processes.environment = {**running.processes.environment, "LOG_FORMAT": "json"}
        yield running


@pytest.fixture(scope="module")
def pilots(system: Cluster) -> Iterator[int]:
    return iter(sorted(system.simulated.truth()))


@pytest.fixture
def workers(system: Cluster) -> Iterator[Process]:
    """One process with few threads, so that it shows when one of them is lost; queues without leftovers."""
    with broker() as connection:
        for queue in queues.ALL:
            for name in (queue, xq_name(queue)):
                declared(connection, name, purge=True)
    started = system.start_workers(processes=1, threads=3)
    wait_until(lambda: all_consumed(), "every queue has its consumer", 20)
    yield started
    started.kill()


class broker:  # noqa: N801 - reads as what it is
    """A connection to RabbitMQ for one `with`."""

    def __enter__(self) -> Any:
        self._connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address()))
        return self._connection

    def __exit__(self, *_: Any) -> None:
        self._connection.close()


def declared(connection: Any, name: str, *, purge: bool = False) -> tuple[int, int]:
    """Messages ready and consumers of a queue; zero where there is no such queue."""
    channel = connection.channel()
    try:
        method = channel.queue_declare(name, passive=True).method
        if purge:
            channel.queue_purge(name)
        channel.close()
        return method.message_count, method.consumer_count
    except pika.exceptions.ChannelClosedByBroker:
        return 0, 0


def all_consumed() -> bool:
    with broker() as connection:
        return all(declared(connection, queue)[1] == 1 for queue in queues.ALL)


def left_over(names: list[str]) -> int:
    with broker() as connection:
        return sum(declared(connection, name)[0] for name in names)


def waiting() -> list[bytes]:
    """What is ready in our queues; it stays there."""
    found = []
    with broker() as connection:
        for queue in queues.ALL:
            channel = connection.channel()
            while (answer := channel.basic_get(queue))[0] is not None:
                found.append(answer[2])
            channel.close()
    return found


def send(bodies: dict[str, bytes]) -> None:
    with broker() as connection:
        channel = connection.channel()
        for queue, body in bodies.items():
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))


def lines(process: Process, since: int) -> list[dict[str, Any]]:
    """What was logged since, as JSON; anything else is no line of ours."""
    found = []
    for line in process.output()[since:].splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [entry for entry in found if isinstance(entry, dict)]


def loud(process: Process, since: int) -> list[str]:
    return [entry["message"] for entry in lines(process, since) if entry["level"] in LOUD]


def works_on(system: Cluster, pilots: Iterator[int]) -> None:
    """The next pilot's login is synced to its end, through every queue."""
    pilot = next(pilots)
    browser = system.browser()
    # Logins are limited by address, and these follow one another faster than any pilot's.
    browser.session.headers["X-Forwarded-For"] = f"192.0.2.{pilot % 250}"
    assert browser.log_in(pilot).status_code == 200
    wait_until(lambda: not system.differences(pilot), f"pilot {pilot} is synced", 20)
    wait_until(lambda: system.scalar("SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL") == 0, "it ends", 10)


def poison(system: Cluster, workers: Process, pilots: Iterator[int], make: Any) -> list[str]:
    """Send it to every queue, see the workers work on, end them, and return what they said aloud.

    What is in the queues once they are gone was never answered: it would poison the next ones.
    """
    before = len(workers.output())
    bodies = {queue: make(queue) for queue in queues.ALL}
    send(bodies)
    wait_until(lambda: left_over(list(queues.ALL)) == 0, "the messages are taken", 20)
    works_on(system, pilots)
    said = loud(workers, before)
    workers.stop()
    assert not [body for body in waiting() if body in bodies.values()], "a message was neither done nor refused"
    return said


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_told_once_and_kept(
    system: Cluster, workers: Process, pilots: Iterator[int], make: Any
) -> None:
    said = poison(system, workers, pilots, make)

    assert len(said) == len(queues.ALL), said
    assert left_over([xq_name(queue) for queue in queues.ALL]) == len(queues.ALL)


@pytest.mark.parametrize("make", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_used_is_told_once(system: Cluster, workers: Process, pilots: Iterator[int], make: Any) -> None:
    said = poison(system, workers, pilots, make)

    # Dramatiq adds a line of its own when it gives up.
    told = [line for line in said if not line.startswith("Retries exceeded")]
    assert len(told) == len(queues.ALL), said


@pytest.mark.parametrize("make", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_is_odd_hurts_nobody(system: Cluster, workers: Process, pilots: Iterator[int], make: Any) -> None:
    said = poison(system, workers, pilots, make)

    assert len(said) <= len(queues.ALL), said


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\xff", b"", b"[]", b"{}", b'{"type": "Unknown", "id": 1}', b'{"type": "KillmailStored"}',
        b'{"type": "KillmailStored", "id": "1 OR 1=1"}', b'{"type": "SyncChanged", "id": 99999999999999999999}',
        b'{"type": "KillmailStored", "id": -1}', b'{"type": ["KillmailStored"], "id": 1}', b"[" * 50_000,
        b'{"type": "KillmailStored", "id": 1, "version": 2}',
    ],
)  # fmt: skip
def test_a_rogue_event_ends_no_web_process(
    system: Cluster, workers: Process, pilots: Iterator[int], body: bytes
) -> None:
    with broker() as connection:
        connection.channel().basic_publish("killmail-sync.events", "", body)
    works_on(system, pilots)
    assert system.browser().ask("{ workerStatus { queueName } }")["data"]["workerStatus"]
