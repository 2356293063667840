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
    """Equal things in one slot with one fate. `container`: what they were in, itself a line above; None: the ship."""

    type: Entity | None
    quantity: int
    dropped: bool
    is_copy: bool
    container: Line | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """`continued`: there is more of it on the page before."""

    name: str
    lines: Sequence[Line]
    continued: bool = False


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


def page_of(slots: Iterable[Slot], number: int, size: int) -> list[Slot]:
    """Of all the slots' lines, counted through, the `size` of page `number`, which starts at 1."""
    first, last = (number - 1) * size, number * size
    page, before = [], 0
    for slot in slots:
        shown = slot.lines[max(0, first - before) : max(0, last - before)]
        if shown:
            page.append(Slot(slot.name, shown, continued=before < first))
        before += len(slot.lines)
    return page


def lines(items: Iterable[ItemView], container: Line | None = None) -> list[Line]:
    """Equal things added up, in the order in which they come first. A container stays by itself, with what was in it
    behind it."""
    whole: list[Line] = []
    places: dict[tuple[int | None, bool, bool], int] = {}
    for item in items:
        dropped = item.quantity_dropped is not None
        quantity = item.quantity_dropped if item.quantity_dropped is not None else item.quantity_destroyed or 0
        line = Line(item.type, quantity, dropped, item.singleton == BLUEPRINT_COPY, container)
        key = (None if item.type is None else item.type.id, dropped, line.is_copy)
        if item.items:
            whole += [line, *lines(item.items, line)]
        elif key in places:
            same = whole[places[key]]
            whole[places[key]] = replace(same, quantity=same.quantity + quantity)
        else:
            places[key] = len(whole)
            whole.append(line)
    return whole
