"""The hub: events of this process's one subscription, read from the database once, told to the sockets they concern.

It checks for every event whose lists the killmail stood in, and that those viewers are still signed in. It waits for no
socket: what a client does not take at once is left to that client's own thread. Where the database fails, everyone
reads again later; an event that cannot be handled is dropped, and hurts only itself.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

import events
from api import killmails, syncs
from api.subscriptions import NewKillmails, Subscription, SyncProgress, Unknown
from database import UNAVAILABLE_ERRORS, db
from events import (
    KillmailStored,
    NamesResolved,
    Notice,
    Resumed,
    SessionsEnded,
    SyncChanged,
    SyncFinished,
    WaitsChanged,
)
from models import User

log = logging.getLogger(__name__)

#: Where an app keeps its hub.
EXTENSION = "killmail-sync.hub"

#: Sockets of one process, and of one user (or address, signed out): a browser has a few tabs.
MAX_SOCKETS = 1_000
MAX_SOCKETS_EACH = 20
#: Sockets of one process without a session: no page of ours opens one, and many addresses must not crowd out pilots.
MAX_STRANGERS = 50
#: Events handled together, and events held back before the database is read again instead.
BATCH = 500
MAX_WAITING = 10_000
#: Seconds between two looks at a sync that moves, and between looks at everybody's session.
PROGRESS_SECONDS = 0.34
SESSION_SECONDS = 5.0
#: Seconds the sockets get to say goodbye when the process stops.
CLOSE_SECONDS = 2.0

#: graphql-transport-ws "Forbidden": the session is over.
SIGNED_OUT = 4403
GOING_AWAY = 1001


class Socket(Protocol):
    """What the hub knows of a connection."""

    owner: str
    user_id: int | None
    session_epoch: int | None

    def close(self, code: int, reason: str) -> None:
        """Ask the connection to end; returns at once."""


class Hub:
    """One a process. Its thread starts with the first socket."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[Socket] = set()
        self._subscriptions: dict[int, set[Subscription]] = {}  # by the id of who follows
        self._notices: queue.Queue[Notice] = queue.Queue(MAX_WAITING)
        self._events: events.Subscription | None = None
        self._overrun = False
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._moving: set[int] = set()  # users whose sync has moved since it was last told
        self._progress_at = 0.0
        self._sessions_at = 0.0

    def enter(self, socket: Socket) -> bool:
        """False when there are too many already."""
        with self._lock:
            if not self._has_room(socket):
                return False
            self._sockets.add(socket)
            self._start()
            return True

    def _has_room(self, socket: Socket) -> bool:
        strangers = sum(other.user_id is None for other in self._sockets)
        if socket.user_id is None and strangers >= MAX_STRANGERS:
            return False
        each = sum(other.owner == socket.owner for other in self._sockets)
        return len(self._sockets) < MAX_SOCKETS and each < MAX_SOCKETS_EACH

    def _start(self) -> None:
        """Make sure that the thread runs. One that died, whatever of, is followed by another, which makes up for it."""
        if self._stopping or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
        self._thread.start()
        if self._events is None:
            self._events = events.subscribe(self._notice)
        else:
            self._notice(Resumed())

    def leave(self, socket: Socket) -> None:
        with self._lock:
            self._sockets.discard(socket)

    def follow(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.setdefault(subscription.viewer_id, set()).add(subscription)

    def unfollow(self, subscription: Subscription) -> None:
        with self._lock:
            of_viewer = self._subscriptions.get(subscription.viewer_id, set())
            of_viewer.discard(subscription)
            if not of_viewer:
                self._subscriptions.pop(subscription.viewer_id, None)

    def close_all(self) -> None:
        """The process stops: tell every socket, and wait a moment for them to go."""
        for socket in self._all_sockets():
            socket.close(GOING_AWAY, "the server stops")
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._all_sockets() and time.monotonic() < deadline:
            time.sleep(0.02)
        self._stop()

    def _stop(self) -> None:
        """End the hub's thread: from here on it touches the database no more."""
        self._stopping = True
        if self._events is not None:
            self._events.close()
        if self._thread is not None:
            self._notice(Resumed())  # wakes it
            self._thread.join(CLOSE_SECONDS)

    def _notice(self, notice: Notice) -> None:
        """Called by the thread that receives events."""
        try:
            self._notices.put_nowait(notice)
        except queue.Full:
            self._overrun = True

    def _run(self) -> None:
        while True:
            notices = self._gather()
            if self._stopping:
                return
            try:
                with db.connection_context():
                    self._handle_all(notices)
            except UNAVAILABLE_ERRORS as error:
                log.error("the database cannot be used; sockets read again: %s", error)
                self._resume()
                time.sleep(1.0)

    def _gather(self) -> list[Notice]:
        """What has come, or nothing when something else is due."""
        due = self._progress_at if self._moving else self._sessions_at
        notices: list[Notice] = []
        with suppress(queue.Empty):
            notices.append(self._notices.get(timeout=max(0.01, due - time.monotonic())))
            while len(notices) < BATCH:
                notices.append(self._notices.get_nowait())
        return notices

    def _handle_all(self, notices: list[Notice]) -> None:
        """Together, which is cheap; where that fails, one by one without those that cannot be handled.

        What was told before it failed is told again: subscriptions send nothing twice. Raises UNAVAILABLE_ERRORS.
        """
        try:
            self._handle(notices)
        except UNAVAILABLE_ERRORS:
            raise
        except Exception:
            if len(notices) > 1:
                for notice in notices:
                    self._handle_all([notice])
            else:
                log.exception("cannot be handled, and is dropped: %s", notices[0] if notices else "a look at syncs")

    def _handle(self, notices: list[Notice]) -> None:
        stored = [notice.killmail_id for notice in notices if isinstance(notice, KillmailStored)]
        changed = {notice.sync_id for notice in notices if isinstance(notice, SyncChanged | SyncFinished)}
        if self._overrun or any(isinstance(notice, Resumed) for notice in notices):
            self._overrun = False
            self._resume()
        seen_by = self._seen_by(stored)
        # The newest last: it is the one that whoever follows any is to see in the end.
        views = sorted(syncs.load(changed).values(), key=lambda view: view.id) if changed else []
        ended = {notice.user_id for notice in notices if isinstance(notice, SessionsEnded)}
        self._check_sessions({user_id for user_id, _ in seen_by} | {view.user_id for view in views} | ended)
        self._tell_killmails(seen_by)
        if any(isinstance(notice, NamesResolved) for notice in notices):
            self._tell_resolved()
        self._tell_syncs(views, listed=True)
        if any(isinstance(notice, WaitsChanged) for notice in notices):
            self._moving.update(each.viewer_id for each in self._all_subscriptions() if isinstance(each, SyncProgress))
        self._tell_progress()

    def _seen_by(self, stored: list[int]) -> list[tuple[int, int]]:
        """(user id, killmail id) for those who follow anything here."""
        if not stored or not self._all_subscriptions():
            return []
        return [(user_id, each) for user_id, each in killmails.viewers_of(stored) if self._of(user_id)]

    def _tell_killmails(self, seen_by: list[tuple[int, int]]) -> None:
        self._moving.update(user_id for user_id, _ in seen_by)
        told = [
            (follower, killmail_id)
            for user_id, killmail_id in seen_by
            for follower in self._of(user_id)
            if isinstance(follower, NewKillmails)
        ]
        if not told:
            return
        named_fields = frozenset[str]().union(*(follower.named_fields for follower, _ in told))
        loaded = killmails.load(sorted({killmail_id for _, killmail_id in told}), named_fields)
        views = {view.id: view for view in loaded}
        for follower, killmail_id in told:
            if killmail_id in views:
                follower.tell(views[killmail_id])

    def _tell_resolved(self) -> None:
        """Each looks for its own: the event does not say which."""
        for subscription in self._all_subscriptions():
            if isinstance(subscription, Unknown):
                subscription.resume()

    def _tell_syncs(self, views: Iterable[syncs.SyncView], *, listed: bool) -> None:
        """`listed`: pages may have been read, and with them killmails that others had stored before."""
        for view in views:
            for subscription in self._of(view.user_id):
                if isinstance(subscription, SyncProgress):
                    subscription.tell(view)
                elif listed and isinstance(subscription, NewKillmails):
                    subscription.resume()

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if not self._moving or now < self._progress_at:
            return
        self._progress_at = now + PROGRESS_SECONDS
        moving, self._moving = self._moving, set()
        if any(isinstance(each, SyncProgress) for each in self._all_subscriptions()):
            self._tell_syncs(syncs.active_of(moving).values(), listed=False)

    def _check_sessions(self, concerned: set[int]) -> None:
        """Close the sockets of sessions that are over: of those about to be told something, and of all now and then."""
        now = time.monotonic()
        everybody = now >= self._sessions_at
        if not everybody and not concerned:
            return
        if everybody:
            self._sessions_at = now + SESSION_SECONDS
        signed_in = [
            socket
            for socket in self._all_sockets()
            if socket.user_id is not None and (everybody or socket.user_id in concerned)
        ]
        if not signed_in:
            return
        users = {socket.user_id for socket in signed_in}
        query: Any = User.select(User.id, User.session_epoch).where(User.id.in_(users))
        epochs = dict(query.tuples())
        for socket in signed_in:
            if epochs.get(socket.user_id) != socket.session_epoch:
                socket.close(SIGNED_OUT, "signed out")

    def _resume(self) -> None:
        for subscription in self._all_subscriptions():
            subscription.resume()

    def _all_subscriptions(self) -> list[Subscription]:
        with self._lock:
            return [each for of_viewer in self._subscriptions.values() for each in of_viewer]

    def _of(self, user_id: int) -> list[Subscription]:
        with self._lock:
            return list(self._subscriptions.get(user_id, ()))

    def _all_sockets(self) -> list[Socket]:
        with self._lock:
            return list(self._sockets)
