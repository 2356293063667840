"""Where in the ship something was: ESI's location flags as slots, in the order of the game's fitting window. Pure.

The flags are those of EVE's static data (inventory flags), as far as killmails show them. One that is not named here
is shown under "Elsewhere".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from api.killmail_views import Entity, ItemView
from api.values import BLUEPRINT_COPY

#: Slot and the flags it has.
SLOTS: tuple[tuple[str, range], ...] = (
    ("High slots", range(27, 35)),
    ("Medium slots", range(19, 27)),
    ("Low slots", range(11, 19)),
    ("Rigs", range(92, 95)),
    ("Subsystems", range(125, 133)),
    ("Drone bay", range(87, 88)),
    ("Fighter bay", range(158, 159)),
    ("Implants", range(89, 90)),
    ("Cargo", range(5, 6)),
)
ELSEWHERE = "Elsewhere"


@dataclass(frozen=True, slots=True)
class Line:
    """Equal things in one slot with one fate. `inside`: what was in a container; `more`: lines left out there."""

    type: Entity | None
    quantity: int
    dropped: bool
    is_copy: bool
    inside: Sequence[Line] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """`more`: lines left out, what is inside them included."""

    name: str
    lines: Sequence[Line]
    more: int = 0


def slot_of(flag: int) -> str:
    """The slot's name."""
    return next((name for name, flags in SLOTS if flag in flags), ELSEWHERE)


def fitting(items: Iterable[ItemView]) -> list[Slot]:
    """What the ship carried, by slot; slots with nothing in them are left out."""
    order = [name for name, _ in SLOTS] + [ELSEWHERE]
    by_slot: dict[str, list[ItemView]] = {name: [] for name in order}
    for item in sorted(items, key=lambda item: item.flag):
        by_slot[slot_of(item.flag)].append(item)
    return [Slot(name, lines(by_slot[name])) for name in order if by_slot[name]]


def within(slots: Iterable[Slot], budget: int) -> list[Slot]:
    """The slots with `budget` lines in all: what lies in containers is left out first, and how much, is counted."""
    left = _Budget(budget)
    begun = [(slot, left.take(slot.lines)) for slot in slots]
    return [
        Slot(slot.name, [_opened(line, left) for line in taken], _count(slot.lines[len(taken) :]))
        for slot, taken in begun
    ]


@dataclass(slots=True)
class _Budget:
    lines: int

    def take(self, of: Sequence[Line]) -> Sequence[Line]:
        """The first of them, as many as are left."""
        taken = of[: self.lines]
        self.lines -= len(taken)
        return taken


def _opened(line: Line, left: _Budget) -> Line:
    taken = left.take(line.inside)
    inside = [_opened(inner, left) for inner in taken]
    return replace(line, inside=inside, more=_count(line.inside[len(taken) :]))


def _count(lines: Sequence[Line]) -> int:
    return sum(1 + _count(line.inside) for line in lines)


def lines(items: Iterable[ItemView]) -> list[Line]:
    """Equal things added up, in the order in which they come first. A container stays by itself."""
    whole: list[Line] = []
    places: dict[tuple[int | None, bool, bool], int] = {}
    for item in items:
        dropped = item.quantity_dropped is not None
        quantity = item.quantity_dropped if item.quantity_dropped is not None else item.quantity_destroyed or 0
        is_copy = item.singleton == BLUEPRINT_COPY
        key = (None if item.type is None else item.type.id, dropped, is_copy)
        if item.items:
            whole.append(Line(item.type, quantity, dropped, is_copy, lines(item.items)))
        elif key in places:
            same = whole[places[key]]
            whole[places[key]] = Line(same.type, same.quantity + quantity, dropped, is_copy)
        else:
            places[key] = len(whole)
            whole.append(Line(item.type, quantity, dropped, is_copy))
    return whole
