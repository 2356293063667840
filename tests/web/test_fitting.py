"""Flags become slots, equal things one line."""

from __future__ import annotations

import pytest

from api.killmail_views import Entity, ItemView
from web.fitting import ELSEWHERE, fitting, lines, page_of, slot_of


def item(
    type_id: int, flag: int = 5, destroyed: int | None = None, dropped: int | None = None, **more: object
) -> ItemView:
    values: dict[str, object] = {"singleton": 0, "items": [], **more}
    return ItemView(Entity(type_id, None), flag, quantity_destroyed=destroyed, quantity_dropped=dropped, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flags", "slot"),
    [
        ((27, 34), "High slots"),
        ((19, 26), "Medium slots"),
        ((11, 18), "Low slots"),
        ((92, 94), "Rigs"),
        ((125, 132), "Subsystems"),
        ((87,), "Drone bay"),
        ((158,), "Fighter bay"),
        ((89,), "Implants"),
        ((5,), "Cargo"),
        ((90,), "Ship maintenance bay"),
        ((155,), "Fleet hangar"),
        ((159, 163), "Fighter tubes"),
        ((164, 171), "Service slots"),
        ((179,), "Frigate escape bay"),
    ],
)
def test_where_a_flag_is(flags: tuple[int, ...], slot: str) -> None:
    """The flags of esi/README.md §5, first and last of each."""
    assert {slot_of(flag) for flag in flags} == {slot}


def test_flags_without_a_name_stay_apart() -> None:
    flags = (0, 10, 35, 91, 95, 124, 2**31 - 1)
    assert [slot_of(flag) for flag in flags] == [f"{ELSEWHERE} (flag {flag})" for flag in flags]


def test_equal_things_in_different_bays_are_not_added_up() -> None:
    """13 Rifters in 13 bays: none of them says how many were where, if they are one line."""
    bays = (5, 87, 90, 133, 138, 139, 140, 141, 155, 179, 183, 60, 61)
    slots = fitting([item(587, flag, destroyed=1) for flag in bays])
    assert len({slot.name for slot in slots}) == 13
    assert [[line.quantity for line in slot.lines] for slot in slots] == [[1]] * 13


def test_a_stack_of_two_fates_shows_both() -> None:
    found = lines([item(28668, destroyed=7, dropped=14), item(28668, destroyed=1)])
    assert [(line.quantity, line.dropped) for line in found] == [(8, False), (14, True)]


def test_a_container_of_two_fates_keeps_what_was_in_it() -> None:
    found = lines([item(3465, destroyed=1, dropped=2, items=[item(34, dropped=5)])])
    assert [(line.quantity, line.dropped, line.container is not None) for line in found] == [
        (1, False, False), (2, True, False), (5, True, True)
    ]  # fmt: skip


def test_slots_come_in_the_games_order_and_empty_ones_not_at_all() -> None:
    slots = fitting([item(1, 5, 1), item(2, 11, 1), item(3, 28, 1), item(4, 27, 1), item(5, 90, 1)])
    assert [slot.name for slot in slots] == ["High slots", "Low slots", "Cargo", "Ship maintenance bay"]
    assert [line.type.id for line in slots[0].lines if line.type] == [4, 3]
    assert fitting([]) == []


def test_equal_things_are_added_up_by_fate() -> None:
    found = lines([item(34, dropped=7), item(34, destroyed=5), item(34, dropped=3), item(34, dropped=1, singleton=2)])
    assert [(line.quantity, line.dropped, line.is_copy) for line in found] == [
        (10, True, False),
        (5, False, False),
        (1, True, True),
    ]


def test_containers_stay_by_themselves_with_what_is_in_them() -> None:
    inner = [item(34, dropped=1), item(34, dropped=2)]
    found = lines([item(3465, destroyed=1, items=inner), item(3465, destroyed=1), item(3465, destroyed=1, items=inner)])
    assert [(line.quantity, line.container and line.container.quantity) for line in found] == [
        (1, None), (3, 1), (1, None), (1, None), (3, 1)
    ]  # fmt: skip
    assert found[1].container is found[0]
    assert found[4].container is found[3]


def test_a_container_in_a_container_has_its_place_behind_it() -> None:
    inner = item(3466, destroyed=1, items=[item(1, destroyed=1), item(2, destroyed=1)])
    found = lines([item(3465, destroyed=1, items=[inner, item(3, destroyed=1)])])
    assert [line.type.id for line in found if line.type] == [3465, 3466, 1, 2, 3]
    assert [line.container and line.container.type.id for line in found] == [None, 3465, 3466, 3466, 3465]  # type: ignore[union-attr]


@pytest.mark.parametrize("size", range(1, 11))
def test_pages_hold_every_line_once_and_in_order(size: int) -> None:
    # Given two slots, the second with containers
    def box(*types: int) -> ItemView:
        return item(3465, destroyed=1, items=[item(each, destroyed=1) for each in types])

    slots = fitting([item(1, 27, 1), item(2, 5, 1), box(3, 4, 5), box(6, 7)])
    everything = [(slot.name, line) for slot in slots for line in slot.lines]
    assert len(everything) == 9
    # When they are read page by page
    pages = [page_of(slots, number, size) for number in range(1, 1 - (-9 // size))]
    # Then all are there, each page is full but the last, and what goes on says so
    assert [(slot.name, line) for page in pages for slot in page for line in slot.lines] == everything
    assert {sum(len(slot.lines) for slot in page) for page in pages[:-1]} <= {size}
    seen: set[str] = set()
    for slot in (slot for page in pages for slot in page):
        assert slot.continued == (slot.name in seen)
        seen.add(slot.name)
    assert page_of(slots, len(pages) + 1, size) == []


def test_nothing_of_something_is_nothing() -> None:
    """ESI never sends a row without a quantity; should it, the page stands."""
    assert lines([item(34)])[0].quantity == 0
