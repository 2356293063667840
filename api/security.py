"""The security status of solar systems, as far as it is known here: a small table, and wormhole space by its ids.

Killmails do not hold it, and the routes of ESI that this system uses do not tell it; what is not in the table is shown
without one. Statuses do not change but for a few systems in the game's history.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from functools import cache

from settings import ROOT

TABLE = ROOT / "api" / "security_status.csv"
#: Wormhole systems (EVE's documentation, ranges of ids). Every one has −0.99, which the game shows as −1.0.
WORMHOLES = range(31_000_000, 32_000_000)

_TENTH = Decimal("0.1")


def security_status(solar_system_id: int) -> float | None:
    """As the game shows it, 1.0 to −1.0 with one decimal; None where it is not known."""
    if solar_system_id in WORMHOLES:
        return -1.0
    exact = _table().get(solar_system_id)
    return None if exact is None else _shown(exact)


def _shown(exact: Decimal) -> float:
    """Rounded; but what is above 0.0 is never shown as 0.0, because that is where CONCORD's law ends."""
    if 0 < exact < _TENTH / 2:
        return 0.1
    return float(exact.quantize(_TENTH, ROUND_HALF_UP)) + 0.0  # no negative zero


@cache
def _table() -> dict[int, Decimal]:
    lines = TABLE.read_text().splitlines()
    rows = (line.split(",") for line in lines if not line.startswith("#"))
    return {int(system_id): Decimal(status) for system_id, status in rows}
