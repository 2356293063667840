"""The security status of solar systems as the game shows it: 1.0 to -1.0 with one decimal.

The rule: https://developers.eveonline.com/docs/guides/system-security/. What is known is left to `solar_systems.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import solar_systems

_TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class SolarSystemView:
    """A solar system whose security status is known."""

    id: int
    security_status: float


def known_of(solar_system_ids: Collection[int]) -> list[SolarSystemView]:
    """Those whose status is known."""
    statuses = solar_systems.security_statuses(solar_system_ids)
    return [SolarSystemView(each, shown(exact)) for each, exact in statuses.items()]


def shown(exact: float) -> float:
    """Rounded; but what is above 0.0 is never shown as 0.0, because that is where CONCORD's law ends."""
    if 0 < exact < 0.05:
        return 0.1
    return float(Decimal(str(exact)).quantize(_TENTH, ROUND_HALF_UP)) + 0.0  # no negative zero
