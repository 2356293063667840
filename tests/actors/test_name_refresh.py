"""Names that are asked for again: which, how often, and what an answer changes."""

from __future__ import annotations

from datetime import timedelta

import pytest

import periodic_runs
import stale_names
from actors.name_refresh import refresh_names
from actors.schedule import tend
from database import execute, utcnow
from models import Name, User
from simulator.state import Simulator
from tests.actors.crew import Crew
from tests.actors.simulated import Simulated

OLD = timedelta(days=31)


def _rename(simulated: Simulated, id_: int, name: str) -> None:
    def renamed(state: Simulator) -> None:
        category, _ = state.world.names[id_]
        state.world.names[id_] = (category, name)

    simulated.call(renamed)


def _age_names(by: timedelta = OLD) -> None:
    at = utcnow() - by
    Name.update(updated_at=at).execute()
    User.update(created_at=at).execute()


def _names() -> dict[int, str]:
    return {row.id: row.name for row in Name.select()}


def _some_corporation() -> int:
    return int(execute("SELECT corporation_id FROM victims ORDER BY killmail_id LIMIT 1").fetchone()[0])


def _turn(crew: Crew) -> None:
    """The tick an hour later."""
    periodic_runs.put_off("stale names", -timedelta(seconds=1))
    tend()
    crew.drain()


def test_a_renamed_pilot_and_corporation_get_their_new_names(simulated, sync, crew):
    # Given stored killmails, and a month later new names of two that are shown
    pilot = simulated.pilot(3)
    sync(pilot)
    corporation = _some_corporation()
    _age_names()
    _rename(simulated, pilot.character_id, "Renamed Pilot")
    _rename(simulated, corporation, "Renamed Corporation")
    asked = len(simulated.asked("names"))
    # When the hourly turn comes
    _turn(crew)
    # Then one request brings them, and the pilot's own name follows
    assert len(simulated.asked("names")) == asked + 1
    assert _names()[pilot.character_id] == "Renamed Pilot"
    assert _names()[corporation] == "Renamed Corporation"
    assert User.get_by_id(pilot.user.id).character_name == "Renamed Pilot"
    # And nothing is asked for in the next hours
    _turn(crew)
    assert len(simulated.asked("names")) == asked + 1


def test_names_younger_than_a_month_are_not_asked_for(simulated, sync, crew, post):
    sync(simulated.pilot(3))
    asked = len(simulated.asked("names"))
    _age_names(timedelta(days=29))
    _turn(crew)
    assert len(simulated.asked("names")) == asked
    assert not [message for message in post.messages if message.actor == "refresh_names"]


def test_types_and_systems_are_never_asked_for_again(simulated, sync):
    sync(simulated.pilot(3))
    _age_names()
    ids = sorted(stale_names.batch().ids)
    categories = {row.category for row in Name.select().where(Name.id.in_(ids))}
    assert ids
    assert categories <= {"character", "corporation", "alliance"}
    assert {"solar_system", "inventory_type"} <= {row.category for row in Name.select()}


def test_an_id_that_esi_no_longer_knows_keeps_its_name(simulated, sync, crew):
    # Given a pilot's corporation that ESI has forgotten
    pilot = simulated.pilot(3)
    sync(pilot)
    corporation = _some_corporation()
    before = _names()
    _age_names()
    _rename(simulated, pilot.character_id, "Renamed Pilot")
    simulated.call(lambda state: state.world.names.pop(corporation))
    # When names are asked for again
    _turn(crew)
    # Then it is called what it was, all others were asked for, and it waits for a month
    assert _names() == before | {pilot.character_id: "Renamed Pilot"}
    assert corporation not in stale_names.batch().ids


@pytest.mark.parametrize("kind", ["status:500", "429_bare", "420"])
def test_a_turn_that_fails_changes_nothing_and_the_next_one_asks_again(simulated, sync, crew, later, kind):
    pilot = simulated.pilot(3)
    sync(pilot)
    before = _names()
    _age_names()
    _rename(simulated, pilot.character_id, "Renamed Pilot")
    simulated.fault("names", kind, seconds=3)
    _turn(crew)
    assert _names() == before
    simulated.mend()
    later(120)
    _age_names()
    _turn(crew)
    assert _names()[pilot.character_id] == "Renamed Pilot"


def test_a_pilot_who_is_on_no_killmail_follows_too(simulated, crew):
    pilot = simulated.pilot()
    _age_names()
    _rename(simulated, pilot.character_id, "Renamed Pilot")
    _turn(crew)
    assert User.get_by_id(pilot.user.id).character_name == "Renamed Pilot"
    assert _names() == {pilot.character_id: "Renamed Pilot"}


def test_turns_go_on_behind_the_pilots_looked_at(simulated, monkeypatch, crew):
    pilots = [simulated.pilot() for _ in range(3)]
    _age_names()
    monkeypatch.setattr(stale_names, "OWN", 2)
    found = []
    for _ in range(3):
        asked = stale_names.batch()
        found.append(asked.ids)
        stale_names.save(asked, dict.fromkeys(asked.ids, "Some Name"), ())
    ids = [pilot.character_id for pilot in pilots]
    assert found == [frozenset(ids[:2]), frozenset(ids[2:]), frozenset()]


def test_turns_go_on_behind_pilots_whose_names_are_fresh(simulated, monkeypatch, crew):
    """Given more pilots with fresh names than a turn looks at, and no name that is shown, When turns come, Then the
    renamed pilot behind them is reached."""
    for _ in range(6):
        fresh = simulated.pilot()
        Name.create(id=fresh.character_id, name="Fresh", category="character", force_insert=True)
    last = simulated.pilot()
    User.update(created_at=utcnow() - OLD).where(User.id == last.user_id).execute()
    _rename(simulated, last.character_id, "Renamed Pilot")
    monkeypatch.setattr(stale_names, "PILOTS_LOOKED_AT", 3)
    for turn in range(3):
        assert User.get_by_id(last.user_id).character_name != "Renamed Pilot", f"before turn {turn}"
        _turn(crew)
    assert User.get_by_id(last.user_id).character_name == "Renamed Pilot"


def test_two_processes_take_one_turn(simulated, sync, post, crew):
    sync(simulated.pilot(3))
    _age_names()
    periodic_runs.put_off("stale names", -timedelta(seconds=1))
    tend()
    tend()
    assert len([message for message in post.messages if message.actor == refresh_names.actor_name]) == 1
    crew.drain()
