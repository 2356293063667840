"""The same actors on the real RabbitMQ: who overtakes whom in its queue, and what waits in its delay queue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dramatiq
import pika
import pytest
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import dq_name, xq_name
from dramatiq.worker import Worker

import actors
import settings
from actors import queues, sending
from actors.broker import make_broker
from actors.counts import PROBE, BrokerUnreachable, QueueRefused, check_broker, connect
from actors.dead_letters import dead_letters, replay
from actors.dispatching import dispatch
from actors.expired import SENT_AT
from actors.killmails import TIME_LIMIT_MS, fetch_killmail
from actors.middleware import EndsWithMaster
from actors.names import resolve_names
from actors.schedule import tend
from actors.users import sync_user
from ledger.rules import FAILED_SYNC_BACKOFF, FETCH_LEASE
from models import Sync, SyncState
from tests import rabbitmq
from tests.actors.asking import ask, stored
from tests.actors.post import Post

pytestmark = pytest.mark.services

COUNT = """
import json
from actors.counts import queue_counts
print(json.dumps({c.queue_name: [c.message_count, c.delayed_count, c.dead_count] for c in queue_counts()}))
"""


@pytest.fixture
def rabbit() -> Iterator[RabbitmqBroker]:
    """The project's broker on RabbitMQ, with empty queues, in place of the in-memory one."""
    rabbitmq.require_server()
    rabbitmq.clear_queues()
    broker = make_broker(replace(settings.current(), rabbitmq_url=rabbitmq.address()))
    assert isinstance(broker, RabbitmqBroker)
    for actor in actors.broker.actors.values():
        broker.declare_actor(actor)
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.set_broker(actors.broker)
    broker.close()
    rabbitmq.clear_queues()


@pytest.fixture
def work(rabbit: RabbitmqBroker) -> Iterator[Callable[[], Worker]]:
    running: list[Worker] = []

    def start(threads: int = 2) -> Worker:
        worker = Worker(rabbit, worker_threads=threads, worker_timeout=50)
        worker.queue_prefetch = threads
        worker.start()
        running.append(worker)
        return worker

    yield start
    for worker in running:
        worker.stop(timeout=5_000)


def _take(rabbit: RabbitmqBroker, queue: str) -> tuple[dramatiq.Message[Any] | None, int | None]:
    """The next message that RabbitMQ would give a consumer of this queue, and its priority there."""
    method, properties, body = rabbit.channel.basic_get(queue, auto_ack=True)
    if method is None:
        return None, None
    return dramatiq.Message.decode(body), properties.priority


def _until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


def test_a_login_overtakes_in_rabbitmqs_queue(rabbit, simulated):
    for killmail_id in (1, 2, 3):
        assert sending.send(fetch_killmail, killmail_id, priority=3)
    assert sending.send(fetch_killmail, 4, priority=8)
    assert sending.send(fetch_killmail, 5, priority=5)
    taken = [_take(rabbit, queues.KILLMAILS) for _ in range(5)]
    assert [(message.args[0], priority) for message, priority in taken if message] == [
        (4, 8), (5, 5), (1, 3), (2, 3), (3, 3),
    ]  # fmt: skip


def test_messages_without_a_priority_get_their_queues(rabbit, simulated):
    sending.send(resolve_names)
    sending.send(dispatch)
    assert _take(rabbit, queues.NAMES)[1] == queues.NAMES_PRIORITY
    assert _take(rabbit, queues.MAINTENANCE)[1] == queues.MAINTENANCE_PRIORITY


def test_a_delayed_message_waits_in_the_delay_queue_and_keeps_its_priority(rabbit, simulated):
    before = time.time() * 1000
    sending.send(sync_user, 7, priority=8, delay_seconds=30)
    assert _take(rabbit, queues.SYNCS) == (None, None)
    message, priority = _take(rabbit, dq_name(queues.SYNCS))
    assert message is not None
    assert (message.args, priority, message.options["broker_priority"]) == ((7,), 8, 8)
    assert before + 29_000 < message.options["eta"] < before + 31_000


def test_a_delayed_message_is_delivered_when_its_time_has_come(rabbit, simulated, work):
    pilot = simulated.pilot(2)
    asked = ask(pilot)
    _take(rabbit, queues.SYNCS)
    sending.send(sync_user, asked.sync_id or 0, priority=8, delay_seconds=0.7)
    work()
    _until(lambda: Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED)
    assert stored() == simulated.list_of(pilot)


def test_a_whole_sync_through_rabbitmq(rabbit, simulated, work):
    pilot = simulated.pilot(12)
    asked = ask(pilot)
    work(4)
    _until(lambda: Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED)
    assert stored() == simulated.list_of(pilot)
    assert len(simulated.asked("killmail")) == 12


def test_messages_that_are_lost_with_their_queue_are_sent_again(rabbit, simulated, work, later):
    pilot = simulated.pilot(4)
    asked = ask(pilot)
    rabbit.channel.queue_purge(queues.SYNCS)
    later(300)
    tend()
    work()
    _until(lambda: Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED)


def test_a_broker_that_goes_away_during_a_replay_is_told_as_such_and_takes_no_dead_letter_with_it(rabbit):
    rabbit.declare_queue(queues.SYNCS, ensure=True)
    letter = sync_user.message(1)
    rabbit.channel.basic_publish("", xq_name(queues.SYNCS), letter.encode())
    away = Post()
    rabbit.add_middleware(away)
    away.refuse("sync_user")

    with pytest.raises(BrokerUnreachable):
        replay()

    away.mend()
    assert replay() == (1, 0)
    again, _ = _take(rabbit, queues.SYNCS)
    assert again is not None and again.message_id == letter.message_id


@pytest.mark.parametrize("part", ["password", "virtual_host"])
def test_a_broker_that_says_no_is_told_from_one_that_is_not_there(rabbit, part):
    wrong = copy(rabbit.parameters)
    if part == "password":
        wrong.credentials = pika.PlainCredentials("guest", "not-the-password")
    else:
        wrong.virtual_host = "no-such-host"
    rabbit.parameters = wrong

    with pytest.raises(BrokerUnreachable, match="refuses the connection") as told:
        connect(rabbit)
    assert "not-the-password" not in str(told.value)


@pytest.mark.parametrize("priority", ["high", 300, -1, 1.5, True])
def test_a_dead_letter_that_cannot_be_sent_keeps_no_other_from_being_sent(rabbit, priority):
    rabbit.declare_queue(queues.SYNCS, ensure=True)
    for message in (sync_user.message_with_options(args=(1,), broker_priority=priority), sync_user.message(2)):
        rabbit.channel.basic_publish("", xq_name(queues.SYNCS), message.encode())
    assert replay() == (1, 1)
    again, _ = _take(rabbit, queues.SYNCS)
    assert again is not None and again.args == (2,)
    assert [letter.arguments for letter in dead_letters()] == [(1,)]


def test_a_dead_letter_of_no_time_is_listed_like_any_other(rabbit):
    rabbit.declare_queue(queues.SYNCS, ensure=True)
    letter = sync_user.message(1).asdict() | {"message_timestamp": 10**18, "queue_name": queues.SYNCS}
    rabbit.channel.basic_publish("", xq_name(queues.SYNCS), dramatiq.Message(**letter).encode())
    [found] = dead_letters()
    assert (found.actor, found.arguments, found.sent_at) == ("sync_user", (1,), None)


def test_a_poisoned_message_ends_in_the_dead_letters_and_hurts_nobody_else(rabbit, simulated, work):
    poison = sync_user.message_with_options(args=("not", "its", "arguments"))
    rabbit.enqueue(poison)
    broken = b"no json at all"
    for body in (broken, b'{"actor_name": 5}'):
        rabbit.channel.basic_publish("", queues.SYNCS, body, pika.BasicProperties(priority=9))
    pilot = simulated.pilot(2)
    asked = ask(pilot)
    work()
    _until(lambda: Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED)
    dead: list[bytes] = []

    def all_are_dead() -> bool:
        method, _, body = rabbit.channel.basic_get(xq_name(queues.SYNCS), auto_ack=True)
        if method is not None:
            dead.append(body)
        return len(dead) == 3

    _until(all_are_dead)
    assert {broken, poison.encode()} < set(dead)


def test_the_counts_of_a_process_on_rabbitmq(rabbit, simulated):
    for killmail_id in (1, 2):
        sending.send(fetch_killmail, killmail_id, priority=3)
    sending.send(sync_user, 7, delay_seconds=30)
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=settings.ROOT,
        env={**os.environ, "RABBITMQ_URL": rabbitmq.address(), "PYTHONPATH": str(settings.ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {
        queues.SYNCS: [0, 1, 0],
        queues.KILLMAILS: [2, 0, 0],
        queues.NAMES: [0, 0, 0],
        queues.MAINTENANCE: [0, 0, 0],
    }


def test_what_keeps_messages_and_workers_safe_is_switched_on(rabbit):
    """Each is a number or a switch whose absence shows only on a bad day (see `actors/broker.py`)."""
    assert rabbit.confirm_delivery
    assert rabbit.max_priority == 10, "part of the queues' identity"
    assert rabbit.parameters.blocked_connection_timeout == 5
    assert any(isinstance(each, EndsWithMaster) for each in rabbit.middleware)
    longest = max(fetch_killmail.options["time_limit"], TIME_LIMIT_MS) / 1000
    assert longest < FETCH_LEASE.total_seconds(), "a worker is stopped before its killmail is given to another"
    assert FAILED_SYNC_BACKOFF[0] >= timedelta(minutes=15)


def test_a_broker_that_takes_messages_is_ready(rabbit):
    check_broker()
    check_broker()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        rabbit.channel.queue_declare(PROBE, passive=True)
    del rabbit.connection


@pytest.mark.parametrize("name", [queues.SYNCS, dq_name(queues.NAMES), xq_name(queues.KILLMAILS)])
def test_a_queue_of_other_arguments_is_named_with_what_to_do(rabbit, name):
    """Its workers cannot consume it, and what is sent to it waits for ever."""
    rabbit.channel.queue_declare(name, durable=True)
    with pytest.raises(QueueRefused, match=rf"{name} has other arguments.*delete_queue {name}.*nothing is lost"):
        check_broker()
    # When that is done
    rabbit.channel.queue_delete(name)
    # Then all is well
    check_broker()


def test_a_dead_letter_that_is_sent_again_is_as_new(rabbit, simulated, work):
    """With the time at which it was first sent, it would be too old, and skipped."""
    pilot = simulated.pilot(2)
    asked = ask(pilot)
    message, _ = _take(rabbit, queues.SYNCS)
    assert message is not None
    long_ago = message.message_timestamp - 3 * 60 * 60_000
    old = message.copy(message_timestamp=long_ago, options={SENT_AT: long_ago})
    rabbit.channel.basic_publish("", xq_name(queues.SYNCS), old.encode())
    _until(lambda: len(dead_letters()) == 1)
    assert replay() == (1, 0)
    work()
    _until(lambda: Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED)
