"""What a victim carried: fittings, implants, and hauls with containers, copies and huge stacks.

Rows follow ESI: one of `quantity_destroyed` and `quantity_dropped`, never both; containers one level deep;
singleton 2 marks a blueprint copy; equal rows may stand twice (esi/README.md §5).
"""

import random
from typing import Any, Final

from simulator import catalog

Json = dict[str, Any]

CARGO_FLAG: Final = 5
IMPLANT_FLAG: Final = 89
BLUEPRINT_COPY: Final = 2
#: More than a signed 32-bit integer holds.
HUGE_QUANTITY: Final = 2**31 + 11_680_000

_BAYS: Final = (
    ([one for one, _ in catalog.LOW_SLOT_TYPES], range(11, 19)),
    ([one for one, _ in catalog.MEDIUM_SLOT_TYPES], range(19, 27)),
    ([one for one, _ in catalog.HIGH_SLOT_TYPES], range(27, 35)),
    ([one for one, _ in catalog.RIG_TYPES], range(92, 95)),
    ([one for one, _ in catalog.DRONE_BAY_TYPES], range(87, 88)),
)
_CARGO_IDS: Final = [one for one, _ in catalog.CARGO_TYPES]


def _row(rng: random.Random, type_id: int, flag: int, quantity: int = 1, singleton: int = 0) -> Json:
    fate = "quantity_dropped" if rng.random() < 0.45 else "quantity_destroyed"
    return {"flag": flag, "item_type_id": type_id, fate: quantity, "singleton": singleton}


def fitting(rng: random.Random, mean: int) -> list[Json]:
    """About `mean` rows: two thirds fitted modules, one third cargo. May be empty."""
    rows = []
    for number in range(rng.randint(0, 2 * mean)):
        if number % 3 == 2:
            rows.append(_row(rng, rng.choice(_CARGO_IDS), CARGO_FLAG, rng.randint(1, 900)))
        else:
            types, flags = rng.choice(_BAYS)
            rows.append(_row(rng, rng.choice(types), rng.choice(flags)))
    return rows


def implants(rng: random.Random) -> list[Json]:
    """Up to four implants, all destroyed with the pod."""
    chosen = rng.sample(catalog.IMPLANTS, rng.randint(0, 4))
    return [{"flag": IMPLANT_FLAG, "item_type_id": one, "quantity_destroyed": 1, "singleton": 0} for one, _ in chosen]


def haul(rng: random.Random) -> list[Json]:
    """A container with things in it, a blueprint copy, a huge stack, and one row that stands twice."""
    container = _row(rng, rng.choice(catalog.CONTAINERS)[0], CARGO_FLAG)
    container["items"] = [
        _row(rng, rng.choice(_CARGO_IDS), CARGO_FLAG, rng.randint(1, 50_000)) for _ in range(rng.randint(1, 5))
    ]
    container["items"].append(_row(rng, rng.choice(catalog.BLUEPRINTS)[0], CARGO_FLAG, 1, BLUEPRINT_COPY))
    copy = _row(rng, rng.choice(catalog.BLUEPRINTS)[0], CARGO_FLAG, 1, BLUEPRINT_COPY)
    stack = _row(rng, rng.choice(_CARGO_IDS), CARGO_FLAG, HUGE_QUANTITY + rng.randint(0, 1_000_000))
    twice = _row(rng, rng.choice(_CARGO_IDS), CARGO_FLAG, 7)
    return [container, copy, stack, twice, dict(twice)]
