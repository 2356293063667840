"""The truth: which pilots there are, which killmails, and who should find which in their list.

A killmail never changes once it is here. Lists are the true ones; what ESI shows of them (pages, caching,
ninety days) is left to `listing.py`, and inventing killmails to `fleet.py`.
"""

import base64
import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from simulator import catalog
from simulator.names import Names, catalog_names, name_the_unnamed
from simulator.wire import Payload

#: Seconds between 1601 and 1970, and ticks in a second: Windows FILETIME (esi/README.md §5, "Hash").
_FILETIME_OFFSET: Final = 11_644_473_600
_FILETIME_TICKS: Final = 10_000_000


def true_hash(body: Mapping[str, Any]) -> str:
    """The killmail_hash EVE would give this body: SHA-1 over victim, final blow, ship and time."""
    blows = [attacker for attacker in body["attackers"] if attacker["final_blow"]]
    final = blows[0].get("character_id") if blows else None
    victim = body["victim"]
    filetime = (unix_time(body["killmail_time"]) + _FILETIME_OFFSET) * _FILETIME_TICKS
    text = f"{victim.get('character_id')}{final}{victim['ship_type_id']}{filetime}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def unix_time(killmail_time: str) -> int:
    """Epoch seconds of `2026-07-23T14:07:33Z`."""
    return int(datetime.fromisoformat(killmail_time).timestamp())


def esi_time(at: float) -> str:
    """The form ESI gives a moment in: whole seconds, UTC, a trailing Z."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Killmail:
    """One killmail with its body serialised once; the hash is not part of the body."""

    killmail_id: int
    killmail_hash: str
    at: int
    victim_id: int | None
    final_blow_id: int | None
    war_id: int | None
    payload: Payload

    @classmethod
    def of_body(cls, body: Mapping[str, Any], killmail_hash: str | None = None) -> "Killmail":
        """Take in an ESI body; without a hash it gets the true one."""
        blows = [attacker for attacker in body["attackers"] if attacker["final_blow"]]
        return cls(
            killmail_id=body["killmail_id"],
            killmail_hash=killmail_hash or true_hash(body),
            at=unix_time(body["killmail_time"]),
            victim_id=body["victim"].get("character_id"),
            final_blow_id=blows[0].get("character_id") if blows else None,
            war_id=body.get("war_id"),
            payload=Payload.of_json(body),
        )

    @property
    def listed_for(self) -> set[int]:
        """Who finds it in their list: the victim and the final blow, nobody else."""
        return {one for one in (self.victim_id, self.final_blow_id) if one is not None}

    @cached_property
    def etag(self) -> str:
        """An opaque strong ETag of the body."""
        return f'"{hashlib.sha1(self.payload.raw, usedforsecurity=False).hexdigest()}"'


@dataclass
class Pilot:
    """A character that can log in, and the ids its true list holds."""

    character_id: int
    name: str
    corporation_id: int
    alliance_id: int | None = None
    #: How often the character changed hands; part of the owner hash.
    transfers: int = 0
    killmail_ids: set[int] = field(default_factory=set)
    shuffled: bool = False

    @property
    def owner(self) -> str:
        """The owner hash of the access token: 20 bytes in base64, another one after a transfer."""
        seed = f"{self.character_id}:{self.transfers}".encode()
        return base64.b64encode(hashlib.sha1(seed, usedforsecurity=False).digest()).decode()


@dataclass
class World:
    """Pilots, killmails and names. Only one thread touches it."""

    seed: int = 1
    #: ESI lists ninety days; real files are older than that, so the rule can be off.
    ninety_days: bool = True
    pilots: dict[int, Pilot] = field(default_factory=dict)
    killmails: dict[int, Killmail] = field(default_factory=dict)
    names: Names = field(default_factory=catalog_names)
    #: Of solar systems; one that is not here has what its id gives (`esi_public.py`).
    security_statuses: dict[int, float] = field(default_factory=catalog.SECURITY_STATUSES.copy)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"world {self.seed}")

    def add_pilot(self, pilot: Pilot) -> None:
        """Let a character in; its name resolves from now on."""
        self.pilots[pilot.character_id] = pilot
        self.names[pilot.character_id] = ("character", pilot.name)

    def add(self, body: Mapping[str, Any], killmail_hash: str | None = None) -> Killmail:
        """Take in a killmail and list it for the pilots it belongs to. Raises ValueError for a known id."""
        killmail = Killmail.of_body(body, killmail_hash)
        if killmail.killmail_id in self.killmails:
            raise ValueError(f"killmail {killmail.killmail_id} exists")
        name_the_unnamed(self.names, body)
        self.killmails[killmail.killmail_id] = killmail
        for character_id in killmail.listed_for & self.pilots.keys():
            self.pilots[character_id].killmail_ids.add(killmail.killmail_id)
        return killmail

    def references(self, pilot: Pilot) -> list[tuple[int, str]]:
        """The true list of a pilot, newest first."""
        ids = sorted(pilot.killmail_ids, reverse=True)
        return [(one, self.killmails[one].killmail_hash) for one in ids]

    @property
    def newest_id(self) -> int:
        """The highest killmail id there is."""
        return max(self.killmails, default=FIRST_KILLMAIL_ID)


#: Near the newest ids of 2026, far below 2**31 (esi/README.md §5).
FIRST_KILLMAIL_ID: Final = 136_000_000
