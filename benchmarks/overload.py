"""`python -m benchmarks.overload LOAD HOURS [without-floors]`: the ledger and its dispatcher under more work than ESI
allows.

Time is simulated: `database.clock` says what this module tells it, and nothing waits. What runs is the project's own:
opening and listing syncs, the dispatcher, the limiter and its bucket, claims and settling, on a SQLite file of its own.
Made up are ESI's answers, which all succeed, and the broker, which hands out the highest priority first. Without
floors the oldest rows get no share of their own: for whoever wants to see what B16's bounds are worth.
"""

from __future__ import annotations

import heapq
import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import database
import ledger
import migrations
import runtime
import settings
from actors import sending
from actors.dispatching import dispatch, dispatch_now, wake_for
from actors.middleware import THIS_ADDRESS, FetchClaims
from database import from_epoch, utcnow
from esi.limiter import SPACING, Closed
from esi.rate_limit import KILLMAIL
from esi.rate_store import SLOTS
from killmails import Attacker, Killmail, Victim
from ledger import dispatching
from ledger.reading import NOTHING_READ
from ledger.rules import INTERACTIVE_PRIORITY
from models import Trigger, User

#: Killmails an hour that ESI's bucket allows: 3,600 tokens in 15 minutes at 2 each.
ALLOWED = 7_200
#: Logins an hour for each 100 % of load, and the killmails of most of them: 15 times 480 are ESI's allowance.
LOGINS, KILLMAILS = 15.0, 480
#: Every fourth login has so few killmails instead.
SMALL_EVERY, SMALL = 4, (50, 100)
#: New killmails that a background sync finds.
FOUND = 3
#: Seconds between two requests at the ceiling, and a little more, so that no slot has to be waited for.
REQUEST_SECONDS = SPACING / 50 + 0.001
TICK_SECONDS = 60.0
#: When the simulated time begins (seconds since the epoch). Any whole day will do.
BEGIN = 1_800_000_000.0
COOLDOWN = timedelta(minutes=15)
WITHOUT_FLOORS = "without-floors"


def loads(load: float) -> tuple[float, float]:
    """Logins and background syncs an hour that together want `load` times what ESI allows."""
    logins = LOGINS * load
    mean = ((SMALL_EVERY - 1) * KILLMAILS + sum(SMALL) / 2) / SMALL_EVERY
    return logins, (ALLOWED * load - logins * mean) / FOUND


@dataclass
class Waits:
    """What waited how long, in seconds, and when background killmails were fetched."""

    listed_at: dict[int, tuple[float, bool]] = field(default_factory=dict)  # by killmail: when, and if interactive
    longest: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})  # by interactive
    fetched: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    longest_pause: float = 0.0
    background_at: float = BEGIN
    background_left: int = 0
    overtaken: int = 0
    most_overtaken: int = 0
    # By interactive: the lists that wait, by when they were read and with how many killmails; and the killmails of any
    # list that were fetched since one of the oldest of them was.
    lists: dict[bool, Counter[float]] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    passed_over: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    most_passed_over: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})

    def listed(self, killmail_id: int, now: float, *, interactive: bool) -> None:
        self.listed_at[killmail_id] = (now, interactive)
        self.lists[interactive][now] += 1
        if not interactive:
            if not self.background_left:
                self.background_at, self.overtaken = now, 0
            self.background_left += 1

    def stored(self, killmail_id: int, now: float) -> None:
        at, interactive = self.listed_at.pop(killmail_id)
        self.note_passed_over(at, interactive=interactive)
        self.longest[interactive] = max(self.longest[interactive], now - at)
        self.fetched[interactive] += 1
        if interactive:
            self.overtaken += 1
            self.note_pause(now)
        else:
            self.note_pause(now)
            self.background_at, self.overtaken = now, 0
            self.background_left -= 1

    def note_passed_over(self, listed_at: float, *, interactive: bool) -> None:
        """A killmail of the list read then was fetched: of each class, the oldest list that waits was served, or not.

        Lists are counted in the order in which they were read, which is that of a Counter's keys.
        """
        for each, lists in self.lists.items():
            served = each == interactive and next(iter(lists)) == listed_at
            self.passed_over[each] = 0 if served or not lists else self.passed_over[each] + 1
            self.most_passed_over[each] = max(self.most_passed_over[each], self.passed_over[each])
        lists = self.lists[interactive]
        lists[listed_at] -= 1
        if not lists[listed_at]:
            del lists[listed_at]

    def note_pause(self, now: float) -> None:
        """A time without a background killmail counts only while one waits: in seconds, and in killmails of logins."""
        if self.background_left:
            self.most_overtaken = max(self.most_overtaken, self.overtaken)
            self.longest_pause = max(self.longest_pause, now - self.background_at)

    def end(self, now: float) -> None:
        """What is left has waited until now."""
        self.note_pause(now)
        for at, interactive in self.listed_at.values():
            self.longest[interactive] = max(self.longest[interactive], now - at)


@dataclass(order=True)
class Message:
    """A message of the broker: the highest priority first, and in order."""

    rank: int
    number: int
    killmail_id: int = field(compare=False)
    refill: bool = field(compare=False)


class Simulation:
    """One run. `now` is the time that everything here is told."""

    def __init__(self, load: float, hours: float) -> None:
        self.now, self.until = BEGIN, BEGIN + hours * 3600
        self.waits = Waits()
        self.logins: dict[int, tuple[float, int]] = {}  # by sync: when, and how many killmails
        self.took: list[tuple[int, float]] = []  # killmails of a login that ended, and its seconds
        self._pilots: dict[int, int] = {}  # by killmail, while it is to be fetched
        self._messages: list[Message] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers, self._killmail_ids = count(1), count(1_000_000)
        self._random = random.Random(16)
        logins, background = loads(load)
        self._plan_evenly(logins, hours, lambda n: lambda: self._log_in(n))
        self._plan_evenly(background, hours, lambda n: self._sync_background)
        for minute in range(1, int(hours * 60)):
            self._plan(BEGIN + minute * TICK_SECONDS, self._tick)

    def run(self) -> None:
        while self.now < self.until:
            if self._events and (not self._messages or self._events[0][0] <= self.now):
                at, _, event = heapq.heappop(self._events)
                self.now = max(self.now, at)
                event()
            elif self._messages:
                self.now += REQUEST_SECONDS
                self._fetch(heapq.heappop(self._messages))
            else:
                break
        self.waits.end(self.now)
        # Logins that are late already, and have not ended, count with the time they have waited.
        self.took += [(killmails, self.now - at) for at, killmails in self.logins.values()]

    def send(self, actor: Any, *args: int, priority: int = 0, delay_seconds: float = 0.0, **options: Any) -> bool:
        """In the place of `actors.sending.send`."""
        if actor is dispatch:
            self._plan(self.now + delay_seconds, self._tick)
        elif actor.actor_name == "fetch_killmail":
            refill = bool(options.get(FetchClaims.REFILL))
            heapq.heappush(self._messages, Message(-priority, next(self._numbers), args[0], refill))
        return True

    def _plan(self, at: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))

    def _plan_evenly(self, an_hour: float, hours: float, event: Callable[[int], Callable[[], None]]) -> None:
        """One in each of so many equal parts of the time, at any moment of it."""
        for number in range(int(an_hour * hours)):
            self._plan(BEGIN + (number + self._random.random()) * 3600 / an_hour, event(number))

    def _tick(self) -> None:
        ledger.take_back_expired()
        dispatch_now()

    def _log_in(self, number: int) -> None:
        killmails = KILLMAILS if (number + 1) % SMALL_EVERY else self._random.randint(*SMALL)
        opened = ledger.open_sync(self._new_user(), Trigger.LOGIN, cooldown=COOLDOWN)
        assert opened.sync_id is not None
        self.logins[opened.sync_id] = (self.now, killmails)
        self._list(opened.sync_id, killmails)

    def _sync_background(self) -> None:
        self._new_user()
        for sync_id in ledger.open_due_syncs(1):
            self._list(sync_id, FOUND)

    def _new_user(self) -> int:
        """A user with a sync that is due; later ones are not simulated, so that the load is what it is said to be."""
        number = next(self._numbers)
        made = User.create(character_id=number, character_name=f"Pilot {number}", owner_hash="o", next_sync_at=utcnow())
        return int(made.id)

    def _list(self, sync_id: int, killmails: int) -> None:
        sync = ledger.claim_sync(sync_id)
        assert sync is not None
        ids = [next(self._killmail_ids) for _ in range(killmails)]
        character_id, interactive = User.get_by_id(sync.user_id).character_id, sync.priority >= INTERACTIVE_PRIORITY
        references = [(killmail_id, f"{killmail_id:040x}") for killmail_id in reversed(ids)]
        added = ledger.add_page(sync, references, reading=NOTHING_READ, etag=None, seen=set())
        assert added is not None
        for killmail_id in ids:
            self._pilots[killmail_id] = character_id
            self.waits.listed(killmail_id, self.now, interactive=interactive)
        dispatch_now()
        ledger.end_listing(added.sync, etag=None, complete=True)
        # A user whose sync has ended is not due again within the simulated time.
        User.update(next_sync_at=utcnow() + timedelta(days=30)).where(User.id == sync.user_id).execute()

    def _fetch(self, message: Message) -> None:
        """As `FetchClaims` and `fetch_killmail` do, with an answer at once."""
        refill = message.refill
        claim = ledger.claim(message.killmail_id)
        if claim is not None:
            try:
                permit = runtime.limiter().acquire(
                    KILLMAIL, THIS_ADDRESS, background=claim.priority < INTERACTIVE_PRIORITY, subject=claim.killmail_id
                )
            except Closed as closed:
                ledger.release(claim)
                refill = closed.road != SLOTS
                if not refill:
                    wake_for(from_epoch(closed.until))
            else:
                permit.answered(200, {})
                pilot = self._pilots.pop(claim.killmail_id)
                settled = ledger.settle(claim, body(claim.killmail_id, utcnow(), pilot))
                self.waits.stored(claim.killmail_id, self.now)
                self._finish(settled.sync_ids)
        if refill:
            dispatch_now()

    def _finish(self, sync_ids: tuple[int, ...]) -> None:
        for sync_id in ledger.ready_to_finish(sync_ids):
            if ledger.finalize(sync_id, timedelta(days=30)) is not None and sync_id in self.logins:
                at, killmails = self.logins.pop(sync_id)
                self.took.append((killmails, self.now - at))


def body(killmail_id: int, at: datetime, pilot: int) -> Killmail:
    """The smallest killmail there is, which names the pilot."""
    victim = Victim(pilot, 1, None, None, 587, 1)
    return Killmail(
        killmail_id, at, 30_000_142, None, None, victim, (Attacker(2, 1, None, None, 587, 1, 1, True, 0.0),)
    )


def found(simulation: Simulation) -> dict[str, Any]:
    """What `b16_overload` reads."""
    waits = simulation.waits
    small = [seconds for killmails, seconds in simulation.took if killmails <= SMALL[1]]
    large = [seconds for killmails, seconds in simulation.took if killmails > SMALL[1]]
    return {
        "small": small, "large": large, "seconds": simulation.now - BEGIN, "longest_pause": waits.longest_pause,
        "most_overtaken": waits.most_overtaken, "most_passed_over": max(waits.most_passed_over.values()),
        "longest_interactive": waits.longest[True], "longest_background": waits.longest[False],
        "interactive_fetched": waits.fetched[True], "background_fetched": waits.fetched[False],
        "left": len(waits.listed_at),
    }  # fmt: skip


def main() -> None:
    load, hours = map(float, sys.argv[1:3])
    if WITHOUT_FLOORS in sys.argv[3:]:
        vars(dispatching).update(OLDEST_PLACE=None, BACKGROUND_PLACE=None)  # no place is theirs
    database.connect(settings.current().database_url).connect()
    migrations.upgrade()
    database.execute("PRAGMA synchronous = OFF")  # the file is thrown away
    simulation = Simulation(load, hours)
    vars(database.clock)["now"] = lambda: simulation.now
    vars(sending)["send"] = simulation.send
    simulation.run()
    print("RESULT", json.dumps(found(simulation)), flush=True)


if __name__ == "__main__":
    main()
