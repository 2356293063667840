"""What ESI shows of a pilot's true list: ninety days, pages, and a server-side cache that ages.

A list does not change until its cache expires (esi/README.md §3, ttl-based), whatever happened meanwhile;
all its pages come from one moment and carry one Last-Modified.
"""

import hashlib
import math
import random
from dataclasses import dataclass, field
from typing import Final

from simulator.config import Settings
from simulator.wire import Payload
from simulator.world import Pilot, World

#: Seconds a killmail stays in its list (ESI docs: "going back 90 days").
LISTED_SECONDS: Final = 90 * 86_400


@dataclass(frozen=True)
class Page:
    """One page as it is served: its body and the ETag of its address."""

    payload: Payload
    etag: str


@dataclass
class Snapshot:
    """A list as it was at one moment. Times are epoch seconds."""

    references: list[tuple[int, str]]
    last_modified: int
    expires_at: float
    _pages: dict[tuple[int, int], Page] = field(default_factory=dict)

    def page_count(self, size: int) -> int:
        """The X-Pages of this list; an empty one has one page."""
        return max(1, math.ceil(len(self.references) / size))

    def page(self, address: str, number: int, size: int) -> Page:
        """Page `number` from 1, which must exist; `address` makes its ETag its own."""
        key = (number, size)
        if key not in self._pages:
            part = self.references[(number - 1) * size : number * size]
            payload = Payload.of_json([{"killmail_id": one, "killmail_hash": text} for one, text in part])
            digest = hashlib.sha1(address.encode() + payload.raw, usedforsecurity=False).hexdigest()
            self._pages[key] = Page(payload, f'"{digest}"')
        return self._pages[key]


@dataclass
class ListCache:
    """The server-side cache of every list."""

    _snapshots: dict[int, Snapshot] = field(default_factory=dict)

    def get(self, world: World, pilot: Pilot, settings: Settings, now: float) -> Snapshot:
        """The list as ESI knows it now."""
        old = self._snapshots.get(pilot.character_id)
        if old is not None and now < old.expires_at:
            return old
        references = _visible(world, pilot, now)
        expires_at = int(now) + settings.cache_seconds
        if old is not None and old.references == references:
            old.expires_at = expires_at
            return old
        fresh = Snapshot(references, int(now), expires_at)
        self._snapshots[pilot.character_id] = fresh
        return fresh

    def bust(self, character_id: int) -> None:
        """Let the next request see the true list."""
        self._snapshots.pop(character_id, None)


def _visible(world: World, pilot: Pilot, now: float) -> list[tuple[int, str]]:
    references = world.references(pilot)
    if world.ninety_days:
        oldest = now - LISTED_SECONDS
        references = [one for one in references if world.killmails[one[0]].at >= oldest]
    if pilot.shuffled:
        random.Random(f"{world.seed}:{pilot.character_id}").shuffle(references)
    return references
