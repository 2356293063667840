"""The security status of solar systems: each is asked for once, and whatever goes wrong costs ESI few errors."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

import events
import solar_systems
from actors.names import names_wanted, resolve_names
from actors.schedule import tend
from actors.solar_systems import MOST
from database import insert_rows, utcnow
from events import NamesResolved
from models import Killmail, SolarSystem
from simulator import esi_public
from simulator.state import Simulator
from tests.actors.crew import Crew
from tests.actors.simulated import Simulated

JITA, TAMA, J161815 = 30_000_142, 30_002_813, 31_001_535


def _statuses() -> dict[int, float | None]:
    return {row.id: row.security_status for row in SolarSystem.select()}


def _asked(simulated: Simulated) -> list[int]:
    return [int(entry.path.rpartition("/")[2]) for entry in simulated.asked("system")]


def _invent(simulated: Simulated, ids: Iterable[int]) -> None:
    def name(state: Simulator) -> None:
        for id_ in ids:
            state.world.names[id_] = ("solar_system", f"System {id_}")

    simulated.call(name)


def _tell_instead(simulated: Simulated, system_id: int, status: Any) -> None:
    def change(state: Simulator) -> None:
        state.world.security_statuses[system_id] = status

    simulated.call(change)


def _run(crew: Crew) -> None:
    resolve_names.send()
    crew.drain()


def test_after_a_sync_every_system_in_it_has_its_status(simulated, sync):
    sync(simulated.pilot(6))
    sync(simulated.pilot(6))
    ids = {row.solar_system_id for row in Killmail.select(Killmail.solar_system_id)}

    def truth(state: Simulator) -> dict[int, float]:
        return {id_: esi_public.solar_system(state.world, id_)["security_status"] for id_ in ids}  # type: ignore[index]

    assert _statuses() == simulated.call(truth)
    assert sorted(_asked(simulated)) == sorted(ids), "each once"
    assert not names_wanted()


def test_more_than_a_run_asks_for_goes_on_by_itself(simulated, crew, post):
    ids = range(30_000_001, 30_000_001 + 2 * MOST + 5)
    _invent(simulated, ids)
    solar_systems.enter(ids)
    _run(crew)
    assert None not in _statuses().values()
    assert sorted(_asked(simulated)) == list(ids)
    assert len(post.to("resolve_names")) == 3


def test_what_was_found_is_told(simulated, crew):
    told: list[events.Notice] = []
    subscription = events.subscribe(told.append)
    solar_systems.enter([JITA])
    resolve_names.send()
    crew.until(lambda: NamesResolved() in told)
    subscription.close()
    assert _statuses() == {JITA: 0.945913}


@pytest.mark.parametrize("kind", ["status:500", "status:503", "reset", "invalid_json", "429_bare"])
def test_a_failing_route_costs_one_error_in_two_minutes_however_often_the_clock_looks(
    simulated, crew, later, tick, kind
):
    """In embedded mode it looks every second, and ESI allows 100 errors a minute for all routes together."""
    ids = range(30_000_001, 30_000_001 + 2 * MOST)
    _invent(simulated, ids)
    solar_systems.enter(ids)
    simulated.fault("system", kind)
    for _ in range(5):
        tick()
    assert len(_asked(simulated)) == 1
    simulated.mend()
    later(150)
    tick()
    assert list(_statuses().values()).count(None) <= 1, "what failed itself waits longer"
    later(20 * 60)
    tick()
    assert None not in _statuses().values()
    assert crew.dead == []


def test_a_system_that_esi_does_not_know_is_left_alone_for_a_day(simulated, crew, later, tick):
    solar_systems.enter([39_999_999])
    _run(crew)
    solar_systems.enter([JITA])
    for _ in range(6):
        later(3 * 3600)
        tick()
    assert _asked(simulated) == [39_999_999, JITA]
    _invent(simulated, [39_999_999])
    later(7 * 3600)
    tick()
    assert None not in _statuses().values()


@pytest.mark.parametrize("hostile", [7.0, -1.5, "0.5", None, True, [0.5], float("nan"), float("inf")])
def test_a_status_that_is_none_is_not_believed_and_hurts_only_itself(simulated, crew, later, tick, hostile):
    _tell_instead(simulated, TAMA, hostile)
    solar_systems.enter([TAMA])
    _run(crew)
    solar_systems.enter([JITA, J161815])
    tick()
    assert _statuses() == {TAMA: None, JITA: 0.945913, J161815: -0.99}
    _tell_instead(simulated, TAMA, 0.25)
    later(16 * 60)
    tick()
    assert _statuses()[TAMA] == 0.25
    assert crew.dead == []


def test_two_runs_at_once_ask_once(simulated, crew):
    solar_systems.enter([JITA])
    simulated.configure(latency_ms=[100, 100])
    for _ in range(4):
        resolve_names.send()
    crew.drain(threads=4)
    assert _asked(simulated) == [JITA]


def test_a_worker_that_stops_hands_back_what_it_has_not_asked_for(simulated, crew, post, tick):
    """Given some systems, When the worker is told to stop at the first, Then another one goes on at once."""
    ids = range(30_000_001, 30_000_006)
    _invent(simulated, ids)
    solar_systems.enter(ids)
    simulated.configure(latency_ms=[300, 300])
    resolve_names.send()
    crew.stop_when(lambda: simulated.asked("system"), post)
    assert len(_asked(simulated)) == 1
    assert list(_statuses().values()).count(None) == 4, "what was under way is kept"
    assert len(post.to("resolve_names")) == 2, "the second one is for the next worker"
    simulated.configure(latency_ms=[0, 0])
    tick()
    assert None not in _statuses().values()
    assert sorted(_asked(simulated)) == list(ids)


def test_names_that_fail_have_systems_wait_with_them(simulated, crew):
    """The two count towards one error limit."""
    solar_systems.enter([JITA])
    insert_rows("names", ("id", "updated_at"), [(587, utcnow())])
    simulated.fault("names", "status:500")
    _run(crew)
    assert _asked(simulated) == []
    assert SolarSystem.get().retry_at > utcnow() + timedelta(minutes=1)


def test_the_tick_sends_names_while_a_system_is_wanted(simulated, post):
    tend()
    assert post.to("resolve_names") == []
    solar_systems.enter([JITA])
    tend()
    assert len(post.to("resolve_names")) == 1
