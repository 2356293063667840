"""Names for ids: the table of real ones, and invented ones for characters and for ids nobody named.

Everything a served killmail mentions has a name here, because `/universe/names` refuses a whole batch for
one unknown id. Invented names depend on the seed only.
"""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from simulator import catalog

_FIRST: Final = (
    "Aeryn", "Alvar", "Amira", "Anika", "Arkesh", "Bastien", "Brisa", "Caelin", "Cassia", "Corvin", "Dagan",
    "Darya", "Edrik", "Elara", "Fenn", "Galen", "Hadrin", "Ilse", "Isaak", "Jorun", "Kaelis", "Katja",
    "Kirin", "Lioren", "Lucan", "Maren", "Mikko", "Nadira", "Nils", "Oriana", "Ravik", "Renn", "Saara",
    "Sevrin", "Soren", "Talia", "Tovan", "Ursa", "Vael", "Veska", "Wren", "Yevra", "Zarek", "Zofia",
)  # fmt: skip
_LAST: Final = (
    "Aldent", "Arkadi", "Ashkar", "Borealis", "Brennac", "Calderra", "Corvane", "Dravik", "Eldran",
    "Farrow", "Galthir", "Harkon", "Icarii", "Jenkara", "Kaatori", "Korvath", "Lirane", "Malkor", "Marrec",
    "Nihar", "Okanen", "Orsik", "Pavlaren", "Quorin", "Rautaken", "Sarpati", "Solace", "Tashmur", "Teverin",
    "Ulvane", "Vantor", "Voltaire", "Warrick", "Xenthar", "Yulai", "Zandrel",
)  # fmt: skip

#: The pilots people meet in the demo, in order; more are invented when more are asked for.
PILOT_NAMES: Final = ("Katja Solace", "Renn Marrec", "Elara Vantor", "Soren Okanen", "Nadira Harkon", "Tovan Dravik")

#: Names no page, log or export may stumble over (`--hostile-names`).
HOSTILE_NAMES: Final = (
    "<script>alert('Katja')</script>",
    "\u202eRenn \u05d0\u05d1\u05d2 \u0645\u0631\u062d\u0628\u0627",
    "🚀💥 Ela\u0301ra 👩‍🚀",
    "Soren " + "O" * 494,
    "'; DROP TABLE killmails; --",
    '=HYPERLINK("http://example.invalid","Tovan")',
)

Names = dict[int, tuple[str, str]]


def character_name(rng: random.Random) -> str:
    """An invented name in the fashion of New Eden."""
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


def catalog_names() -> Names:
    """Category and name of everything in the catalog."""
    types = itertools.chain(
        *(catalog.SHIPS, catalog.PODS, catalog.STRUCTURES, catalog.WEAPONS, catalog.NPC_SHIPS),
        *(catalog.LOW_SLOT_TYPES, catalog.MEDIUM_SLOT_TYPES, catalog.HIGH_SLOT_TYPES, catalog.RIG_TYPES),
        *(catalog.DRONE_BAY_TYPES, catalog.CARGO_TYPES, catalog.CONTAINERS, catalog.BLUEPRINTS, catalog.IMPLANTS),
    )
    corporations = tuple((one, name) for one, name, _ in catalog.CORPORATIONS) + catalog.NPC_CORPORATIONS
    by_category: dict[str, Iterable[catalog.Named]] = {
        "inventory_type": types,
        "solar_system": catalog.SYSTEMS,
        "corporation": corporations,
        "alliance": catalog.ALLIANCES,
        "faction": catalog.FACTIONS,
    }
    return {one: (category, name) for category, table in by_category.items() for one, name in table}


def ids_in(body: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Every id a killmail body mentions that `/universe/names` can be asked for, with its category."""
    yield body["solar_system_id"], "solar_system"
    victim = body["victim"]
    for party in (victim, *body["attackers"]):
        for key, category in _PARTY_KEYS:
            if party.get(key):
                yield party[key], category
    for item in victim.get("items") or ():  # null says the same as no items
        yield item["item_type_id"], "inventory_type"
        for inner in item.get("items") or ():
            yield inner["item_type_id"], "inventory_type"


_PARTY_KEYS: Final = (
    ("character_id", "character"),
    ("corporation_id", "corporation"),
    ("alliance_id", "alliance"),
    ("faction_id", "faction"),
    ("ship_type_id", "inventory_type"),
    ("weapon_type_id", "inventory_type"),
)


def name_the_unnamed(names: Names, body: Mapping[str, Any]) -> None:
    """Give every id of a body that has no name yet the name "Name <id>"."""
    for one, category in ids_in(body):
        names.setdefault(one, (category, f"Name {one}"))
