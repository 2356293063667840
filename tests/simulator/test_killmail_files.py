"""Worlds of real killmails read from files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulator.killmail_files import load
from simulator.world import true_hash
from tests.conftest import REAL_KILLMAILS


def _write(folder: Path, killmail_id: int, victim: int | None, final_blow: int | None) -> None:
    body: dict[str, Any] = {
        "killmail_id": killmail_id,
        "killmail_time": "2013-05-01T10:00:00Z",
        "solar_system_id": 30005320,
        "victim": {"ship_type_id": 587, "damage_taken": 5, "corporation_id": 98199279},
        "attackers": [{"security_status": 0.1, "final_blow": True, "damage_done": 5}],
    }
    if victim:
        body["victim"]["character_id"] = victim
    if final_blow:
        body["attackers"][0]["character_id"] = final_blow
    (folder / f"{killmail_id}.json").write_text(json.dumps(body | {"killmail_hash": true_hash(body)}))


def test_pilots_cover_as_many_files_as_possible(tmp_path):
    for number, sides in enumerate([(1, 2), (1, 3), (1, 4), (5, 2), (6, 7)]):
        _write(tmp_path, 100 + number, *sides)

    world = load(tmp_path, 2, seed=1)

    assert list(world.pilots) == [1, 2]
    assert world.pilots[2].killmail_ids == {100, 103}
    assert world.pilots[1].killmail_ids == {100, 101, 102, 104}


def test_a_pilot_whose_files_are_covered_already_is_not_chosen(tmp_path):
    for number, sides in enumerate([(1, 2), (1, 2), (1, 2), (3, 4)]):
        _write(tmp_path, 100 + number, *sides)

    assert list(load(tmp_path, 2, seed=1).pilots) == [1, 3]


def test_what_nobody_covers_is_listed_for_the_first_pilot(tmp_path):
    _write(tmp_path, 100, 1, None)
    _write(tmp_path, 101, None, None)

    world = load(tmp_path, 3, seed=1)

    assert list(world.pilots) == [1]
    assert world.pilots[1].killmail_ids == {100, 101}


def test_names_come_from_the_folder_beside_or_are_made_up(tmp_path):
    folder = tmp_path / "killmails"
    folder.mkdir()
    _write(folder, 100, 1, 2)
    (tmp_path / "names").mkdir()
    row = {"id": 1, "category": "character", "name": "Somebody Known"}
    (tmp_path / "names" / "universe_names.json").write_text(json.dumps([row]))

    world = load(folder, 1, seed=1)

    assert world.pilots[1].name == "Somebody Known"
    assert world.names[2] == ("character", "Name 2")


def test_a_folder_without_killmails_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no killmails"):
        load(tmp_path, 3, seed=1)


@pytest.mark.parametrize("items", [None, [{"item_type_id": 34, "flag": 5, "singleton": 0, "items": None}]])
def test_null_items_are_no_items(tmp_path, items):
    _write(tmp_path, 100, 1, 2)
    _change(tmp_path / "100.json", lambda body: body["victim"].update(items=items))

    assert load(tmp_path, 1, seed=1).pilots[1].killmail_ids == {100}


def test_a_pilot_without_a_corporation_is_in_some(tmp_path):
    _write(tmp_path, 100, 1, 2)
    _change(tmp_path / "100.json", lambda body: body["victim"].update(corporation_id=None))

    assert load(tmp_path, 1, seed=1).pilots[1].corporation_id > 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "7",
        lambda text: text.replace('"victim"', '"somebody"'),
        lambda text: text.replace('"victim": {', '"victim": [{').replace('}, "attackers"', '}], "attackers"'),
        lambda text: text.replace('"attackers": [', '"attackers": null, "others": ['),
        lambda text: text.replace("2013-05-01", "yesterday"),
        lambda text: text.replace('"killmail_id": 101', '"killmail_id": "101"'),
        lambda text: text.replace('"killmail_id": 101', '"killmail_id": 100'),
    ],
    ids=[
        "cut off",
        "a list",
        "a number",
        "no victim",
        "many victims",
        "no attackers",
        "no time",
        "no id",
        "seen twice",
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path, spoil):
    _write(tmp_path, 100, 1, 2)
    _write(tmp_path, 101, 1, 2)
    bad = tmp_path / "101.json"
    bad.write_text(spoil(bad.read_text()))

    with pytest.raises(ValueError, match=r"101\.json") as caught:
        load(tmp_path, 1, seed=1)

    assert "\n" not in str(caught.value)


def _change(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


@pytest.mark.real_killmails
def test_real_killmails_are_served_as_they_are(simulate):
    files = {file.stem: json.loads(file.read_text()) for file in REAL_KILLMAILS.glob("*.json")}
    client = simulate(killmails_dir=REAL_KILLMAILS, pilots=3)

    truth = client.truth()
    listed = {one: text for references in truth.values() for one, text in references}

    assert len(listed) == len(files)
    for name, real in list(files.items())[::7]:
        answer = client.killmail([real["killmail_id"], real["killmail_hash"]])
        assert answer.json() | {"killmail_hash": real["killmail_hash"]} == real, name
    pilot = max(truth, key=lambda one: len(truth[one]))
    assert len(client.recent(pilot, client.access(pilot)).json()) == len(truth[pilot])
