"""Bodies of our own making: what each is read as, what follows from it, and its items as rows."""

import json
from dataclasses import replace
from datetime import datetime
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from killmails import (
    Attacker,
    Item,
    Killmail,
    MalformedKillmail,
    Position,
    Victim,
    expected_hash,
    final_blow,
    hash_matches,
    is_npc,
    is_solo,
    item_rows,
    nest_items,
    parse_killmail,
    to_json,
)

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "killmails"
NAMES = sorted(file.stem for file in FOLDER.glob("*.json"))


def body_of(name: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return body


def read(name: str) -> Killmail:
    return parse_killmail(body_of(name))


def test_every_field_has_its_place():
    # Given a body with two items, When it is read
    killmail = read("solo")
    # Then each value stands where its name says
    assert killmail == Killmail(
        killmail_id=900000001,
        killmail_time=datetime(2026, 5, 4, 18, 20, 31),
        solar_system_id=30002187,
        moon_id=None,
        war_id=None,
        victim=Victim(
            character_id=90000001,
            corporation_id=98000001,
            alliance_id=None,
            faction_id=None,
            ship_type_id=587,
            damage_taken=1500,
            position=Position(x=1.5, y=-2.25, z=3.0e11),
            items=(
                Item(item_type_id=2881, flag=27, singleton=0, quantity_destroyed=None, quantity_dropped=1),
                Item(item_type_id=178, flag=5, singleton=0, quantity_destroyed=120, quantity_dropped=None),
            ),
        ),
        attackers=(
            Attacker(
                character_id=90000002,
                corporation_id=98000101,
                alliance_id=None,
                faction_id=None,
                ship_type_id=587,
                weapon_type_id=2881,
                damage_done=1500,
                final_blow=True,
                security_status=-1.5,
            ),
        ),
    )


def test_a_killmail_can_be_hashed_and_not_changed():
    killmail = read("nested_items")
    assert {killmail: 1}[read("nested_items")] == 1
    with pytest.raises(AttributeError):
        killmail.war_id = 5  # type: ignore[misc]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_read_can_be_written_and_read_again(name):
    killmail = read(name)
    written = json.loads(json.dumps(to_json(killmail)))
    assert parse_killmail(written) == killmail


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bare", "nulls_and_unknown_fields"}))
def test_a_body_as_esi_writes_it_comes_back_to_the_letter(name):
    assert to_json(read(name)) == body_of(name)


def test_nothing_of_null_or_unknown_fields_comes_back():
    written = to_json(read("nulls_and_unknown_fields"))
    assert written.keys() == {"killmail_id", "killmail_time", "solar_system_id", "victim", "attackers"}
    assert written["victim"].keys() == {"character_id", "corporation_id", "ship_type_id", "damage_taken", "items"}
    assert "weapon_type_id" not in written["attackers"][0]
    assert "drones" not in written["attackers"][0]


OPTIONAL_IDS = ("character_id", "corporation_id", "alliance_id", "faction_id")


def test_an_optional_id_of_0_is_none():
    body = body_of("moon_and_war")
    body |= {"moon_id": 0, "war_id": 0}
    body["victim"] |= dict.fromkeys(OPTIONAL_IDS, 0)
    body["attackers"][0] |= dict.fromkeys((*OPTIONAL_IDS, "ship_type_id", "weapon_type_id"), 0)

    killmail = parse_killmail(body)

    assert (killmail.moon_id, killmail.war_id) == (None, None)
    attacker = killmail.attackers[0]
    ids = [getattr(party, name) for party in (killmail.victim, attacker) for name in OPTIONAL_IDS]
    assert [*ids, attacker.ship_type_id, attacker.weapon_type_id] == [None] * 10
    assert is_npc(replace(killmail, attackers=(attacker,)))


@pytest.mark.parametrize("path", [("victim", "ship_type_id"), ("solar_system_id",), ("killmail_id",)])
def test_an_id_that_has_to_be_there_is_not_0(path):
    body = body_of("moon_and_war")
    inner = body[path[0]] if len(path) > 1 else body
    inner[path[-1]] = 0
    with pytest.raises(MalformedKillmail, match=path[-1]):
        parse_killmail(body)


def test_a_battle_of_a_thousand_keeps_its_order():
    # Given a thousand attackers, the last with the final blow
    body = body_of("solo")
    body["attackers"] = [
        {"character_id": 90001000 + n, "damage_done": n, "final_blow": n == 999, "security_status": 0.1}
        for n in range(1000)
    ]
    # When it is read, Then all are there in ESI's order
    killmail = parse_killmail(body)
    assert [attacker.damage_done for attacker in killmail.attackers] == list(range(1000))
    assert final_blow(killmail) is killmail.attackers[999]
    assert not is_solo(killmail)


#: name: (character of the final blow or None, is_npc, is_solo)
FOLLOWS: dict[str, tuple[int | None, bool, bool]] = {
    "64_bit": (2_200_000_000_000, False, True),
    "bare": (None, True, False),
    "blueprint_copy": (90000002, False, True),
    "final_blow_of_0_damage": (90000003, False, False),
    "identical_items": (90000002, False, True),
    "missing_ship_and_weapon": (90000002, False, True),
    "moon_and_war": (90000002, False, True),
    "nested_items": (90000002, False, True),
    "no_final_blow": (None, False, True),
    "no_victim_corporation": (90000002, False, True),
    "npc_final_blow": (None, False, True),
    "npc_only": (None, True, False),
    "nulls_and_unknown_fields": (90000002, False, True),
    "pod": (90000002, False, False),
    "solo": (90000002, False, True),
    "structure": (90000002, False, False),
}


def test_the_table_knows_every_fixture():
    assert sorted(FOLLOWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_from_a_killmail(name):
    killmail = read(name)
    blow = final_blow(killmail)
    assert (blow.character_id if blow else None, is_npc(killmail), is_solo(killmail)) == FOLLOWS[name]


def test_the_final_blow_of_an_npc_is_told_from_none_at_all():
    assert final_blow(read("npc_final_blow")) == read("npc_final_blow").attackers[1]
    assert final_blow(read("no_final_blow")) is None


@pytest.mark.parametrize(
    ("corporation_id", "npc"),
    [
        (98_000_001, False),  # a citadel's guns
        (109_299_958, False),  # a corporation from before 2010
        (2_100_000_000, False),
        (1_000_125, True),  # CONCORD
        (500_001, True),  # a faction, as some old killmails have it
        (None, True),
    ],
)
def test_a_structure_without_a_pilot_belongs_to_players(corporation_id, npc):
    killmail = read("npc_only")
    gun = replace(killmail.attackers[0], corporation_id=corporation_id)
    assert is_npc(replace(killmail, attackers=(gun, *killmail.attackers[1:]))) is npc


def test_the_golden_capsule_is_a_capsule():
    killmail = read("solo")
    assert is_solo(killmail)
    assert not is_solo(replace(killmail, victim=replace(killmail.victim, ship_type_id=33328)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        # FILETIME of 2026-05-04T18:20:31Z: (1777918831 + 11644473600) * 10**7
        ("solo", "9000000190000002587134223924310000000"),
        ("structure", "None9000000235832134223924310000000"),
        ("no_final_blow", "90000001None587134223924310000000"),
        ("npc_final_blow", "90000001None587134223924310000000"),
    ],
)
def test_the_hash_is_made_of_victim_killer_ship_and_time(name, text):
    killmail = read(name)
    assert expected_hash(killmail) == sha1(text.encode()).hexdigest()
    assert hash_matches(killmail, sha1(text.encode()).hexdigest())
    assert not hash_matches(killmail, "0" * 40)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-07-23T14:07:33Z", datetime(2026, 7, 23, 14, 7, 33)),
        ("2026-07-23T14:07:33+00:00", datetime(2026, 7, 23, 14, 7, 33)),
        ("2026-07-23T14:07:33.5Z", datetime(2026, 7, 23, 14, 7, 33, 500_000)),
        ("2026-07-23T14:07:33.000001+00:00", datetime(2026, 7, 23, 14, 7, 33, 1)),
        ("2026-07-23T14:07:33.123456789Z", datetime(2026, 7, 23, 14, 7, 33, 123_456)),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29)),
    ],
)
def test_times_are_read_as_naive_utc(text, time):
    killmail = parse_killmail(body_of("solo") | {"killmail_time": text})
    assert killmail.killmail_time == time
    assert killmail.killmail_time.tzinfo is None
    assert parse_killmail(to_json(killmail)) == killmail


def test_item_rows_go_depth_first():
    rows = [(ordinal, parent, item.item_type_id) for ordinal, parent, item in item_rows(read("nested_items"))]
    assert rows == [(0, None, 17366), (1, 0, 34), (2, 0, 35), (3, None, 34), (4, None, 17366), (5, 4, 36)]


@pytest.mark.parametrize("name", NAMES)
def test_rows_nest_to_the_items_they_came_from(name):
    killmail = read(name)
    # Given rows as a table keeps them: without what lies in them
    rows = [(o, p, Item(i.item_type_id, i.flag, i.singleton, i.quantity_destroyed, i.quantity_dropped))
            for o, p, i in item_rows(killmail)]  # fmt: skip
    assert nest_items(rows) == killmail.victim.items


ONE = Item(34, 5, 0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(0, 0, ONE)], "item 0 lies in item 0, which is no earlier row"),
        ([(0, None, ONE), (1, 2, ONE), (2, None, ONE)], "item 1 lies in item 2, which is no earlier row"),
        ([(0, None, ONE), (1, 7, ONE)], "item 1 lies in item 7, which is no earlier row"),
        ([(0, None, ONE), (1, -1, ONE)], "item 1 lies in item -1, which is no earlier row"),
        ([(0, None, ONE), (0, None, ONE)], "item 0 stands after item 0"),
        ([(1, None, ONE), (0, None, ONE)], "item 0 stands after item 1"),
    ],
)
def test_rows_that_make_no_tree_are_refused(rows, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        nest_items(rows)


def test_rows_may_have_gaps_and_stale_contents():
    stale = Item(17366, 5, 0, items=(ONE, ONE))
    assert nest_items([(3, None, stale), (9, 3, ONE)]) == (Item(17366, 5, 0, items=(ONE,)),)
    assert nest_items([(3, None, stale)]) == (Item(17366, 5, 0),)
    assert nest_items([]) == ()
