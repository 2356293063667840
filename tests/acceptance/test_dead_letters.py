"""Dead letters can be looked at, and sent again; looking changes nothing, and sending does nothing twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors import queues
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import wait_until
from tests.rabbitmq import put

SIMULATOR = ("--pilots", "1", "--killmails-count", "5", "--cache-seconds", "0")


@pytest.fixture
def system(tmp_path: Path, both_services: None) -> Iterator[Cluster]:
    with services(tmp_path, *SIMULATOR) as made:
        made.start_web()
        made.start_workers(processes=1, threads=2)
        yield made


def test_dead_letters_are_listed_and_sent_again(system: Cluster) -> None:
    # Given a message that nobody can read, one with arguments of another version, and a sync whose message died
    put(queues.SYNCS, b"garbage")
    put(queues.SYNCS, message("sync_user", ["not", "an", "id"]))
    wait_until(lambda: len(dead(system)) == 2, "both are dead")

    # When they are looked at twice, and sent again
    first, second = dead(system), dead(system)
    replayed = json.loads(system.script("check_queue", "--replay", "--json").stdout)

    # Then looking changed nothing, what can be read was sent and died again, and the other stays
    assert sorted(map(str, first)) == sorted(map(str, second))
    assert {each["actor"] for each in first} == {None, "sync_user"}
    assert replayed == {"sent": 1, "unreadable": 1}
    wait_until(lambda: len(dead(system)) == 2, "it died again")

    # And the workers are as well as ever
    pilot = min(system.simulated.truth())
    system.browser().log_in(pilot)
    system.wait_for_syncs()
    assert system.differences() == []


def test_without_any_it_says_so(system: Cluster) -> None:
    assert "No dead letters" in system.script("check_queue", "--dead").stdout
    assert system.script("check_queue", "--replay").stdout == "Sent 0 again; 0 unreadable.\n"


@pytest.mark.parametrize(
    "arguments", [["--dead", "--replay"], ["--replay", "--watch"], ["--replay", "5"], ["--deadly"]]
)
def test_what_cannot_be_meant_sends_nothing(system: Cluster, arguments: list[str]) -> None:
    put(queues.SYNCS, b"garbage")
    wait_until(lambda: len(dead(system)) == 1, "it is dead")
    refused = system.script("check_queue", *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr
    assert len(dead(system)) == 1


@pytest.mark.parametrize("what", ["--dead", "--replay"])
def test_a_broker_that_is_away_is_told_in_one_line(system: Cluster, what: str) -> None:
    address = "amqp://guest:guest@127.0.0.1:1/%2F"
    system.processes.environment = {**system.processes.environment, "RABBITMQ_URL": address}
    failed = system.script("check_queue", what)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert len(failed.stderr.strip().splitlines()) == 1 and "check RABBITMQ_URL" in failed.stderr


def dead(system: Cluster) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(system.script("check_queue", "--dead", "--json").stdout)
    return listed


def message(actor: str, arguments: list[object]) -> bytes:
    fields = {
        "queue_name": queues.SYNCS, "actor_name": actor, "args": arguments, "kwargs": {}, "options": {},
        "message_id": "00000000-0000-0000-0000-000000000001", "message_timestamp": int(time.time() * 1000),
    }  # fmt: skip
    return json.dumps(fields).encode()
