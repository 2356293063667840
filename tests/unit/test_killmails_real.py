"""439 real killmails from 2008 to 2026: each is read whole, comes back as it was, and bears out the hash rule."""

import json
from typing import Any

import pytest

from killmails import final_blow, hash_matches, is_npc, item_rows, nest_items, parse_killmail, to_json
from tests.conftest import REAL_KILLMAILS

INDEX = REAL_KILLMAILS.parent / "killmails_index.json"

pytestmark = pytest.mark.real_killmails


@pytest.fixture(scope="module")
def real() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(entry of the index, body as ESI served it) of each."""
    index = json.loads(INDEX.read_text("utf-8"))["killmails"]
    bodies = [json.loads((REAL_KILLMAILS / entry["file"]).read_text("utf-8")) for entry in index]
    for body in bodies:
        del body["killmail_hash"]  # added by the collection; ESI serves none
    return list(zip(index, bodies, strict=True))


def test_all_are_there(real):
    assert len(real) == 439


def test_each_comes_back_as_it_was(real):
    for entry, body in real:
        written = to_json(parse_killmail(body))
        # Ten older ones were collected without the victim's (empty) items; ESI writes them always.
        body["victim"].setdefault("items", [])
        assert written == body, entry["file"]


def test_each_bears_out_the_hash_rule(real):
    sources = set()
    for entry, body in real:
        assert hash_matches(parse_killmail(body), entry["killmail_hash"]), entry["file"]
        sources.add(entry["hash_source"])
    assert "published+verified" in sources


def test_what_the_index_counts_is_what_we_read(real):
    for entry, body in real:
        killmail = parse_killmail(body)
        containers = sum(bool(item.items) for item in killmail.victim.items)
        read = (len(killmail.attackers), len(killmail.victim.items), containers)
        assert read == (entry["attackers"], entry["items"], entry["nested_items"]), entry["file"]
        assert (killmail.war_id, killmail.moon_id) == (entry["war_id"], entry["moon_id"])
        assert (killmail.victim.position is not None) is entry["has_position"]
        assert killmail.victim.character_id == entry["victim_character_id"]


def test_structures_that_shot_without_a_pilot_are_no_npcs(real):
    """The index has those without a pilot: an Astrahus and a control tower of players shot by themselves."""
    without_pilot = {entry["killmail_id"] for entry, _ in real if entry["npc_only"]}
    npc = {entry["killmail_id"] for entry, body in real if is_npc(parse_killmail(body))}
    assert npc < without_pilot
    assert without_pilot - npc == {4289452, 132462203}


def test_all_but_one_have_a_final_blow(real):
    without = [entry["killmail_id"] for entry, body in real if final_blow(parse_killmail(body)) is None]
    assert len(without) == 1


def test_the_items_of_each_survive_as_rows(real):
    for entry, body in real:
        killmail = parse_killmail(body)
        rows = list(item_rows(killmail))
        assert [ordinal for ordinal, _, _ in rows] == list(range(len(rows)))
        assert nest_items(rows) == killmail.victim.items, entry["file"]
