"""POST /universe/names: one bad id refuses the whole batch (esi/README.md §5), and the errors it costs are few."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from esi.client import Name, NamesFound
from esi.errors import EsiDowntime, EsiNotFound, EsiStatus, EsiTransport
from tests.unit.esi.conftest import RecordingPermit
from tests.unit.esi.raw_server import RawServer, Received, Step, reply

REFUSAL = {"error": "Ensure all IDs are valid before resolving."}


class Universe:
    """Answers like ESI: names for a batch of known ids, a refusal (the 404 that is usual) for any other batch."""

    def __init__(self, server: RawServer, bad: Iterable[int] = (), refusal: Step | None = None) -> None:
        self.refusal = refusal or reply(404, REFUSAL)
        self.bad = frozenset(bad)
        self.permits: list[RecordingPermit] = []
        self.batches: list[list[int]] = []
        server.script(*[self.answer] * 200)

    def answer(self, request: Received) -> Step:
        ids = json.loads(request.body)
        self.batches.append(ids)
        if self.bad & set(ids):
            return self.refusal
        return reply(200, [{"id": id_, "name": f"Name {id_}", "category": "character"} for id_ in ids])

    def acquire(self) -> RecordingPermit:
        self.permits.append(RecordingPermit())
        return self.permits[-1]

    @property
    def refusals(self) -> int:
        return sum(permit.calls == ["answered 404"] for permit in self.permits)


def test_known_ids_are_named_by_one_request(client, server):
    universe = Universe(server)

    found = client.names([3, 1, 2, 3], universe.acquire)

    assert found.unknown == frozenset()
    assert set(found.names) == {Name(id_, f"Name {id_}", "character") for id_ in (1, 2, 3)}
    assert universe.batches == [[1, 2, 3]]
    assert server.last.headers["content-type"] == "application/json"


def test_nothing_asked_is_nothing_sent(client, server):
    universe = Universe(server)

    assert client.names([], universe.acquire) == NamesFound((), frozenset())
    assert universe.permits == []


@pytest.mark.parametrize("bad", [{1}, {500}, {1000}, {17, 18}, {1, 1000}])
def test_bad_ids_are_found_by_halving_and_the_rest_is_named(client, server, bad):
    universe = Universe(server, bad)

    found = client.names(range(1, 1001), universe.acquire)

    assert found.unknown == bad
    assert {name.id for name in found.names} == set(range(1, 1001)) - bad
    assert universe.refusals <= 20
    assert all(len(permit.calls) == 1 for permit in universe.permits)


def test_many_bad_ids_cost_no_more_than_the_bound_and_leave_the_rest_open(client, server):
    universe = Universe(server, range(1, 1001, 10))

    found = client.names(range(1, 1001), universe.acquire)

    assert universe.refusals == 20
    assert found.unknown, "no bad id was pinned down: the next call would get no further"
    assert found.unknown <= universe.bad
    assert {name.id for name in found.names}.isdisjoint(universe.bad)


def test_repeated_calls_settle_every_id(client, server):
    bad = set(range(3, 64, 9))
    universe = Universe(server, bad)
    open_ids, unknown = set(range(1, 65)), set()

    for _ in range(10):
        found = client.names(open_ids, universe.acquire, max_not_found=8)
        unknown |= found.unknown
        open_ids -= found.unknown | {name.id for name in found.names}

    assert (open_ids, unknown) == (set(), bad)


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_odd_id_is_found_whatever_esi_says_about_it(client, server, status):
    universe = Universe(server, {500}, reply(status, {"error": "Something about an id"}))

    found = client.names(range(1, 1001), universe.acquire)

    assert found.unknown == {500}
    assert {name.id for name in found.names} == set(range(1, 1001)) - {500}


def test_a_404_for_everything_makes_no_id_unknown(client, server):
    """What ESI has said during maintenance (esi-issues 1005)."""
    universe = Universe(server, range(1, 101), reply(404, {"error": "Not found"}))

    with pytest.raises(EsiNotFound):
        client.names(range(1, 101), universe.acquire)

    assert universe.refusals <= 20


@pytest.mark.parametrize("status", [500, 520])
@pytest.mark.parametrize("bad", [1, 500, 1000])
def test_an_id_that_esi_fails_at_is_found_at_a_bounded_cost(client, server, bad, status):
    universe = Universe(server, {bad}, reply(status, {"error": "Internal error"}))

    found = client.names(range(1, 1001), universe.acquire)

    assert found.unknown == {bad}
    assert {name.id for name in found.names} == set(range(1, 1001)) - {bad}
    assert sum(permit.calls == [f"answered {status}"] for permit in universe.permits) <= 13
    assert len(universe.permits) <= 25


def test_a_failure_that_passes_halves_nothing(client, server):
    server.script(reply(500), reply(200, [{"id": 1, "name": "One", "category": "faction"}]))

    assert client.names([1, 2], RecordingPermit).names == (Name(1, "One", "faction"),)
    assert len(server.received) == 2


def test_a_failure_for_everything_makes_no_id_unknown(client, server):
    universe = Universe(server, range(1, 1001), reply(500, {"error": "Internal error"}))

    with pytest.raises(EsiStatus):
        client.names(range(1, 1001), universe.acquire)

    assert len(universe.permits) <= 20


@pytest.mark.parametrize("status", [401, 403, 405])
def test_what_is_not_about_the_ids_halves_nothing(client, server, status):
    universe = Universe(server, {1}, reply(status, {"error": "Something else"}))

    with pytest.raises(EsiStatus):
        client.names([1, 2, 3], universe.acquire)

    assert universe.batches == [[1, 2, 3]]


def test_an_error_after_a_success_keeps_what_was_found(client, server):
    server.script(
        reply(404, REFUSAL),
        reply(200, [{"id": 1, "name": "One", "category": "faction"}]),
        reply(503, b"<html>"),
    )

    found = client.names([1, 2], RecordingPermit)

    assert found == NamesFound((Name(1, "One", "faction"),), frozenset())


def test_an_error_before_any_success_is_raised(client, server):
    server.script(reply(404, REFUSAL), reply(503, b"<html>"))

    with pytest.raises(EsiDowntime):
        client.names([1, 2], RecordingPermit)


def test_a_road_that_closes_on_the_way_keeps_what_was_found(client, server):
    universe = Universe(server, {3})
    left = iter(range(3))

    found = client.names([1, 2, 3, 4], lambda: universe.acquire() if next(left, None) is not None else None)

    assert universe.batches == [[1, 2, 3, 4], [1, 2], [3, 4]]
    assert {name.id for name in found.names} == {1, 2}
    assert found.unknown == frozenset()


def test_a_closed_road_is_the_limiters_to_tell(client, server):
    class RoadClosedError(Exception):
        pass

    def acquire() -> RecordingPermit:
        raise RoadClosedError

    with pytest.raises(RoadClosedError):
        client.names([1], acquire)

    assert server.received == []


@pytest.mark.parametrize(
    "entry",
    [
        {"id": 2, "name": "Two", "category": "spaceship"},
        {"id": 2, "name": "Two", "category": ["character"]},
        {"id": 2, "name": "x" * 501, "category": "character"},
        {"id": 2, "name": "", "category": "character"},
        {"id": True, "name": "Two", "category": "character"},
        {"id": 99, "name": "Not asked for", "category": "character"},
        {"name": "Two"},
        {},
        None,
        [],
        "Two",
    ],
)
def test_an_unusable_name_hurts_only_itself(client, server, entry):
    server.script(reply(200, [entry, {"id": 1, "name": "One", "category": "station"}]))

    assert client.names([1, 2], RecordingPermit) == NamesFound((Name(1, "One", "station"),), frozenset(), 1)


def test_a_number_out_of_bounds_hurts_only_its_entry(client, server):
    body = b'[{"id": 1' + b"0" * 30 + b', "name": "Ten", "category": "station"}, '
    server.script(reply(200, body + b'{"id": 1, "name": "One", "category": "station"}]'))

    assert client.names([1, 2], RecordingPermit) == NamesFound((Name(1, "One", "station"),), frozenset(), 1)


@pytest.mark.parametrize("body", [{}, "names", b"<html>"])
def test_what_is_no_list_of_names_is_a_broken_answer(client, server, body):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport):
        client.names([1], RecordingPermit)


@pytest.mark.parametrize("ids", [range(1, 1002), [0], [-1, 5]])
def test_what_esi_would_refuse_is_not_asked(client, server, ids):
    with pytest.raises(ValueError, match="1000 positive ids"):
        client.names(ids, RecordingPermit)

    assert server.received == []
