"""What killmails are worth at ESI's market prices, and how much of it nobody knows the price of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import prices

if TYPE_CHECKING:
    from api.killmail_views import ItemView, KillmailView

#: ESI's `singleton` of a blueprint copy: it shares its type with the original, and not its price.
BLUEPRINT_COPY = 2


@dataclass(frozen=True, slots=True)
class ValueView:
    """ISK. `unpriced`: items without a price, which lie in `unpriced_stacks`, the ship among them; they count for 0."""

    destroyed: float
    dropped: float
    unpriced: int
    unpriced_stacks: int
    priced_at: datetime

    @property
    def total(self) -> float:
        return self.destroyed + self.dropped


def values_of(killmails: Sequence[KillmailView]) -> list[ValueView | None]:
    """One for each, with one reading of prices; None until there are any. To ask is to have a stale list renewed."""
    priced_at = prices.ask()
    if priced_at is None:
        return [None] * len(killmails)
    known = prices.of_types({type_id for killmail in killmails for type_id in _types(killmail)})
    return [_value(killmail, known, priced_at) for killmail in killmails]


def stacks(items: Iterable[ItemView]) -> Iterator[ItemView]:
    """Every stack, containers and what is in them."""
    for item in items:
        yield item
        yield from stacks(item.items)


def _types(killmail: KillmailView) -> Iterator[int]:
    if killmail.victim.ship_type is not None:
        yield killmail.victim.ship_type.id
    for item in stacks(killmail.items):
        if item.type is not None:
            yield item.type.id


def _value(killmail: KillmailView, known: Mapping[int, float], priced_at: datetime) -> ValueView:
    ship = killmail.victim.ship_type
    hull = None if ship is None else known.get(ship.id)
    destroyed, dropped, unpriced = hull or 0.0, 0.0, [1] if hull is None else []
    for item in stacks(killmail.items):
        price = None if item.type is None or item.singleton == BLUEPRINT_COPY else known.get(item.type.id)
        if price is None:
            unpriced.append((item.quantity_destroyed or 0) + (item.quantity_dropped or 0))
        else:
            destroyed += price * (item.quantity_destroyed or 0)
            dropped += price * (item.quantity_dropped or 0)
    return ValueView(destroyed, dropped, sum(unpriced), len(unpriced), priced_at)
