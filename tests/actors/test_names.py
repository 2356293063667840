"""Names: what is asked for, what is put off, and what is kept when a run ends early."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta

import pytest

from actors.names import BATCH, SINGLE_CHARACTERS, names_wanted, resolve_names
from actors.schedule import tend
from database import execute, insert_rows, utcnow
from models import Name
from simulator import esi_public
from simulator.names import Names
from simulator.state import Simulator
from simulator.wire import Response
from simulator.world import World
from tests.actors.crew import Crew
from tests.actors.simulated import Simulated

#: Within the ids of player characters, and of nobody the simulator knows.
NOBODY = 95_555_000


def _want(*ids: int) -> None:
    insert_rows("names", ("id", "updated_at"), [(id_, utcnow()) for id_ in sorted(set(ids))])


def _names() -> dict[int, str | None]:
    return {row.id: row.name for row in Name.select()}


def _invent(simulated: Simulated, ids: Iterable[int], category: str = "inventory_type") -> None:
    def name(state: Simulator) -> None:
        for id_ in ids:
            state.world.names[id_] = (category, f"Thing {id_}")

    simulated.call(name)


def _run(crew: Crew) -> None:
    resolve_names.send()
    crew.drain()


def test_after_a_sync_everything_in_it_has_a_name(simulated, sync):
    sync(simulated.pilot(3))
    assert _names() != {}
    assert None not in _names().values()
    assert not names_wanted()


def test_nothing_wanted_asks_nothing(simulated, crew):
    _run(crew)
    assert simulated.asked("names") == []


def test_one_unknown_id_does_not_keep_the_others_from_their_names(simulated, crew):
    known = list(range(50_000, 50_015))
    _invent(simulated, known)
    _want(*known, 49_999)
    _run(crew)
    assert {id_: f"Thing {id_}" for id_ in known} | {49_999: None} == _names()
    assert len(simulated.asked("names")) <= 10, "halved, not asked for one by one"
    row = Name.get_by_id(49_999)
    assert row.retry_at > utcnow() + timedelta(hours=5)


def test_an_unknown_id_is_asked_for_again_after_hours(simulated, crew, later):
    _want(49_999)
    _run(crew)
    asked = len(simulated.asked("names"))
    _run(crew)
    assert len(simulated.asked("names")) == asked
    _invent(simulated, [49_999])
    later(7 * 3600)
    assert names_wanted()
    _run(crew)
    assert _names() == {49_999: "Thing 49999"}


def test_a_full_batch_sends_the_next_one(simulated, crew, post):
    ids = range(200_000, 200_000 + BATCH + 200)
    _invent(simulated, ids)
    _want(*ids)
    _run(crew)
    assert None not in _names().values()
    assert len(simulated.asked("names")) == 2
    assert len(post.to("resolve_names")) == 2


def test_a_character_that_names_does_not_know_is_asked_for_by_itself(simulated, crew):
    """/universe/names refuses some characters for good (esi-issues 1391); their own route knows them."""
    _want(NOBODY, 40_000)

    class Unlisted(Names):
        def __contains__(self, id_: object) -> bool:
            return id_ != NOBODY and super().__contains__(id_)

    def only_a_sheet(state: Simulator) -> None:
        state.world.names = Unlisted(state.world.names)
        state.world.names[NOBODY] = ("character", "Katja Unlisted")
        assert esi_public.character(state.world, NOBODY) is not None

    simulated.call(only_a_sheet)
    _run(crew)
    assert _names()[NOBODY] == "Katja Unlisted"
    assert [entry.character_id for entry in simulated.asked("character")] == [NOBODY]


def test_characters_that_nobody_asked_for_are_not_put_off_as_unknown(simulated, crew, later):
    """Ten are asked for by themselves in a run; the others have had no chance yet."""
    ids = range(NOBODY, NOBODY + SINGLE_CHARACTERS + 4)
    _want(*ids)
    for _ in range(3):
        Name.update(retry_at=None).where(Name.retry_at < utcnow() + timedelta(hours=1)).execute()
        _run(crew)
        later(62)  # a run of unknown ids uses up what names may spend of the errors of a minute
    asked = {entry.character_id for entry in simulated.asked("character")}
    assert asked == set(ids)


@pytest.mark.parametrize("kind", ["status:500", "reset", "status:503"])
def test_a_failure_on_a_single_character_loses_no_name_that_was_found(simulated, crew, kind):
    known = list(range(50_000, 50_007))
    _invent(simulated, known)
    _want(*known, NOBODY)
    simulated.fault("character", kind)
    _run(crew)
    assert {id_: name for id_, name in _names().items() if name} == {id_: f"Thing {id_}" for id_ in known}


def test_a_closed_road_keeps_what_was_found(simulated, crew):
    """The error limit stops the search half-way: ids that were settled keep their names."""
    known = list(range(50_000, 50_032))
    _invent(simulated, known)
    _want(*known, 60_000)
    simulated.call(lambda state: state.settings.update({"error_limit": "24/1m"}))
    _run(crew)
    found = [name for name in _names().values() if name]
    assert found
    assert len(simulated.asked("names")) < 12
    assert all(entry.status != 420 for entry in simulated.asked("names")), "we stopped before ESI had to"


def test_a_road_closed_from_the_start_asks_nothing_and_comes_back(simulated, crew, later, tick):
    _invent(simulated, [50_000])
    _want(50_000)
    execute("INSERT INTO gates (name, closed_until, reason, failures) VALUES ('unbucketed', ?, 'errors', 1)",
            (time.time() + 50,))  # fmt: skip
    _run(crew)
    assert (simulated.asked("names"), _names()) == ([], {50_000: None})
    later(150)
    tick()
    assert _names() == {50_000: "Thing 50000"}


def test_a_closed_road_is_waited_for_no_longer_than_it_is_closed(simulated, crew, later, tick):
    _invent(simulated, [50_000])
    _want(50_000)
    execute("INSERT INTO gates (name, closed_until, reason, failures) VALUES ('unbucketed', ?, 'errors', 1)",
            (time.time() + 20,))  # fmt: skip
    _run(crew)
    assert not names_wanted(), "nobody asks before"
    later(25)
    tick()
    assert _names() == {50_000: "Thing 50000"}


def test_a_worker_that_stops_hands_back_what_it_has_not_asked_for(simulated, crew, post, tick):
    """Given a batch that is refused for one id, When the worker is told to stop, Then another one goes on at once."""
    known = list(range(50_000, 50_015))
    _invent(simulated, known)
    _want(*known, 49_999)
    simulated.configure(latency_ms=[300, 300])
    resolve_names.send()
    crew.stop_when(lambda: simulated.asked("names"), post)
    assert len(simulated.asked("names")) == 1
    assert names_wanted()
    assert len(post.to("resolve_names")) == 2, "the second one is for the next worker"
    simulated.configure(latency_ms=[0, 0])
    tick()
    assert {id_: f"Thing {id_}" for id_ in known} | {49_999: None} == _names()


def test_a_worker_that_stops_leaves_characters_to_their_own_route(simulated, crew, post):
    """Refused with all others, and not asked for alone yet: that is no reason to wait for hours."""
    _want(NOBODY)
    simulated.configure(latency_ms=[300, 300])
    resolve_names.send()
    crew.stop_when(lambda: simulated.asked("names"), post)
    assert simulated.asked("character") == []
    assert names_wanted()


def test_a_failing_route_is_asked_again_later(simulated, crew, later, tick):
    _invent(simulated, [50_000])
    _want(50_000)
    simulated.fault("names", "status:500", count=2)
    _run(crew)
    tick()
    assert len(simulated.asked("names")) == 2, "an accident may pass at once; what does not waits two minutes"
    later(150)
    tick()
    assert _names() == {50_000: "Thing 50000"}
    assert crew.dead == []


def _fail_at(monkeypatch: pytest.MonkeyPatch, id_: int) -> None:
    """ESI answers 500 to every batch with this id."""
    names = esi_public.names

    def failing(world: World, asked: object) -> Response:
        is_bad = isinstance(asked, list) and id_ in asked
        return Response.error(500, "Internal error") if is_bad else names(world, asked)

    monkeypatch.setattr(esi_public, "names", failing)


def test_an_id_that_esi_fails_at_keeps_no_other_from_its_name(simulated, crew, later, tick, monkeypatch):
    # Given seventy ids, and a 500 for every batch with the first of them
    ids = list(range(50_000, 50_070))
    _invent(simulated, ids)
    _want(*ids)
    _fail_at(monkeypatch, 50_000)
    # When they are asked for
    _run(crew)
    # Then all the others have their names, at a bounded cost
    assert {id_: f"Thing {id_}" for id_ in ids[1:]} | {50_000: None} == _names()
    assert sum(entry.status == 500 for entry in simulated.asked("names")) <= 10
    # And it costs less and less to ask for that one
    asked = len(simulated.asked("names"))
    for _ in range(14 * 4):
        later(6 * 3600 + 60)
        tick()
    assert len(simulated.asked("names")) - asked <= 2 * 14, "56 looks in a fortnight, and two requests for each try"


def test_an_id_that_fails_by_itself_waits_longer_each_time(simulated, crew, later, tick, monkeypatch):
    _invent(simulated, [50_000])
    _want(50_000)
    _fail_at(monkeypatch, 50_000)
    _run(crew)
    assert not names_wanted()
    for _ in range(60):
        later(125)
        tick()
    # Then two hours of looking each two minutes have cost few tries, and no other id waits for it
    assert len(simulated.asked("names")) <= 2 * 8
    _invent(simulated, [50_001])
    _want(50_001)
    tick()
    assert _names()[50_001] == "Thing 50001"


def test_two_runs_at_once_ask_once(simulated, crew):
    _invent(simulated, [50_000])
    _want(50_000)
    simulated.configure(latency_ms=[100, 100])
    for _ in range(4):
        resolve_names.send()
    crew.drain(threads=4)
    assert len(simulated.asked("names")) == 1


def test_a_category_nobody_knows_is_not_asked_for_every_two_minutes_for_ever(simulated, crew, later, tick):
    """ESI may add categories: an answer that cannot be used is no reason to ask again at once."""
    _invent(simulated, [50_000], category="starlet")
    _want(50_000)
    _run(crew)
    for _ in range(5):
        later(150)
        tick()
    assert len(simulated.asked("names")) <= 2


def test_the_tick_sends_names_only_while_any_is_wanted(simulated, post):
    tend()
    assert post.to("resolve_names") == []
    _want(50_000)
    tend()
    assert len(post.to("resolve_names")) == 1
