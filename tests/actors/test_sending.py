"""A broker that is down: in a process of its own, with a RABBITMQ_URL where nobody listens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import settings
from actors import sending
from actors.names import resolve_names
from database import db
from models import Sync, SyncState
from tests.actors.asking import stored

SCRIPT = """
import json, sys, time
import database, settings
database.connect(settings.current().database_url)
from actors import sending
from actors.dispatching import dispatch_now
from actors.requests import request_sync
from actors.schedule import tend
if "one-thread" in sys.argv:
    sending.through_one_thread()
started = time.monotonic()
with database.db.connection_context():
    asked = request_sync(int(sys.argv[1]), "WEB")
    took = time.monotonic() - started
    tend()
    sent = dispatch_now()
print(json.dumps({"queued": asked.queued, "sync_id": asked.sync_id, "seconds": took, "sent": sent}))
"""


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _run(user_id: int, rabbitmq_url: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(user_id), *arguments],
        cwd=settings.ROOT,
        env={**os.environ, "RABBITMQ_URL": rabbitmq_url, "PYTHONPATH": str(settings.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rabbitmq_url not in done.stderr, "an address may hold a password"
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("arguments", [(), ("one-thread",)])
def test_with_the_broker_down_a_request_succeeds_and_the_tick_sends_it_later(
    simulated, later, tick, closed_port, arguments
):
    pilot = simulated.pilot(2)
    said = _run(pilot.user_id, f"amqp://guest:secret@127.0.0.1:{closed_port}/%2F", *arguments)
    assert (said["queued"], said["sent"]) == (True, 0)
    assert float(str(said["seconds"])) < 5
    assert Sync.get_by_id(said["sync_id"]).state == SyncState.QUEUED

    later(130)
    tick()
    assert stored() == simulated.list_of(pilot)
    assert Sync.get_by_id(said["sync_id"]).state == SyncState.FINISHED


def test_a_process_with_many_threads_publishes_from_one(simulated, post, monkeypatch):
    """RabbitMQ's client keeps one connection a thread, and those of threads that are gone."""
    monkeypatch.setattr(sending, "_publisher", None)
    sending.through_one_thread()
    publisher = sending._publisher
    sending.through_one_thread()
    assert sending._publisher is publisher
    threads: set[str] = set()
    real = post.before_enqueue

    def noting(broker, message, delay):
        threads.add(threading.current_thread().name)
        real(broker, message, delay)

    post.before_enqueue = noting
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: sending.send(resolve_names), range(8)))
    assert len(threads) == 1
    assert threads.pop().startswith("publisher")
    assert len(post.to("resolve_names")) == 8
    assert publisher is not None
    publisher.shutdown()


def test_a_broker_that_takes_its_time_does_not_hold_up_the_caller(simulated, post, monkeypatch):
    monkeypatch.setattr(sending, "_publisher", None)
    monkeypatch.setattr(sending, "PATIENCE_SECONDS", 0.05)
    sending.through_one_thread()
    go_on = threading.Event()
    post.before_enqueue = lambda *_: go_on.wait(10)
    assert sending.send(resolve_names) is False
    go_on.set()
    publisher = sending._publisher
    assert publisher is not None
    publisher.shutdown()


def test_a_refused_message_is_false_and_no_exception(simulated, post):
    post.refuse("resolve_names")
    assert sending.send(resolve_names) is False
    post.mend()
    assert sending.send(resolve_names) is True


def test_a_delay_below_zero_is_none(simulated, post):
    sending.send(resolve_names, delay_seconds=-5)
    assert [message.delay for message in post.messages] == [0]


def test_importing_the_actors_for_a_worker_without_a_broker_ends_with_one_line(simulated, tmp_path: Path):
    program = tmp_path / "dramatiq"
    program.write_text("import actors")
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=settings.ROOT,
        env={**os.environ, "RABBITMQ_URL": "", "PYTHONPATH": str(settings.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "RABBITMQ_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_message_leaves_before_the_commit(simulated) -> None:
    with db.atomic(), pytest.raises(RuntimeError, match="after the commit"):
        sending.send(resolve_names)
