"""One invented killmail of a given kind: bodies with every oddity real ones have, and true sums.

In every body exactly one attacker has the final blow and the damage done adds up to the damage taken
(esi/README.md §5). Who meets whom and when is decided in `fleet.py`.
"""

import random
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from simulator import catalog, items
from simulator.world import esi_time

Json = dict[str, Any]


class Kind(Enum):
    """What sort of fight a killmail reports."""

    FLEET = auto()
    SOLO = auto()
    POD = auto()
    STRUCTURE = auto()
    #: Every attacker is an NPC.
    NPC_ONLY = auto()
    #: Loot in containers, blueprint copies and quantities beyond 32 bits.
    HAULER = auto()
    #: Attackers without ship, weapon or character.
    RAGGED = auto()
    #: A war declared, at a moon.
    WAR = auto()
    #: A thousand attackers.
    HUGE = auto()


@dataclass(frozen=True)
class Character:
    """Whoever can stand in a killmail with a name."""

    character_id: int
    corporation_id: int
    alliance_id: int | None

    def party(self) -> Json:
        """The keys every victim and attacker shares; an absent alliance is an absent key."""
        ids: Json = {"character_id": self.character_id, "corporation_id": self.corporation_id}
        return ids if self.alliance_id is None else ids | {"alliance_id": self.alliance_id}


@dataclass(frozen=True)
class Fight:
    """Who was there: the loser, who had the final blow, and who else might have helped."""

    victim: Character
    final_blow: Character
    bystanders: tuple[Character, ...]


HUGE_ATTACKERS: Final = 1000
_SHIP_IDS: Final = [one for one, _ in catalog.SHIPS]
_WEAPON_IDS: Final = [one for one, _ in catalog.WEAPONS]
_SYSTEM_IDS: Final = [one for one, _ in catalog.SYSTEMS]
_STRUCTURE_IDS: Final = [one for one, _ in catalog.STRUCTURES]


@dataclass
class KillmailMaker:
    """Makes bodies from a random source; `attackers` and `items` are means of fleet fights and losses."""

    rng: random.Random
    attackers: int
    items: int

    def make(self, kind: Kind, killmail_id: int, at: float, fight: Fight) -> Json:
        """A complete ESI body. `at` is epoch seconds."""
        damage = self.rng.randint(400, 90_000) * (40 if kind in (Kind.STRUCTURE, Kind.HUGE) else 1)
        body: Json = {
            "attackers": self._attackers(kind, fight, damage),
            "killmail_id": killmail_id,
            "killmail_time": esi_time(at),
            "solar_system_id": self.rng.choice(_SYSTEM_IDS),
            "victim": self._victim(kind, fight.victim, damage),
        }
        if kind is Kind.WAR:
            body["war_id"] = self.rng.randint(600_000, 760_000)
            body["moon_id"] = self.rng.randint(40_000_001, 40_360_000)
        return body

    def _victim(self, kind: Kind, victim: Character, damage: int) -> Json:
        ship, party = self.rng.choice(_SHIP_IDS), victim.party()
        if kind is Kind.POD:
            ship = catalog.PODS[0][0]
        elif kind is Kind.STRUCTURE:
            ship = self.rng.choice(_STRUCTURE_IDS)
            del party["character_id"]
        body = party | {"damage_taken": damage, "ship_type_id": ship, "position": self._position()}
        if kind is Kind.POD:
            body["items"] = items.implants(self.rng)
        elif kind is Kind.HAULER:
            body["items"] = items.fitting(self.rng, self.items) + items.haul(self.rng)
        else:
            body["items"] = items.fitting(self.rng, self.items)
        return body

    def _position(self) -> Json:
        return {axis: round(self.rng.uniform(-6e12, 6e12), 3) for axis in "xyz"}

    def _attackers(self, kind: Kind, fight: Fight, damage: int) -> list[Json]:
        if kind is Kind.NPC_ONLY:
            rows = [self._npc() for _ in range(self.rng.randint(1, 4))]
        else:
            rows = [self._attacker(one) for one in self._crew(kind, fight)]
            if kind is Kind.FLEET and self.rng.random() < 0.1:
                rows.append(self._npc())
        final = rows[0]
        for row, share in zip(rows, self._shares(damage, len(rows)), strict=True):
            row["damage_done"], row["final_blow"] = share, row is final
        if kind is Kind.RAGGED:
            self._tear(rows)
        # ESI sorts by damage as a rule, so the final blow is rarely the first row.
        return sorted(rows, key=lambda row: -int(row["damage_done"]))

    def _crew(self, kind: Kind, fight: Fight) -> list[Character]:
        """The final blow first, then its helpers; nobody twice and never the victim."""
        if kind in (Kind.SOLO, Kind.POD):
            return [fight.final_blow]
        wanted = HUGE_ATTACKERS if kind is Kind.HUGE else self.rng.randint(1, max(1, 2 * self.attackers - 1))
        others = [one for one in fight.bystanders if one not in (fight.final_blow, fight.victim)]
        return [fight.final_blow, *self.rng.sample(others, min(wanted - 1, len(others)))]

    def _attacker(self, who: Character) -> Json:
        ship = self.rng.choice(_SHIP_IDS)
        weapon = ship if self.rng.random() < 0.15 else self.rng.choice(_WEAPON_IDS)
        security = round(self.rng.uniform(-10.0, 5.0), 1)
        return who.party() | {"security_status": security, "ship_type_id": ship, "weapon_type_id": weapon}

    def _npc(self) -> Json:
        corporation, faction, ship = self.rng.choice(catalog.NPCS)
        row: Json = {"security_status": 0.0, "ship_type_id": ship}
        if corporation is not None:
            row["corporation_id"] = corporation
        if faction is not None:
            row["faction_id"] = faction
        return row

    def _shares(self, damage: int, count: int) -> list[int]:
        """Cut the damage into `count` parts; parts of 0 happen, as they do on ESI."""
        cuts = sorted(self.rng.choices(range(damage + 1), k=count - 1))
        return [high - low for low, high in zip([0, *cuts], [*cuts, damage], strict=True)]

    def _tear(self, rows: list[Json]) -> None:
        for number, row in enumerate(rows):
            if number % 3 == 0:
                row.pop("weapon_type_id", None)
            if number % 3 == 1:
                row.pop("ship_type_id", None)
            if number % 4 == 3 and not row["final_blow"]:
                row.pop("character_id", None)
