"""Frames that the hub's thread sends itself: without waiting, whole in the end, each once and in order."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
from flask import Flask

from api import killmails, subscriptions
from api.killmail_views import KillmailView
from api.wire import _WholeWrites
from models import User
from tests.acceptance.processes import wait_until
from tests.web_app import make_killmail, make_user

#: More than two sockets hold between them.
LARGE = bytes(range(256)) * 16_384


@pytest.fixture
def viewer(app: Flask) -> User:
    return make_user()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


class TestWrites:
    def test_what_did_not_fit_goes_out_before_anything_else(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        writes = _WholeWrites(ours)
        # Given a frame of which only the beginning went out
        assert writes.send_at_once(LARGE)
        assert writes.unfinished
        # When there is room for more, then it is not sent into the middle of it
        begun = b""
        while is_full(ours):
            begun += read(theirs, 4096)
        assert not writes.send_at_once(b"too early")
        # and what waits comes after it
        sending = threading.Thread(target=writes.send, args=(b"after it",))
        sending.start()
        assert begun + read(theirs, len(LARGE) + 8 - len(begun)) == LARGE + b"after it"
        sending.join()
        assert not writes.unfinished

    def test_nobody_waits_for_a_client_that_does_not_read(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        writes = _WholeWrites(ours)
        # Given a thread that waits for the client
        sending = threading.Thread(target=writes.send, args=(LARGE,))
        sending.start()
        wait_until(lambda: is_full(ours), "the client has stopped reading", 5)
        # When another one is to send, then it is told at once that it cannot
        assert not writes.send_at_once(b"x")
        assert read(theirs, len(LARGE)) == LARGE
        sending.join()

    def test_a_connection_that_has_ended_is_left_to_its_own_thread(
        self, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        ours, theirs = pair
        theirs.close()
        assert not _WholeWrites(ours).send_at_once(b"x")


class TestNewKillmails:
    def test_what_is_sent_at_once_is_not_taken_and_not_sent_again(self, viewer: User) -> None:
        subscription, sent = idle_subscription(viewer, takes=True)
        told = view(1, viewer)
        subscription.tell(told)
        subscription.tell(told)
        assert sent == [1]
        assert subscription.take() == []
        assert subscription.seconds_until_due() is None

    def test_what_was_sent_at_once_is_not_replayed(self, viewer: User) -> None:
        subscription, sent = idle_subscription(viewer, takes=True)
        subscription.tell(view(1, viewer))
        make_killmail(2, viewer)
        subscription.resume()
        assert [killmail.id for killmail in subscription.take()] == [2]
        assert sent == [1]

    def test_nothing_overtakes_what_the_sockets_own_thread_has_in_hand(self, viewer: User) -> None:
        # Given a killmail that could not be sent at once, and that the socket's thread has taken
        subscription, sent = idle_subscription(viewer, takes=False)
        subscription.tell(view(1, viewer))
        assert [killmail.id for killmail in subscription.take()] == [1]
        # When the next one could be sent at once, then it waits for its turn
        sent.takes = True
        subscription.tell(view(2, viewer))
        assert sent == []
        assert [killmail.id for killmail in subscription.take()] == [2]
        # and once the socket's thread is through, the one after that is sent at once
        assert subscription.take() == []
        subscription.tell(view(3, viewer))
        assert sent == [3]

    def test_nothing_is_sent_once_the_client_has_had_enough(self, viewer: User) -> None:
        subscription, sent = idle_subscription(viewer, takes=True)
        subscription.stop()
        subscription.tell(view(1, viewer))
        assert sent == []

    def test_what_cannot_come_again_is_forgotten(self, viewer: User) -> None:
        subscription, _ = idle_subscription(viewer, takes=True)
        for number in range(1, 1_001):
            subscription._is_new(number, datetime(2026, 1, 1, 0, number // 60, number % 60))
        assert len(subscription._sent) < 300
        assert 1_000 in subscription._sent


class Sent(list[int]):
    """The ids that went out at once, as long as the client `takes` them."""

    takes = True

    def send(self, killmail: KillmailView) -> bool:
        if self.takes:
            self.append(killmail.id)
        return self.takes


def idle_subscription(viewer: User, *, takes: bool) -> tuple[subscriptions.NewKillmails, Sent]:
    """A subscription whose socket's thread has sent all there was."""
    sent = Sent()
    sent.takes = takes
    reader = subscriptions.Reader(viewer, lambda: None, lambda: None, sent.send)
    subscription = subscriptions.NewKillmails(reader, None, frozenset())
    assert subscription.take() == []
    return subscription, sent


def view(killmail_id: int, viewer: User) -> KillmailView:
    make_killmail(killmail_id, viewer)
    return killmails.load([killmail_id], frozenset())[0]


def is_full(writer: socket.socket) -> bool:
    """Whether nothing more can be written now."""
    return select.select([], [writer], [], 0)[1] == []


def read(reader: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        found += reader.recv(length - len(found))
    return bytes(found)
