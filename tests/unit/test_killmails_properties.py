"""Killmails nobody thought of: whatever can be written is read back, and nothing but MalformedKillmail is raised."""

import copy
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from killmails import (
    INT64_MAX,
    MAX_ITEM_LEVELS,
    Attacker,
    Item,
    Killmail,
    MalformedKillmail,
    Position,
    Victim,
    expected_hash,
    final_blow,
    is_npc,
    is_solo,
    item_rows,
    nest_items,
    parse_killmail,
    to_json,
)

FOLDER = Path(__file__).resolve().parents[1] / "fixtures" / "killmails"
BODIES = [json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))]

same_every_time = settings(derandomize=True, deadline=None, max_examples=150)

ids = st.integers(1, INT64_MAX)
maybe_ids = st.none() | ids
counts = st.integers(0, INT64_MAX)
small = st.integers(0, 2**31 - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)


def items(levels: int) -> st.SearchStrategy[tuple[Item, ...]]:
    """Items nested at most so many levels deep."""
    if levels == 0:
        return st.just(())
    one = st.builds(
        Item, ids, small, small, st.none() | counts, st.none() | counts, st.deferred(lambda: items(levels - 1))
    )
    return st.lists(one, max_size=3).map(tuple)


parties = (maybe_ids, maybe_ids, maybe_ids, maybe_ids)
victims = st.builds(Victim, *parties, ids, counts, st.none() | st.builds(Position, doubles, doubles, doubles), items(4))
attackers = st.builds(Attacker, *parties, maybe_ids, maybe_ids, counts, st.booleans(), doubles)
times = st.datetimes(datetime(2003, 5, 6), datetime(2100, 1, 1))
made = st.builds(Killmail, ids, times, ids, maybe_ids, maybe_ids, victims, st.lists(attackers, max_size=4).map(tuple))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(made)
@same_every_time
def test_what_is_written_is_read_back_the_same(killmail):
    assert parse_killmail(json.loads(json.dumps(to_json(killmail)))) == killmail


@given(made)
@same_every_time
def test_rows_are_a_whole_picture_of_the_items(killmail):
    rows = list(item_rows(killmail))
    assert all(parent is None or parent < ordinal for ordinal, parent, _ in rows)
    assert nest_items(rows) == killmail.victim.items


@given(st.integers(1, MAX_ITEM_LEVELS))
@settings(derandomize=True, deadline=None)
def test_a_chain_of_containers_survives_as_rows(levels):
    content: tuple[Item, ...] = ()
    for level in range(levels):
        content = (Item(level + 1, 5, 0, items=content),)
    killmail = Killmail(1, datetime(2026, 1, 1), 1, None, None, Victim(1, 1, None, None, 1, 0, None, content), ())
    assert nest_items(item_rows(killmail)) == content
    assert parse_killmail(to_json(killmail)) == killmail


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of each value inside a JSON value."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [place for step, part in inner for place in ((*path, step), *places(part, (*path, step)))]


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A body of a fixture after one to three changes: a value replaced, or a field taken away."""
    body = copy.deepcopy(draw(st.sampled_from(BODIES)))
    for _ in range(draw(st.integers(1, 3))):
        everywhere = places(body)
        if not everywhere:
            break
        *way, last = draw(st.sampled_from(everywhere))
        inner: Any = body
        for step in way:
            inner = inner[step]
        if isinstance(inner, dict) and draw(st.booleans()):
            del inner[last]
        else:
            inner[last] = draw(json_values)
    return body


def read_or_refuse(body: Any) -> bool:
    """Whether it was read. A killmail that was read must be fit for all that is done with one."""
    try:
        killmail = parse_killmail(body)
    except MalformedKillmail as error:
        assert error.problem
        assert len(str(error)) < 300
        return False
    assert parse_killmail(to_json(killmail)) == killmail
    assert len(expected_hash(killmail)) == 40
    assert not (is_npc(killmail) and is_solo(killmail))
    final_blow(killmail)
    return True


@given(mutated())
@settings(derandomize=True, deadline=None, max_examples=600)
def test_a_damaged_body_is_read_or_refused_and_nothing_else(body):
    read_or_refuse(body)


@given(json_values)
@same_every_time
def test_any_json_is_read_or_refused(body):
    assert not read_or_refuse(body)
