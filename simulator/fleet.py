"""Invents a world: demo pilots, strangers, and 88 days of fights between them.

The same seed on the same day gives the same killmails. Ids rise with time and leave gaps, so that a killmail
can turn up late between two others. Every kind of `Kind` occurs in the demo's world, to every pilot.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from simulator import catalog
from simulator.config import Config
from simulator.killmail_maker import HUGE_ATTACKERS, Character, Fight, KillmailMaker, Kind
from simulator.names import HOSTILE_NAMES, PILOT_NAMES, character_name
from simulator.world import FIRST_KILLMAIL_ID, Killmail, Pilot, World

_DAY: Final = 86_400
#: ESI lists ninety days; invented fights end at midnight and span a little less, so none drops out today.
_SPAN: Final = 88 * _DAY
_ID_GAP: Final = 12

#: Places of the special kinds in each cycle; a prime, so that every pilot meets every kind.
_SPECIAL: Final = {
    3: Kind.POD, 7: Kind.SOLO, 11: Kind.HAULER, 14: Kind.NPC_ONLY, 17: Kind.STRUCTURE, 21: Kind.RAGGED,
    26: Kind.POD, 29: Kind.SOLO, 33: Kind.HAULER, 41: Kind.WAR,
}  # fmt: skip
_CYCLE: Final = 43
_HUGE_AT: Final = 60


@dataclass
class Fleet:
    """The people of a world and the means to let them fight; kept to add killmails later."""

    world: World
    maker: KillmailMaker
    strangers: tuple[Character, ...]
    crowd: tuple[Character, ...]
    hostile_names: bool = False

    def add_pilot(self, name: str | None = None) -> Pilot:
        """A new pilot with an empty list."""
        number = len(self.world.pilots)
        if name is None and self.hostile_names:
            name = HOSTILE_NAMES[number % len(HOSTILE_NAMES)]
        if name is None:
            name = PILOT_NAMES[number] if number < len(PILOT_NAMES) else character_name(self.world.rng)
        corporation, _, alliance = catalog.CORPORATIONS[number % 4]
        first = 2_112_000_101 if number % 3 == 2 else 93_000_101
        pilot = Pilot(first + number * 7_919, name, corporation, alliance)
        self.world.add_pilot(pilot)
        return pilot

    def fight(self, owner: Pilot, other: Pilot | None, number: int) -> Killmail:
        """One more killmail for a pilot's list, and for the other pilot's too if one is given.

        `number` decides the kind. The killmail is dated now; ids follow the newest.
        """
        return self.fight_at(owner, other, number, self.world.newest_id + _ID_GAP, time.time())

    def fight_late(self, owner: Pilot, other: Pilot | None, number: int) -> Killmail:
        """A killmail that turns up behind newer ones: its id and time lie among those already listed."""
        known = self.world.killmails
        listed = sorted(owner.killmail_ids, reverse=True)
        older = listed[min(len(listed) - 1, 1 + number % 5)] if listed else self.world.newest_id
        killmail_id = older - 1
        while killmail_id in known:
            killmail_id -= 1
        at = known[older].at - 1 if older in known else time.time()
        return self.fight_at(owner, other, number, killmail_id, at)

    def fight_at(self, owner: Pilot, other: Pilot | None, number: int, killmail_id: int, at: float) -> Killmail:
        """The same at a given id and time (epoch seconds)."""
        kind = self._kind(number, other is not None)
        body = self.maker.make(kind, killmail_id, at, self._sides(kind, owner, other))
        return self.world.add(body)

    def _kind(self, number: int, shared: bool) -> Kind:
        if number == _HUGE_AT:
            return Kind.HUGE
        kind = _SPECIAL.get(number % _CYCLE, Kind.FLEET)
        if shared and kind in (Kind.NPC_ONLY, Kind.STRUCTURE):
            return Kind.FLEET  # these have no second pilot
        return kind

    def _sides(self, kind: Kind, owner: Pilot, other: Pilot | None) -> Fight:
        rng = self.maker.rng
        me = _character(owner)
        bystanders = self.crowd if kind is Kind.HUGE else self.strangers
        mates = tuple(_character(pilot) for pilot in self.world.pilots.values() if rng.random() < 0.3)
        enemy = rng.choice(self.strangers) if other is None else _character(other)
        loses = kind is Kind.NPC_ONLY or (kind is not Kind.STRUCTURE and rng.random() < 0.4)
        victim, final_blow = (me, enemy) if loses else (enemy, me)
        return Fight(victim, final_blow, mates + bystanders)


def _character(pilot: Pilot) -> Character:
    return Character(pilot.character_id, pilot.corporation_id, pilot.alliance_id)


def _strangers(world: World, count: int, first_id: int, hostile: bool) -> tuple[Character, ...]:
    people = []
    for number in range(count):
        corporation, _, alliance = world.rng.choice(catalog.CORPORATIONS)
        who = Character(first_id + number * 3_571, corporation, alliance)
        name = HOSTILE_NAMES[number % len(HOSTILE_NAMES)] if hostile else character_name(world.rng)
        world.names[who.character_id] = ("character", name)
        people.append(who)
    return tuple(people)


def _moments(count: int, end: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Ids and times of `count` killmails, oldest first, spread evenly with some disorder in the gaps."""
    step = _SPAN / max(1, count)
    killmail_id = FIRST_KILLMAIL_ID
    for number in range(count):
        killmail_id += rng.randint(4, 2 * _ID_GAP)
        yield killmail_id, int(end - _SPAN + number * step + rng.random() * step)


def fleet_of(world: World, config: Config) -> Fleet:
    """Strangers for a world, and the means to add killmails to it."""
    return Fleet(
        world=world,
        maker=KillmailMaker(random.Random(f"fleet {config.seed}"), config.attackers, config.items),
        strangers=_strangers(world, 300, 94_000_003, config.hostile_names),
        crowd=_strangers(world, HUGE_ATTACKERS + 50, 2_113_000_007, config.hostile_names),
        hostile_names=config.hostile_names,
    )


def invent(config: Config) -> tuple[World, Fleet]:
    """The world a configuration describes: `pilots` pilots with `killmail_count` distinct killmails."""
    world = World(config.seed)
    fleet = fleet_of(world, config)
    rng = fleet.maker.rng
    pilots = [fleet.add_pilot() for _ in range(config.pilots)]
    midnight = int(time.time()) // _DAY * _DAY
    for number, (killmail_id, at) in enumerate(_moments(config.killmail_count, midnight, rng)):
        if not pilots:
            break
        owner = pilots[number % len(pilots)]
        shared = len(pilots) > 1 and rng.random() < config.shared_fraction
        other = rng.choice([pilot for pilot in pilots if pilot is not owner]) if shared else None
        fleet.fight_at(owner, other, number, killmail_id, at)
    return world, fleet
