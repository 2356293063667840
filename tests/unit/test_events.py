"""Events within one process and over RabbitMQ: nobody waits, nobody raises, and what may be missed is said."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pika
import pytest

import events
import events_rabbitmq
from events import (
    KillmailStored,
    MalformedEventError,
    NamesResolved,
    Notice,
    Resumed,
    SessionsEnded,
    SyncChanged,
    SyncFinished,
)

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL") or "amqp://guest:guest@127.0.0.1:5672/%2F"
#: Seconds for what has to happen.
PATIENCE = 10.0

ALL: list[events.Event] = [
    KillmailStored(2**63 - 1),
    SyncChanged(1),
    SyncFinished(2),
    NamesResolved(),
    SessionsEnded(3),
]
WIRED: list[Notice] = [*ALL, Resumed()]


class Inbox:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Notice] = queue.Queue()

    def __call__(self, notice: Notice) -> None:
        self._queue.put(notice)

    def next(self) -> Notice:
        return self._queue.get(timeout=PATIENCE)

    def next_event(self) -> Notice:
        """The next that is not `Resumed`: the publisher and the subscriber each say so after a lost connection."""
        while (notice := self.next()) == Resumed():
            pass
        return notice

    def empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture(autouse=True)
def local_events() -> Iterator[None]:
    events.configure(None)
    yield
    events.configure(None)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


class TestWireForm:
    @pytest.mark.parametrize("event", WIRED)
    def test_round_trip(self, event: Notice) -> None:
        assert events.decode(events.encode(event)) == event

    def test_it_is_what_the_page_says(self) -> None:
        assert json.loads(events.encode(KillmailStored(123))) == {"type": "KillmailStored", "id": 123}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff",
            b"[]",
            b"5",
            b"null",
            b"{}",
            b'{"type": "Restarted"}',
            b'{"type": ["KillmailStored"], "id": 1}',
            b'{"type": "KillmailStored"}',
            b'{"type": "KillmailStored", "id": "1"}',
            b'{"type": "KillmailStored", "id": true}',
            b'{"type": "KillmailStored", "id": 1.0}',
            b'{"type": "KillmailStored", "id": 0}',
            b'{"type": "KillmailStored", "id": -1}',
            b'{"type": "KillmailStored", "id": 9223372036854775808}',
            b'{"type": "SyncChanged", "id": null}',
            b"[" * 100_000,
        ],
    )
    def test_anything_else_is_malformed(self, body: bytes) -> None:
        with pytest.raises(MalformedEventError):
            events.decode(body)


class TestInOneProcess:
    def test_every_subscriber_gets_every_event_in_order(self) -> None:
        first, second = Inbox(), Inbox()
        events.subscribe(first)
        events.subscribe(second)
        for event in ALL:
            events.publish(event)
        for inbox in (first, second):
            assert [inbox.next() for _ in ALL] == ALL

    def test_publishing_without_subscribers_keeps_nothing(self) -> None:
        events.publish(KillmailStored(1))
        inbox = Inbox()
        events.subscribe(inbox)
        events.publish(KillmailStored(2))
        assert inbox.next() == KillmailStored(2)

    def test_a_closed_subscription_gets_nothing_more(self) -> None:
        closed, open_ = Inbox(), Inbox()
        subscription = events.subscribe(closed)
        events.subscribe(open_)
        subscription.close()
        events.publish(KillmailStored(1))
        assert open_.next() == KillmailStored(1)
        assert closed.empty()

    def test_a_raising_subscriber_hurts_nobody_else(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail(notice: Notice) -> None:
            raise ValueError("bug")

        inbox = Inbox()
        events.subscribe(fail)
        events.subscribe(inbox)
        for number in (1, 2):
            events.publish(KillmailStored(number))
        assert [inbox.next(), inbox.next()] == [KillmailStored(1), KillmailStored(2)]
        assert "bug" in caplog.text

    def test_a_stuck_subscriber_costs_events_not_the_publisher(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a subscriber that is stuck on its first event
        monkeypatch.setattr(events, "MAX_WAITING", 5)
        events.configure(None)
        entered, release, inbox = threading.Event(), threading.Event(), Inbox()

        def stuck(notice: Notice) -> None:
            entered.set()
            release.wait(PATIENCE)
            inbox(notice)

        events.subscribe(stuck)
        events.publish(KillmailStored(1))
        assert entered.wait(PATIENCE)
        # When more is published than is held back
        for number in range(2, 100):
            events.publish(KillmailStored(number))
        release.set()
        # Then it gets what was held back, and is told that there was more
        received = [inbox.next() for _ in range(7)]
        assert received == [*(KillmailStored(number) for number in range(1, 7)), Resumed()]
        assert caplog.text.count("some were dropped") == 1

    def test_closing_hands_over_what_waits(self) -> None:
        inbox = Inbox()
        events.subscribe(inbox)
        for number in range(1, 100):
            events.publish(KillmailStored(number))
        events.close()
        assert [inbox.next() for _ in range(1, 100)] == [KillmailStored(number) for number in range(1, 100)]

    def test_a_forked_child_starts_afresh(self) -> None:
        events.subscribe(Inbox())
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - another process
            inbox = Inbox()
            events.subscribe(inbox)
            events.publish(KillmailStored(7))
            os.write(write_end, b"yes" if inbox.next() == KillmailStored(7) else b"no")
            os._exit(0)
        os.close(write_end)
        answer = os.read(read_end, 10)
        os.close(read_end)
        os.waitpid(child, 0)
        assert answer == b"yes"


@pytest.fixture(scope="module")
def rabbitmq() -> str:
    try:
        pika.BlockingConnection(pika.URLParameters(RABBITMQ)).close()
    except (pika.exceptions.AMQPError, OSError):
        line = "RabbitMQ not reachable: set TEST_RABBITMQ_URL, or start one at 127.0.0.1:5672"
        if os.environ.get("CI") == "true":
            pytest.fail(line, pytrace=False)
        pytest.skip(line)
    return RABBITMQ


@pytest.mark.services
class TestOverRabbitmq:
    @pytest.fixture
    def bus(self, rabbitmq: str, monkeypatch: pytest.MonkeyPatch) -> str:
        """An exchange of the test's own, so that nothing else at work on this broker is heard."""
        monkeypatch.setattr(events_rabbitmq, "EXCHANGE", f"killmail-sync.events.test.{os.getpid()}.{id(self)}")
        events.configure(rabbitmq)
        return rabbitmq

    @pytest.fixture(autouse=True)
    def clean(self, bus: str) -> Iterator[None]:
        yield
        events.configure(None)
        self.delete_exchange(bus)

    def delete_exchange(self, url: str) -> None:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        connection.channel().exchange_delete(events_rabbitmq.EXCHANGE)
        connection.close()

    def listening(self) -> Inbox:
        inbox = Inbox()
        events.subscribe(inbox)
        assert inbox.next() == Resumed()  # connected: read what came before
        return inbox

    def test_events_arrive(self, bus: str) -> None:
        inbox = self.listening()
        for event in ALL:
            events.publish(event)
        assert [inbox.next() for _ in ALL] == ALL

    def test_every_process_gets_them(self, bus: str) -> None:
        inbox = self.listening()
        other, subscribers = Inbox(), events.Subscribers()
        subscribers.add(other)
        another_process = events_rabbitmq.RabbitBus(bus)
        another_process.subscribe(subscribers)
        assert other.next() == Resumed()
        events.publish(KillmailStored(1))
        assert inbox.next() == other.next() == KillmailStored(1)
        another_process.close()

    def test_malformed_ones_are_dropped(self, bus: str, caplog: pytest.LogCaptureFixture) -> None:
        inbox = self.listening()
        connection = pika.BlockingConnection(pika.URLParameters(bus))
        connection.channel().basic_publish(events_rabbitmq.EXCHANGE, "", b"poison")
        connection.close()
        events.publish(KillmailStored(1))
        assert inbox.next() == KillmailStored(1)
        assert "dropped an event" in caplog.text

    def test_a_lost_connection_comes_back_and_says_so(self, bus: str) -> None:
        inbox = self.listening()
        events.publish(KillmailStored(1))
        assert inbox.next() == KillmailStored(1)
        # When both connections are cut
        cut(events._process.bus)
        # Then the subscriber is told to read again, and events come as before
        assert inbox.next() == Resumed()
        events.publish(KillmailStored(2))
        assert inbox.next_event() == KillmailStored(2)

    def test_a_publisher_that_lost_its_connection_says_that_events_may_be_missing(self, bus: str) -> None:
        inbox = self.listening()
        events.publish(KillmailStored(1))
        assert inbox.next() == KillmailStored(1)
        # When only its connection is cut: the subscriber's own stays, and notices nothing
        publisher(events._process.bus)._link.connection._impl._transport._sock.shutdown(2)
        # Then the subscriber is told to read again
        assert inbox.next() == Resumed()

    def test_a_publisher_whose_queue_was_full_says_that_events_are_missing(
        self, bus: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(events_rabbitmq, "MAX_WAITING", 5)
        inbox = self.listening()
        events.publish(KillmailStored(1))
        assert inbox.next() == KillmailStored(1)
        # Given a broker that takes nothing for the moment
        link = publisher(events._process.bus)._link
        entered, release, is_open = threading.Event(), threading.Event(), link.open

        def wait_and_open() -> bool:
            entered.set()
            return release.wait(PATIENCE) and is_open()

        monkeypatch.setattr(link, "open", wait_and_open)
        events.publish(KillmailStored(2))
        assert entered.wait(PATIENCE)
        # When more is published than is held back
        for number in range(3, 100):
            events.publish(KillmailStored(number))
        release.set()
        # Then subscribers get what was held back, and are told that there was more
        received = [inbox.next() for _ in range(7)]
        assert [each for each in received if each != Resumed()] == [KillmailStored(number) for number in range(2, 8)]
        assert received.count(Resumed()) == 1

    def test_a_subscriber_whose_queue_overflowed_is_told(
        self, bus: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        # Given a process that takes nothing: its subscriber is stuck on the first event
        monkeypatch.setattr(events_rabbitmq, "MAX_WAITING", 5)
        inbox = self.listening()
        entered, release = threading.Event(), threading.Event()

        def stuck(notice: Notice) -> None:
            entered.set()
            release.wait(PATIENCE)

        events.subscribe(stuck)
        events.publish(KillmailStored(1))
        assert entered.wait(PATIENCE)
        # When more comes than RabbitMQ keeps for it: what fits into the connection on the way does not count
        connection = pika.BlockingConnection(pika.URLParameters(bus))
        channel = connection.channel()
        for _ in range(300):
            channel.basic_publish(events_rabbitmq.EXCHANGE, "", b"x" * 100_000)
        channel.basic_publish(events_rabbitmq.EXCHANGE, "", events.encode(KillmailStored(2)))
        connection.close()
        release.set()
        # Then it gets the newest, and is told to read again
        received = [inbox.next() for _ in range(3)]
        assert KillmailStored(2) in received
        assert Resumed() in received
        assert "were dropped" in caplog.text

    def test_many_threads_may_publish(self, bus: str) -> None:
        inbox = self.listening()
        threads = [threading.Thread(target=events.publish, args=(KillmailStored(n),)) for n in range(1, 51)]
        for thread in threads:
            thread.start()
        received = {inbox.next() for _ in threads}
        assert received == {KillmailStored(n) for n in range(1, 51)}

    def test_closing_hands_over_what_waits(self, bus: str) -> None:
        inbox, subscribers = Inbox(), events.Subscribers()
        subscribers.add(inbox)
        listener = events_rabbitmq.RabbitBus(bus)
        listener.subscribe(subscribers)
        assert inbox.next() == Resumed()
        for number in range(1, 201):
            events.publish(KillmailStored(number))
        events.close()
        assert [inbox.next() for _ in range(200)] == [KillmailStored(number) for number in range(1, 201)]
        listener.close()


def publisher(bus: Any) -> Any:
    return bus._publisher


def cut(bus: Any) -> None:
    """The network is gone: reading and writing fail on both connections."""
    for thread in (bus._publisher, bus._consumer):
        thread._link.connection._impl._transport._sock.shutdown(2)


def test_a_broker_that_is_away_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    # Given an address where nothing listens
    events.configure("amqp://guest:very-secret@127.0.0.1:1/%2F")
    inbox = Inbox()
    events.subscribe(inbox)
    # When more is published than can wait
    with caplog.at_level(logging.WARNING):
        for number in range(1, events.MAX_WAITING + 100):
            events.publish(KillmailStored(number))
        until(lambda: "publishing events" in caplog.text and "receiving events" in caplog.text)
        events.close()
    # Then that is all there is of it
    assert inbox.empty()
    assert caplog.text.count("publishing events") == 1
    assert "very-secret" not in caplog.text
