"""Flags become slots, equal things one line."""

from __future__ import annotations

import pytest

from api.killmail_views import Entity, ItemView
from web.fitting import ELSEWHERE, Slot, fitting, lines, slot_of, within


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
        ((0, 10, 35, 91, 95, 124, 133, 155, 2**31 - 1), ELSEWHERE),
    ],
)
def test_where_a_flag_is(flags: tuple[int, ...], slot: str) -> None:
    """The flags of esi/README.md §5, first and last of each."""
    assert {slot_of(flag) for flag in flags} == {slot}


def test_slots_come_in_the_games_order_and_empty_ones_not_at_all() -> None:
    slots = fitting([item(1, 5, 1), item(2, 11, 1), item(3, 28, 1), item(4, 27, 1), item(5, 90, 1)])
    assert [slot.name for slot in slots] == ["High slots", "Low slots", "Cargo", ELSEWHERE]
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
    assert [(line.quantity, [each.quantity for each in line.inside]) for line in found] == [(1, [3]), (1, []), (1, [3])]


def _left(slots: list[Slot]) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Of each slot: lines, lines left out, and the same of each line."""
    return [(len(slot.lines), slot.more, [(len(line.inside), line.more) for line in slot.lines]) for slot in slots]


def test_what_is_over_the_budget_is_counted_wherever_it_was() -> None:
    def box(*types: int) -> ItemView:
        return item(3465, destroyed=1, items=[item(each, destroyed=1) for each in types])

    slots = fitting([item(1, 27, 1), item(2, 5, 1), box(3, 4, 5), box(6, 7)])
    assert _left(within(slots, 9)) == _left(slots) == [(1, 0, [(0, 0)]), (3, 0, [(0, 0), (3, 0), (2, 0)])]
    assert _left(within(slots, 8)) == [(1, 0, [(0, 0)]), (3, 0, [(0, 0), (3, 0), (1, 1)])]
    assert _left(within(slots, 5)) == [(1, 0, [(0, 0)]), (3, 0, [(0, 0), (1, 2), (0, 2)])]
    assert _left(within(slots, 2)) == [(1, 0, [(0, 0)]), (1, 7, [(0, 0)])]
    assert _left(within(slots, 0)) == [(0, 1, []), (0, 8, [])]


def test_a_container_in_a_container_costs_like_any_other_line() -> None:
    inner = item(3466, destroyed=1, items=[item(1, destroyed=1), item(2, destroyed=1)])
    (slot,) = within(fitting([item(3465, destroyed=1, items=[inner])]), 3)
    (nested,) = slot.lines[0].inside
    assert (len(nested.inside), nested.more) == (1, 1)
    assert within(fitting([item(3465, destroyed=1, items=[inner])]), 1)[0].lines[0].more == 3


def test_nothing_of_something_is_nothing() -> None:
    """ESI never sends a row without a quantity; should it, the page stands."""
    assert lines([item(34)])[0].quantity == 0
