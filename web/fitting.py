"""Where in the ship something was: ESI's location flags as slots, in the order of the game's fitting window. Pure.

The flags are those of EVE's static data (table invFlags), as far as killmails show them. What lay in different bays is
never added up: each flag that is not named here is shown under an "Elsewhere" of its own.
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
    ("Fighter tubes", range(159, 164)),
    ("Service slots", range(164, 172)),
    ("Booster", range(88, 89)),
    ("Ship maintenance bay", range(90, 91)),
    ("Fleet hangar", range(155, 156)),
    ("Fuel bay", range(133, 134)),
    ("Mining hold", range(134, 135)),
    ("Gas hold", range(135, 136)),
    ("Mineral hold", range(136, 137)),
    ("Salvage hold", range(137, 138)),
    ("Ship hold", range(138, 139)),
    ("Small ship hold", range(139, 140)),
    ("Medium ship hold", range(140, 141)),
    ("Large ship hold", range(141, 142)),
    ("Industrial ship hold", range(142, 143)),
    ("Ammo hold", range(143, 144)),
    ("Command center hold", range(148, 149)),
    ("Planetary commodities hold", range(149, 150)),
    ("Material bay", range(151, 152)),
    ("Quafe bay", range(154, 155)),
    ("Structure fuel", range(172, 173)),
    ("Booster hold", range(176, 177)),
    ("Subsystem hold", range(177, 178)),
    ("Frigate escape bay", range(179, 180)),
    ("Structure deed bay", range(180, 181)),
    ("Ice hold", range(181, 182)),
    ("Asteroid hold", range(182, 183)),
    ("Mobile depot", range(183, 184)),
    ("Infrastructure hold", range(185, 186)),
    ("Moon material bay", range(186, 187)),
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
    return next((name for name, flags in SLOTS if flag in flags), f"{ELSEWHERE} (flag {flag})")


def fitting(items: Iterable[ItemView]) -> list[Slot]:
    """What the ship carried, by slot; slots with nothing in them are left out."""
    by_slot: dict[str, list[ItemView]] = {name: [] for name, _ in SLOTS}
    for item in sorted(items, key=lambda item: item.flag):
        by_slot.setdefault(slot_of(item.flag), []).append(item)
    return [Slot(name, lines(found)) for name, found in by_slot.items() if found]


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
    """Equal things of one fate added up, in the order in which they come first. A container stays by itself, with what
    was in it behind it."""
    whole: list[Line] = []
    places: dict[tuple[int | None, bool, bool], int] = {}
    for item in items:
        fates = [Line(item.type, *fate, item.singleton == BLUEPRINT_COPY, container) for fate in _fates(item)]
        if item.items:
            whole += [*fates, *lines(item.items, fates[-1])]
            continue
        for line in fates:
            key = (None if item.type is None else item.type.id, line.dropped, line.is_copy)
            if key in places:
                same = whole[places[key]]
                whole[places[key]] = replace(same, quantity=same.quantity + line.quantity)
            else:
                places[key] = len(whole)
                whole.append(line)
    return whole


def _fates(item: ItemView) -> list[tuple[int, bool]]:
    """How many of a stack were destroyed, and how many dropped (True): one of them as a rule, and at least one."""
    both = ((item.quantity_destroyed, False), (item.quantity_dropped, True))
    return [(quantity, dropped) for quantity, dropped in both if quantity is not None] or [(0, False)]
