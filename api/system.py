"""What the web side needs of the rest of the system, handed in once by `app.py`.

Resolvers and pages get it from `current()`; nothing here imports the actors before a web process really starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from flask import current_app

from esi.sso import SsoClient
from models import Trigger
from settings import Settings
from tokens import TokenCipher

EXTENSION = "killmail-sync"


class SyncRequest(Protocol):
    """What came of asking for a sync. `message` is one sentence for the pilot."""

    @property
    def sync_id(self) -> int | None: ...
    @property
    def queued(self) -> bool: ...
    @property
    def message(self) -> str: ...


class QueueCount(Protocol):
    """How deep one queue is."""

    @property
    def queue_name(self) -> str: ...
    @property
    def message_count(self) -> int: ...
    @property
    def consumer_count(self) -> int: ...
    @property
    def delayed_count(self) -> int: ...
    @property
    def dead_count(self) -> int: ...


class RequestSync(Protocol):
    """Opens a sync in the database and sends its message; never raises for a broker that is down."""

    def __call__(self, user_id: int, trigger: Trigger, *, full: bool = False, force: bool = False) -> SyncRequest: ...


class Road(Protocol):
    """The buckets of one of ESI's groups, or a closed gate, whose tokens are None: see `esi.limiter.GroupState`."""

    @property
    def name(self) -> str: ...
    @property
    def allowance(self) -> int | None: ...
    @property
    def remaining(self) -> int | None: ...
    @property
    def closed_until(self) -> float | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def buckets(self) -> int: ...
    @property
    def closed(self) -> int: ...
    @property
    def window_seconds(self) -> int: ...
    @property
    def more_at(self) -> float | None: ...
    @property
    def full_at(self) -> float | None: ...
    @property
    def sampled(self) -> int: ...
    @property
    def more_buckets(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class System:
    """`queue_counts` and `check_broker` raise when the broker cannot be reached."""

    settings: Settings
    sso: SsoClient
    cipher: TokenCipher
    request_sync: RequestSync
    queue_counts: Callable[[], Sequence[QueueCount]]
    check_broker: Callable[[], None]
    #: What ESI still allows, and which roads to it are closed.
    roads: Callable[[], Sequence[Road]] = tuple


def of_this_process(settings: Settings) -> System:
    """The real one. Importing the actors makes this process's broker."""
    import runtime
    from actors.counts import check_broker, queue_counts
    from actors.requests import request_sync
    from actors.sending import through_one_thread

    if not settings.embedded:
        through_one_thread()
    from api.worker_status import Remembered

    return System(
        settings,
        runtime.sso(),
        runtime.cipher(),
        request_sync,
        Remembered(queue_counts),
        check_broker,
        runtime.limiter().snapshot,
    )


def current() -> System:
    """The system of the running app."""
    return cast(System, current_app.extensions[EXTENSION])
