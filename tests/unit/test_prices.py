"""The stored price list, on both engines: who asks, when it is wanted, and that one fetches it."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import pytest
from peewee import Database

import prices
from api import killmails
from api.killmail_views import EVERYTHING
from api.values import ValueView
from models import KillmailItem, PriceList
from tests.web_app import make_killmail, make_user


@pytest.fixture(autouse=True)
def _database(any_db: Database) -> None:
    """Every test here runs on both engines."""


def age(hours: float) -> None:
    """Whatever happened to the list was so much earlier."""
    row = PriceList.get()
    for column in ("asked_at", "tried_at", "fetched_at"):
        if getattr(row, column) is not None:
            setattr(row, column, getattr(row, column) - timedelta(hours=hours))
    row.save()


def test_nobody_looks_nothing_is_fetched() -> None:
    assert not prices.wanted()
    assert not prices.claim()


def test_the_first_look_has_it_fetched_once() -> None:
    assert prices.ask() is None
    assert prices.wanted()
    assert [prices.claim(), prices.claim()] == [True, False]
    prices.save({587: 1.5, 670: 2.0})
    assert prices.ask() is not None
    assert not prices.wanted()
    assert prices.of_types([587, 670, 34]) == {587: 1.5, 670: 2.0}


def test_a_stale_list_waits_for_somebody_to_look() -> None:
    prices.ask()
    prices.claim()
    prices.save({587: 1.5})
    age(1.1)
    assert not prices.wanted()
    assert prices.ask() is not None, "the old prices are shown meanwhile"
    assert prices.wanted()
    assert prices.claim()


def test_a_fresh_list_is_not_asked_for_however_many_look() -> None:
    prices.ask()
    prices.claim()
    prices.save({587: 1.5})
    age(0.9)
    for _ in range(3):
        prices.ask()
    assert not prices.wanted()


def test_a_failure_is_tried_again_later() -> None:
    prices.ask()
    assert prices.claim()
    age(0.05)
    assert not prices.wanted()
    age(0.05)
    assert prices.claim()


def test_a_new_list_replaces_the_old_one() -> None:
    prices.ask()
    prices.save({587: 1.5, 670: 2.0})
    prices.save({587: 3.0})
    assert prices.of_types([587, 670]) == {587: 3.0}


def test_looking_writes_once() -> None:
    prices.ask()
    before = PriceList.get().asked_at
    prices.ask()
    assert PriceList.get().asked_at == before


def value_of(killmail_id: int) -> ValueView | None:
    return killmails.load([killmail_id], EVERYTHING | {"value"})[0].value


def test_a_killmail_is_worth_its_ship_and_what_was_in_it() -> None:
    # Given a ship with a container, five billion of a mineral in it, and three pieces of another destroyed
    make_killmail(1, make_user())
    assert value_of(1) is None
    # When there are prices for all but the container
    prices.save({587: 1000.0, 34: 2.0, 35: 10.0})
    # Then each counts by its fate, and what has no price is told
    value = value_of(1)
    assert value is not None
    assert (value.destroyed, value.dropped, value.total) == (1030.0, 10e9, 10e9 + 1030)
    assert (value.unpriced, value.unpriced_stacks) == (1, 1)


def test_a_blueprint_copy_has_no_price() -> None:
    make_killmail(1, make_user())
    prices.ask()
    prices.save({587: 1000.0, 34: 2.0, 35: 10.0, 3465: 5.0})
    KillmailItem.update(singleton=2).where(KillmailItem.item_type_id == 35).execute()
    value = value_of(1)
    assert value is not None
    assert (value.destroyed, value.unpriced, value.unpriced_stacks) == (1000.0, 3, 1)


def test_pages_of_killmails_cost_one_reading_of_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    for killmail_id in range(1, 6):
        make_killmail(killmail_id, user)
    prices.ask()
    prices.save({587: 1.0})
    asked: list[object] = []
    real = prices.of_types

    def counting(type_ids: Collection[int]) -> dict[int, float]:
        asked.append(type_ids)
        return real(type_ids)

    monkeypatch.setattr(prices, "of_types", counting)
    values = [view.value for view in killmails.load(range(1, 6), EVERYTHING | {"value"})]
    assert [value.destroyed for value in values if value] == [1.0] * 5
    assert len(asked) == 1
