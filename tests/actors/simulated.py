"""The in-process simulator as these tests drive it: one server for all of them, a new world for each."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import accounts
import runtime
from models import User
from settings import KILLMAIL_SCOPE
from simulator.config import Config, Settings
from simulator.faults import Fault, FaultBoard
from simulator.fleet import invent
from simulator.grants import Grant, Grants
from simulator.listing import ListCache
from simulator.request_log import Entry, RequestLog
from simulator.rules import ErrorLimit
from simulator.server import RunningSimulator
from simulator.state import Simulator
from simulator.wire import Payload
from simulator.world import Killmail

Value = TypeVar("Value")

#: Small killmails, no latency, and a list that may be asked for again at once.
CONFIG = Config(pilots=0, killmail_count=0, attackers=2, items=2, cache_seconds=0)


@dataclass(frozen=True)
class Pilot:
    """A user of ours, and whose character it is at the simulator."""

    user_id: int
    character_id: int

    @property
    def user(self) -> User:
        return User.get_by_id(self.user_id)


@dataclass
class Simulated:
    """ESI and SSO. Changes are made in the simulator's own thread."""

    running: RunningSimulator

    @property
    def url(self) -> str:
        return self.running.url

    def call(self, change: Callable[[Simulator], Value]) -> Value:
        return self.running.call(change)

    def start_anew(self, **wishes: Any) -> None:
        """Another world, in which nothing has been asked yet. Keyword arguments are those of `Config`."""
        config = replace(CONFIG, **wishes)

        def reset(state: Simulator) -> None:
            state.settings = Settings.of(config)
            state.world, state.fleet = invent(config)
            state.grants, state.lists, state.log = Grants(), ListCache(), RequestLog()
            state.buckets, state.errors = {}, ErrorLimit()
            state.faults = FaultBoard(random.Random("faults"))
            state.esi_down_until = state.sso_down_until = 0.0

        self.call(reset)

    def configure(self, **changes: Any) -> None:
        """As `POST /_simulator/settings` does."""
        self.call(lambda state: state.settings.update(changes))

    def pilot(self, killmails: int = 0) -> Pilot:
        """A new character with so many killmails, logged in through the SSO like any pilot."""
        character_id = self.call(lambda state: state.fleet.add_pilot().character_id)
        self.log_in(character_id)
        pilot = Pilot(User.get(User.character_id == character_id).id, character_id)
        self.fight(pilot, killmails)
        return pilot

    def log_in(self, character_id: int) -> None:
        grant = Grant(character_id, (KILLMAIL_SCOPE,), "http://127.0.0.1/", None)
        code = self.call(lambda state: state.grants.issue_code(grant, time.time()))
        tokens = runtime.sso().exchange(code, "")
        accounts.log_in(runtime.sso().verify(tokens.access_token), tokens, runtime.cipher(), 15)

    def fight(self, pilot: Pilot, count: int, shared_with: Pilot | None = None, *, late: bool = False) -> list[int]:
        """More killmails for the pilot's list; returns their ids, oldest first."""

        def add(state: Simulator) -> list[int]:
            owner = state.world.pilots[pilot.character_id]
            other = state.world.pilots[shared_with.character_id] if shared_with else None
            fight = state.fleet.fight_late if late else state.fleet.fight
            # Fights of one kind, and small: numbers 0 to 2 of the cycle are plain ones.
            ids = [fight(owner, other, number % 3).killmail_id for number in range(count)]
            state.lists.bust(pilot.character_id)
            return ids

        return self.call(add)

    def unchanged_for(self, pilot: Pilot, seconds: int) -> None:
        """The pilot's list, which was read before, has last changed so long ago. Last-Modified counts whole seconds."""

        def age(state: Simulator) -> None:
            state.lists._snapshots[pilot.character_id].last_modified = int(time.time()) - seconds

        self.call(age)

    def change_killmail(self, killmail_id: int, **changes: Any) -> None:
        """Serve something else for it: another `killmail_hash`, or another `body`."""
        if "body" in changes:
            changes["payload"] = Payload.of_json(changes.pop("body"))

        def change(state: Simulator) -> None:
            state.world.killmails[killmail_id] = replace(state.world.killmails[killmail_id], **changes)

        self.call(change)

    def killmail(self, killmail_id: int) -> Killmail:
        return self.call(lambda state: state.world.killmails[killmail_id])

    def list_of(self, pilot: Pilot) -> list[int]:
        """The ids of the true list, newest first."""
        return [
            killmail_id
            for killmail_id, _ in self.call(lambda s: s.world.references(s.world.pilots[pilot.character_id]))
        ]

    def fault(self, route: str, kind: str, **wishes: Any) -> None:
        """Misbehave; without `count` for ever."""
        self.call(lambda state: state.faults.faults.append(Fault.of_json({"route": route, "kind": kind, **wishes})))

    def mend(self) -> None:
        self.call(lambda state: state.faults.faults.clear())

    def asked(self, route: str) -> list[Entry]:
        """The requests for this route, oldest first."""
        return self.call(lambda state: [entry for entry in state.log.since(0) if entry.route == route])

    def pages_asked(self) -> list[int | None]:
        return [entry.page for entry in self.asked("recent")]

    def let_time_pass(self, seconds: float) -> None:
        """What was spent was spent so much earlier."""

        def shift(state: Simulator) -> None:
            for window in state.buckets.values():
                window._spent = deque((at - seconds, cost) for at, cost in window._spent)
            state.errors._opened_at -= seconds
            state.esi_down_until -= seconds
            state.sso_down_until -= seconds
            for snapshot in state.lists._snapshots.values():
                snapshot.expires_at -= seconds

        self.call(shift)
