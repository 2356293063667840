"""What a subscription delivers, and when. Sending it is left to the socket (`api/transport_ws.py`).

Two threads meet here. The hub's tells a subscription what happened and must never wait; the socket's own takes what is
to be sent, at the pace its client reads. What the hub's can send without waiting it sends itself, as long as the
socket's has nothing in hand. Where a subscription may have missed something it reads the database again,
so that a lost event costs a moment and no killmail.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from api import killmails, security, syncs
from api.errors import BadUserInput
from api.killmail_views import UNBOUNDED, Entity, KillmailView, names_of
from api.security import SolarSystemView
from api.system import System
from api.worker_status import queue_status
from database import db, utcnow
from models import User

#: Killmails a socket may be behind before it is closed as a slow consumer.
MAX_WAITING = 256
#: Killmails read and sent at a time when old ones are replayed.
REPLAY_CHUNK = 200
#: Likewise where their attackers or items are asked for: one may have thousands.
WHOLE_CHUNK = 10
#: A replay starts so much earlier: a transaction that began before another may commit after it.
OVERLAP = timedelta(seconds=30)
#: How many sent killmails are remembered, at least, before those that cannot come again are forgotten.
REMEMBERED = 64
#: Seconds after which a sync that is followed is read again without an event: waiting ends by itself, and what failed
#: is tried again. For one that ended well only a lost event is made up for, and a thousand open dashboards would ask
#: two hundred times a second.
SYNC_REREAD_SECONDS, ENDED_REREAD_SECONDS = 5.0, 60.0
#: Ids one subscription may ask about, and seconds after which it looks again without an event.
MAX_UNKNOWN = 1_000
UNKNOWN_REREAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reader:
    """Who subscribes. `wake` tells the socket that there is something to take, `overflow` that it is too slow.

    `send_at_once` sends what can be sent without waiting; False: it was not sent.
    """

    viewer: User
    wake: Callable[[], None]
    overflow: Callable[[], None]
    send_at_once: Callable[[Any], bool] = lambda payload: False


class Subscription(ABC):
    """One running subscription of one viewer."""

    def __init__(self, reader: Reader) -> None:
        self.viewer = reader.viewer
        self.viewer_id: int = reader.viewer.id
        self._wake = reader.wake
        self._overflow = reader.overflow
        self._send_at_once = reader.send_at_once
        self.ended = False

    @abstractmethod
    def take(self) -> Sequence[Any]:
        """What to send now. Called by the socket's thread, which has no database connection open.

        May raise an ApiError, which ends the subscription.
        """

    def seconds_until_due(self) -> float | None:
        """When to call `take` again even if nothing wakes the socket; None: only when something does."""
        return None

    def resume(self) -> None:  # noqa: B027 - most have nothing to make up for
        """Something may have been missed."""

    def stop(self) -> None:  # noqa: B027 - most are sent by the socket's own thread alone
        """The client has had enough: from now on nobody sends any more of it."""


class NewKillmails(Subscription):
    """The viewer's killmails as they are stored, each once. With `after`, first what came since that one; without,
    nothing that was in the viewer's lists before the subscription began."""

    def __init__(self, reader: Reader, after: int | None, named_fields: frozenset[str]) -> None:
        """`after`: a killmail of the viewer's, or 0 for all. Raises BadUserInput, the same for others' and for none.

        Reads the database.
        """
        super().__init__(reader)
        self.named_fields = named_fields
        self._lock = threading.Lock()
        self._live: list[KillmailView] = []
        self._replay: list[int] = []
        self._sent: dict[int, datetime] = {}
        self._most_sent = REMEMBERED
        self._position = utcnow()
        # True from the start: the hub does not know this subscription yet, and what it tells until then is missed.
        self._missed = True
        self._catching_up = False
        self._in_hand = True  # the socket's thread may have something that it has not sent yet
        self._stopped = False
        if after is None:
            # A replay starts OVERLAP early and would find these. They are remembered by id, and not left out by their
            # time: what another transaction commits late carries a time from before.
            self._sent.update(killmails.reached_since(self.viewer, self._position - OVERLAP))
        else:
            self._position = self._reached_at(after)
            self._sent[after] = self._position

    def tell(self, killmail: KillmailView) -> None:
        """Called by the hub for a killmail that the viewer may see."""
        with self._lock:
            if self._stopped:
                return
            if self._catching_up or self._missed:
                self._missed = True  # the replay will come upon it
            elif not self._in_hand and self._is_sent(killmail):
                return
            elif len(self._live) >= MAX_WAITING:
                self._overflow()
            else:
                self._live.append(killmail)
                self._in_hand = True
        self._wake()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True

    def resume(self) -> None:
        with self._lock:
            self._missed = True
        self._wake()

    def take(self) -> list[KillmailView]:
        if not self._replay:
            self._begin_replay()
        if self._replay:
            return self._next_chunk()
        with self._lock:
            self._catching_up = False
            fresh, self._live = self._live, []
            self._in_hand = bool(fresh)
            return [killmail for killmail in fresh if self._is_new(killmail.id, killmail.created_at)]

    def seconds_until_due(self) -> float | None:
        return 0.0 if self._replay or self._missed or self._in_hand else None

    def _is_sent(self, killmail: KillmailView) -> bool:
        """Whether this one needs no more sending: it is out before, or now."""
        if killmail.id in self._sent:
            return True
        return self._send_at_once(killmail) and self._is_new(killmail.id, killmail.created_at)

    def _begin_replay(self) -> None:
        with self._lock:
            if not self._missed:
                return
            self._missed = False
            self._catching_up = True
            self._in_hand = True
        with db.connection_context():
            reached = killmails.reached_since(self.viewer, self._position - OVERLAP)
        for killmail_id, reached_at in reached:
            if self._is_new(killmail_id, reached_at):
                self._replay.append(killmail_id)

    def _next_chunk(self) -> list[KillmailView]:
        most = WHOLE_CHUNK if self.named_fields & UNBOUNDED else REPLAY_CHUNK
        chunk, self._replay = self._replay[:most], self._replay[most:]
        with db.connection_context():
            return killmails.load(chunk, self.named_fields)

    def _is_new(self, killmail_id: int, reached_at: datetime) -> bool:
        if killmail_id in self._sent:
            return False
        self._sent[killmail_id] = reached_at
        self._position = max(self._position, reached_at)
        if len(self._sent) > self._most_sent:
            oldest = self._position - 2 * OVERLAP
            self._sent = {each: at for each, at in self._sent.items() if at >= oldest}
            self._most_sent = max(REMEMBERED, 2 * len(self._sent))
        return True

    def _reached_at(self, after: int) -> datetime:
        if after == 0:
            return datetime(2000, 1, 1)
        reached_at = killmails.reached_at(self.viewer, after)
        if reached_at is None:
            raise BadUserInput("after is not a killmail of yours.")
        return reached_at


class SyncProgress(Subscription):
    """A sync of the viewer's as it goes on; without an id, whichever is under way or comes next."""

    def __init__(self, reader: Reader, sync_id: int | None) -> None:
        """Raises BadUserInput, the same for others' syncs and for none."""
        super().__init__(reader)
        self._sync_id = sync_id
        self._told: deque[syncs.SyncView] = deque(maxlen=1)  # by another thread
        self._shown: syncs.SyncView | None = None
        self._read_at = -math.inf
        if sync_id is not None and syncs.one_of(self.viewer, sync_id) is None:
            raise BadUserInput("syncId is not a sync of yours.")

    def tell(self, sync: syncs.SyncView) -> None:
        """Called by the hub for a sync of the viewer's. Only the newest state counts."""
        if self._sync_id in (None, sync.id):
            self._told.append(sync)
            self._wake()

    def resume(self) -> None:
        self._read_at = -math.inf
        self._wake()

    def take(self) -> list[syncs.SyncView]:
        latest = self._told.pop() if self._told else None
        if self.seconds_until_due() <= 0.0:
            self._read_at = time.monotonic()
            latest = self._read()
        if latest is None or latest == self._shown:
            return []
        self._shown = latest
        self.ended = self._sync_id is not None and latest.ended
        return [latest]

    def seconds_until_due(self) -> float:
        moves = self._shown is not None and (not self._shown.ended or bool(self._shown.failures))
        due_at = self._read_at + (SYNC_REREAD_SECONDS if moves else ENDED_REREAD_SECONDS)
        return max(0.0, due_at - time.monotonic())

    def _read(self) -> syncs.SyncView | None:
        with db.connection_context():
            if self._sync_id is not None:
                return syncs.one_of(self.viewer, self._sync_id)
            return syncs.latest_of(self.viewer.id)


class Unknown(Subscription):
    """What is not known yet of some ids, as it becomes known; ends when all is."""

    def __init__(self, reader: Reader, ids: Collection[int]) -> None:
        """Raises BadUserInput."""
        super().__init__(reader)
        if not 1 <= len(ids) <= MAX_UNKNOWN:
            raise BadUserInput(f"ids must be 1 to {MAX_UNKNOWN}.")
        self._wanted = set(ids)
        self._reread_at = 0.0

    def resume(self) -> None:
        """Called by the hub when anything was resolved, whatever it was."""
        self._reread_at = 0.0
        self._wake()

    @abstractmethod
    def _read(self, ids: Collection[int]) -> Sequence[Entity | SolarSystemView]:
        """Of these, what is known by now."""

    def take(self) -> list[Sequence[Entity | SolarSystemView]]:
        if time.monotonic() < self._reread_at:
            return []
        self._reread_at = time.monotonic() + UNKNOWN_REREAD_SECONDS
        with db.connection_context():
            known = self._read(self._wanted)
        self._wanted -= {each.id for each in known}
        self.ended = not self._wanted
        return [known] if known else []

    def seconds_until_due(self) -> float | None:
        return max(0.0, self._reread_at - time.monotonic())


class Names(Unknown):
    """What ids are called."""

    def _read(self, ids: Collection[int]) -> Sequence[Entity]:
        return [Entity(each, name) for each, name in names_of(ids).items()]


class SecurityStatuses(Unknown):
    """How safe solar systems are."""

    def _read(self, ids: Collection[int]) -> Sequence[SolarSystemView]:
        return security.known_of(ids)


class WorkerStatusUpdates(Subscription):
    """The queues, every so many seconds."""

    def __init__(self, reader: Reader, system: System, interval_seconds: int | None) -> None:
        """Raises BadUserInput."""
        super().__init__(reader)
        if interval_seconds is None or not 1 <= interval_seconds <= 60:
            raise BadUserInput("intervalSeconds must be 1 to 60.")
        self._system = system
        self._interval = interval_seconds
        self._due_at = 0.0

    def take(self) -> list[Any]:
        if time.monotonic() < self._due_at:
            return []
        self._due_at = time.monotonic() + self._interval
        with db.connection_context():
            return [queue_status(self._system)]

    def seconds_until_due(self) -> float | None:
        return max(0.0, self._due_at - time.monotonic())
