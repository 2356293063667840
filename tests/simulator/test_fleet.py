"""Invented worlds: true sums, true hashes, true lists, and every oddity somewhere."""

import hashlib
import json
import time
from datetime import datetime
from typing import Any

import pytest

from simulator.config import Config
from simulator.fleet import invent
from simulator.names import ids_in
from simulator.world import World

NINETY_DAYS = 90 * 86_400


@pytest.fixture(scope="module")
def world() -> World:
    return invent(Config())[0]


@pytest.fixture(scope="module")
def bodies(world) -> dict[int, Any]:
    return {one: json.loads(killmail.payload.raw) for one, killmail in world.killmails.items()}


def _final_blow(body: Any) -> Any:
    [final] = [attacker for attacker in body["attackers"] if attacker["final_blow"]]
    return final


def test_the_demo_has_three_pilots_and_more_than_500_killmails(world):
    assert len(world.pilots) == 3
    assert len(world.killmails) == 520
    listed = [pilot.killmail_ids for pilot in world.pilots.values()]
    assert set.union(*listed) == world.killmails.keys()
    assert 20 < sum(map(len, listed)) - 520 < 120


def test_damage_adds_up_and_one_blow_is_final(bodies):
    """esi/README.md §5: exactly one final_blow, sum(damage_done) = damage_taken."""
    for body in bodies.values():
        _final_blow(body)
        done = [attacker["damage_done"] for attacker in body["attackers"]]
        assert sum(done) == body["victim"]["damage_taken"]
        assert min(done) >= 0


def test_hashes_are_true(world, bodies):
    """esi/README.md §5 "Hash", written out a second time."""
    for killmail_id, body in bodies.items():
        at = int(datetime.fromisoformat(body["killmail_time"]).timestamp())
        victim, final = body["victim"].get("character_id"), _final_blow(body).get("character_id")
        filetime = (at + 11644473600) * 10**7
        text = f"{victim}{final}{body['victim']['ship_type_id']}{filetime}"
        assert hashlib.sha1(text.encode()).hexdigest() == world.killmails[killmail_id].killmail_hash


def test_lists_hold_losses_and_final_blows_only(world, bodies):
    """esi/README.md §5 "Who is listed": assists are in nobody's list."""
    assists = 0
    for pilot in world.pilots.values():
        mine = {
            one
            for one, body in bodies.items()
            if pilot.character_id in (body["victim"].get("character_id"), _final_blow(body).get("character_id"))
        }
        assert pilot.killmail_ids == mine
        assists += sum(
            1
            for one, body in bodies.items()
            if one not in mine and any(row.get("character_id") == pilot.character_id for row in body["attackers"])
        )
    assert assists > 0


def test_ids_rise_with_time_within_ninety_days(bodies):
    """esi/README.md §5."""
    times = [bodies[one]["killmail_time"] for one in sorted(bodies)]
    assert times == sorted(times)
    oldest = datetime.fromisoformat(times[0]).timestamp()
    assert time.time() - NINETY_DAYS < oldest
    assert datetime.fromisoformat(times[-1]).timestamp() <= time.time()


def test_every_oddity_is_there(bodies):
    """esi/README.md §5 and §1: what real killmails do."""
    every = list(bodies.values())
    victims = [body["victim"] for body in every]
    attackers = [row for body in every for row in body["attackers"]]
    items = [item for victim in victims for item in victim["items"]]

    assert any("character_id" not in victim for victim in victims)
    assert any(victim["ship_type_id"] == 670 for victim in victims)
    assert any(all("character_id" not in row for row in body["attackers"]) for body in every)
    assert max(len(body["attackers"]) for body in every) == 1000
    assert any(len(body["attackers"]) == 1 for body in every)
    for name in ("ship_type_id", "weapon_type_id", "alliance_id"):
        assert any(name not in row and "character_id" in row for row in attackers)
    assert any("character_id" not in row and "weapon_type_id" in row for row in attackers)
    assert any("faction_id" in row for row in attackers)
    assert any("items" in item for item in items)
    assert any(item["singleton"] == 2 for item in items)
    assert any(item.get("quantity_dropped", 0) + item.get("quantity_destroyed", 0) > 2**31 for item in items)
    assert all(("quantity_dropped" in item) != ("quantity_destroyed" in item) for item in items)
    assert any("war_id" in body and "moon_id" in body for body in every)
    assert all({"x", "y", "z"} == victim["position"].keys() for victim in victims)


def test_everything_has_a_name(world, bodies):
    for body in bodies.values():
        for one, category in ids_in(body):
            assert world.names[one][0] == category
            assert not world.names[one][1].startswith("Name ")


def test_a_seed_gives_the_same_world(world):
    same, other = invent(Config())[0], invent(Config(seed=2))[0]
    assert {one: killmail.killmail_hash for one, killmail in same.killmails.items()} == {
        one: killmail.killmail_hash for one, killmail in world.killmails.items()
    }
    assert same.names == world.names
    assert same.killmails.keys() != other.killmails.keys()


def test_size_and_averages_are_what_was_asked():
    """Benchmarks ask for killmails of a known weight."""
    world, _ = invent(Config(pilots=1, killmail_count=400, attackers=8, items=15, shared_fraction=0))
    bodies = [json.loads(killmail.payload.raw) for killmail in world.killmails.values()]
    fleet = [len(body["attackers"]) for body in bodies if 1 < len(body["attackers"]) < 1000]
    items = [len(body["victim"]["items"]) for body in bodies]
    assert len(bodies) == 400
    assert 6 < sum(fleet) / len(fleet) < 10
    assert 12 < sum(items) / len(items) < 18


def test_hostile_names_are_on_pilots_and_strangers():
    world, _ = invent(Config(hostile_names=True, killmail_count=20))
    names = {name for category, name in world.names.values() if category == "character"}
    assert any("<script>" in name for name in names)
    assert any("\u202e" in name for name in names)
    assert max(map(len, names)) == 500
    assert any(pilot.name.startswith("<script>") for pilot in world.pilots.values())
