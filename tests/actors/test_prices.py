"""`refresh_prices`: one request an hour, only after somebody looked, whatever goes wrong."""

from __future__ import annotations

import prices
from actors.prices import refresh_prices
from database import execute
from simulator import esi_public
from simulator.world import World


def test_the_tick_fetches_what_somebody_asked_for(simulated, tick):
    tick()
    assert simulated.asked("prices") == []
    simulated.pilot(1)
    prices.ask()
    tick()
    tick()
    assert len(simulated.asked("prices")) == 1
    assert prices.ask() is not None
    assert prices.of_types([587])[587] > 0


def test_messages_beyond_the_first_do_nothing(simulated, crew):
    prices.ask()
    for _ in range(5):
        refresh_prices.send()
    crew.drain(threads=4)
    assert len(simulated.asked("prices")) == 1


def test_one_malformed_price_hurts_only_itself(simulated, tick, monkeypatch, caplog):
    prices_of = esi_public.prices

    def one_is_malformed(world: World) -> list[object]:
        return [None, {"type_id": 587, "average_price": -1}, *prices_of(world)[1:]]

    monkeypatch.setattr(esi_public, "prices", one_is_malformed)
    prices.ask()
    tick()
    assert prices.ask() is not None
    assert execute("SELECT COUNT(*) FROM prices").fetchone()[0] > 0
    assert [each.getMessage() for each in caplog.records if "malformed" in each.getMessage()] == [
        "market prices: skipped 2 malformed entries"
    ]


def test_a_failing_esi_is_asked_again_in_a_while(simulated, tick, later):
    simulated.fault("prices", "status:500", count=1)
    prices.ask()
    tick()
    tick()
    assert prices.ask() is None
    assert len(simulated.asked("prices")) == 1
    later(301)
    tick()
    assert prices.ask() is not None
    assert len(simulated.asked("prices")) == 2


def test_an_hour_later_it_takes_a_look_to_fetch_again(simulated, tick, later):
    prices.ask()
    tick()
    later(3700)
    tick()
    assert len(simulated.asked("prices")) == 1
    prices.ask()
    tick()
    assert len(simulated.asked("prices")) == 2
