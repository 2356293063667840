"""Bodies that are no killmails: each is refused with the path of the field and the fault, whatever is wrong with it."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from killmails import INT64_MAX, MAX_ENTRIES, MalformedKillmail, item_rows, parse_killmail

BODY = Path(__file__).resolve().parents[1] / "fixtures" / "killmails" / "nested_items.json"


def nested_items() -> dict[str, Any]:
    """A sound body: one attacker, three items, two of them with something in them."""
    body: dict[str, Any] = json.loads(BODY.read_text("utf-8"))
    return body


def altered(path: list[str | int], value: Any) -> dict[str, Any]:
    """The body with one field set, or deleted for `...`."""
    body = nested_items()
    inner: Any = body
    for step in path[:-1]:
        inner = inner[step]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return body


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("2026-07-23T14:07:33", "expected a UTC time"),
        ("2026-07-23 14:07:33Z", "expected a UTC time"),
        ("2026-07-23T14:07:33+02:00", "expected a UTC time"),
        ("2026-07-23T14:07:33Z\n", "expected a UTC time"),
        ("٢٠٢٦-07-23T14:07:33Z", "expected a UTC time"),
        ("2026-07-23", "expected a UTC time"),
        ("", "expected a UTC time"),
        ("2026-02-30T00:00:00Z", "no such date or time"),
        ("2026-07-23T24:61:00Z", "no such date or time"),
        ("0000-01-01T00:00:00Z", "no such date or time"),
    ],
)
def test_other_times_are_refused(text, problem):
    with pytest.raises(MalformedKillmail, match=f"^killmail_time: {problem}"):
        parse_killmail(altered(["killmail_time"], text))


NESTED: list[str | int] = ["victim", "items", 0, "items", 1]
IN_NESTED = "victim.items[0].items[1]"
ID_RANGE = "expected an integer from 1 to 9223372036854775807"
#: Also of an id that may be absent: 0 is as good as that.
COUNT_RANGE = "expected an integer from 0 to 9223372036854775807"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["killmail_id"], ..., "killmail_id: missing"),
        (["killmail_time"], ..., "killmail_time: missing"),
        (["solar_system_id"], ..., "solar_system_id: missing"),
        (["victim"], ..., "victim: missing"),
        (["attackers"], ..., "attackers: missing"),
        (["victim", "ship_type_id"], ..., "victim.ship_type_id: missing"),
        (["victim", "damage_taken"], ..., "victim.damage_taken: missing"),
        (["victim", "position", "y"], ..., "victim.position.y: missing"),
        (["attackers", 0, "final_blow"], ..., "attackers[0].final_blow: missing"),
        (["attackers", 0, "damage_done"], ..., "attackers[0].damage_done: missing"),
        (["attackers", 0, "security_status"], ..., "attackers[0].security_status: missing"),
        ([*NESTED, "item_type_id"], ..., f"{IN_NESTED}.item_type_id: missing"),
        ([*NESTED, "flag"], ..., f"{IN_NESTED}.flag: missing"),
        ([*NESTED, "singleton"], ..., f"{IN_NESTED}.singleton: missing"),
        (["killmail_id"], None, "killmail_id: expected an integer, got null"),
        (["killmail_id"], 1.0, "killmail_id: expected an integer, got a number"),
        (["killmail_id"], True, "killmail_id: expected an integer, got a boolean"),
        (["killmail_id"], 0, f"killmail_id: {ID_RANGE}"),
        (["killmail_id"], INT64_MAX + 1, f"killmail_id: {ID_RANGE}"),
        (["solar_system_id"], -1, f"solar_system_id: {ID_RANGE}"),
        (["moon_id"], -1, f"moon_id: {COUNT_RANGE}"),
        (["war_id"], "7", "war_id: expected an integer, got a string"),
        (["killmail_time"], 5, "killmail_time: expected a UTC time like 2026-07-23T14:07:33Z, got an integer"),
        (["victim"], None, "victim: expected an object, got null"),
        (["victim"], [], "victim: expected an object, got a list"),
        (["victim", "character_id"], 10**400, f"victim.character_id: {COUNT_RANGE}"),
        (["victim", "corporation_id"], True, "victim.corporation_id: expected an integer, got a boolean"),
        (["victim", "alliance_id"], {}, "victim.alliance_id: expected an integer, got an object"),
        (["victim", "faction_id"], -5, f"victim.faction_id: {COUNT_RANGE}"),
        (["victim", "damage_taken"], -1, f"victim.damage_taken: {COUNT_RANGE}"),
        (["victim", "position"], 3, "victim.position: expected an object, got an integer"),
        (["victim", "position", "x"], "far", "victim.position.x: expected a finite number, got a string"),
        (
            ["victim", "position", "z"],
            float("inf"),
            "victim.position.z: expected a finite number, got a number that is not finite",
        ),
        (["victim", "position", "x"], 10**400, "victim.position.x: expected a finite number, got an integer"),
        (["victim", "items"], {}, "victim.items: expected a list, got an object"),
        (["victim", "items"], 0, "victim.items: expected a list, got an integer"),
        (["victim", "items", 1], None, "victim.items[1]: expected an object, got null"),
        (["victim", "items", 2, "flag"], 2**31, "victim.items[2].flag: expected an integer from 0 to 2147483647"),
        ([*NESTED, "quantity_destroyed"], -1, f"{IN_NESTED}.quantity_destroyed: {COUNT_RANGE}"),
        ([*NESTED, "quantity_dropped"], 0.5, f"{IN_NESTED}.quantity_dropped: expected an integer, got a number"),
        (["attackers"], "many", "attackers: expected a list, got a string"),
        (["attackers", 0], 7, "attackers[0]: expected an object, got an integer"),
        (["attackers", 0, "final_blow"], 1, "attackers[0].final_blow: expected a boolean, got an integer"),
        (["attackers", 0, "final_blow"], None, "attackers[0].final_blow: expected a boolean, got null"),
        (["attackers", 0, "damage_done"], "12", "attackers[0].damage_done: expected an integer, got a string"),
        (["attackers", 0, "ship_type_id"], -1, f"attackers[0].ship_type_id: {COUNT_RANGE}"),
        (["attackers", 0, "weapon_type_id"], [], "attackers[0].weapon_type_id: expected an integer, got a list"),
        (
            ["attackers", 0, "security_status"],
            True,
            "attackers[0].security_status: expected a finite number, got a boolean",
        ),
        (
            ["attackers", 0, "security_status"],
            float("nan"),
            "attackers[0].security_status: expected a finite number, got a number that is not finite",
        ),
    ],
)  # fmt: skip
def test_a_refusal_names_the_field_and_the_fault(path, value, message):
    with pytest.raises(MalformedKillmail) as refusal:
        parse_killmail(altered(path, value))
    assert str(refusal.value) == message


def test_the_index_of_a_refusal_is_that_of_the_broken_entry():
    body = nested_items()
    body["attackers"] = [copy.deepcopy(body["attackers"][0]) for _ in range(5)]
    body["attackers"][3]["damage_done"] = "much"
    with pytest.raises(MalformedKillmail) as refusal:
        parse_killmail(body)
    assert refusal.value.path == "attackers[3].damage_done"
    assert refusal.value.problem == "expected an integer, got a string"


@pytest.mark.parametrize("body", [None, [], "killmail", 7, True])
def test_what_is_no_object_is_no_killmail(body):
    with pytest.raises(MalformedKillmail, match=r"^killmail: expected an object, got "):
        parse_killmail(body)


def test_a_refusal_tells_no_value_and_survives_pickling():
    with pytest.raises(MalformedKillmail) as refusal:
        parse_killmail(altered(["victim", "character_id"], "4c77ad"))
    assert "4c77ad" not in str(refusal.value)
    again = pickle.loads(pickle.dumps(refusal.value))
    assert str(again) == str(refusal.value) == "victim.character_id: expected an integer, got a string"


def nested(levels: int) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    for _ in range(levels):
        items = [{"item_type_id": 17366, "flag": 5, "singleton": 0, "items": items}]
    return items


def test_items_may_nest_eight_levels_deep():
    killmail = parse_killmail(altered(["victim", "items"], nested(8)))
    assert [(row[0], row[1]) for row in item_rows(killmail)] == [(0, None), *((n, n - 1) for n in range(1, 8))]


@pytest.mark.parametrize("levels", [9, 5000])
def test_items_nested_deeper_are_refused_and_no_stack_overflows(levels):
    with pytest.raises(MalformedKillmail) as refusal:
        parse_killmail(altered(["victim", "items"], nested(levels)))
    assert str(refusal.value) == f"victim{'.items[0]' * 8}.items: nested deeper than 8 levels"


@pytest.mark.parametrize(("field", "path"), [("attackers", ["attackers"]), ("victim.items", ["victim", "items"])])
def test_lists_are_bounded(field, path):
    one = nested_items()
    for step in path:
        one = one[step]
    entry = one[0]  # type: ignore[index]
    # Given a list as long as ESI allows, it is read
    parse_killmail(altered(path, [entry] * MAX_ENTRIES))
    # When there is one more, Then it is refused by name
    with pytest.raises(MalformedKillmail, match=f"^{field}: more than 100000 entries$"):
        parse_killmail(altered(path, [entry] * (MAX_ENTRIES + 1)))
