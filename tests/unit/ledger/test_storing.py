"""store and load: what was stored is read back field by field, on both engines."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from database import db, execute
from killmails import INT64_MAX, MAX_ENTRIES, Attacker, Item, Killmail, expected_hash, is_npc, is_solo, parse_killmail
from ledger.storing import load, store
from models import Killmail as StoredKillmail
from tests.conftest import REAL_KILLMAILS
from tests.unit.ledger.world import hash_of, make_killmail
from tests.unit.test_killmails_properties import made


def names() -> set[int]:
    return {id_ for (id_,) in execute("SELECT id FROM names").fetchall()}


@given(made)
@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_stored_is_read_back_the_same(killmail):
    with db.atomic() as transaction:
        assert store(killmail, hash_of(1))
        assert load(killmail.killmail_id) == killmail
        transaction.rollback()


@pytest.mark.real_killmails
def test_every_real_killmail_is_read_back_the_same():
    with db.atomic():
        for file in sorted(REAL_KILLMAILS.glob("*.json")):
            killmail = parse_killmail(json.loads(file.read_text("utf-8")))
            assert store(killmail, expected_hash(killmail))
            assert load(killmail.killmail_id) == killmail, file.name
    assert StoredKillmail.select().count() > 400


def test_a_killmail_is_stored_once_and_the_first_stays():
    assert store(make_killmail(1), hash_of(1))
    assert not store(replace(make_killmail(1), solar_system_id=30_000_001, attackers=()), hash_of(1, 7))
    assert load(1) == make_killmail(1)
    assert StoredKillmail.get_by_id(1).killmail_hash == hash_of(1)


def test_a_battle_of_a_hundred_thousand_is_stored_whole():
    """Each attacker is a pilot of their own, and each item of a type of its own: the most names there may be."""
    made = make_killmail(1)
    pilots = tuple(
        replace(made.attackers[0], character_id=90_000_000 + n, final_blow=n == 0) for n in range(MAX_ENTRIES)
    )
    cargo = tuple(Item(1 + n, 5, 0, 1, None) for n in range(MAX_ENTRIES))
    killmail = replace(made, attackers=pilots, victim=replace(made.victim, items=cargo))
    with db.atomic():
        assert store(killmail, hash_of(1))
    assert load(1) == killmail


def test_what_is_not_stored_is_not_loaded():
    assert load(4711) is None


def test_what_lists_are_filtered_by_is_written_beside_it():
    killmail = make_killmail(1, names=())
    store(killmail, hash_of(1))
    row = StoredKillmail.get_by_id(1)
    assert (row.attacker_count, row.is_npc, row.is_solo) == (2, is_npc(killmail), is_solo(killmail))
    assert (row.killmail_time, row.solar_system_id) == (killmail.killmail_time, killmail.solar_system_id)


def test_every_id_it_names_is_wanted_once():
    store(make_killmail(1, names=()), hash_of(1))
    store(make_killmail(2, names=()), hash_of(2))
    assert names() == {
        30_000_142, 90_000_500, 98_000_001, 587, 2488, 500_010, 24_000, 90_000_900, 98_000_002, 99_000_001, 670, 3467,
        34,
    }  # fmt: skip


def test_a_name_that_is_known_stays_known():
    execute("INSERT INTO names (id, name, updated_at) VALUES (587, 'Rifter', '2026-01-01 00:00:00')")
    store(make_killmail(1), hash_of(1))
    assert execute("SELECT name FROM names WHERE id = 587").fetchone()[0] == "Rifter"


def test_more_rows_than_one_statement_carries():
    killmail = make_killmail(1)
    attackers = tuple(Attacker(n, None, None, None, None, None, n, False, n / 10) for n in range(1, 6001))
    items = tuple(Item(n, 5, 0, n, None) for n in range(1, 8001))
    killmail = replace(killmail, attackers=attackers, victim=replace(killmail.victim, items=items))
    assert store(killmail, hash_of(1))
    assert load(1) == killmail


@pytest.mark.parametrize("quantity", [0, 2**31, INT64_MAX])
def test_large_numbers_survive(quantity):
    killmail = make_killmail(INT64_MAX)
    item = Item(INT64_MAX, 2**31 - 1, 2, quantity, quantity)
    victim = replace(killmail.victim, damage_taken=quantity, items=(item,))
    whole: Killmail = replace(killmail, victim=victim, moon_id=INT64_MAX, war_id=1)
    assert store(whole, hash_of(1))
    assert load(INT64_MAX) == whole
