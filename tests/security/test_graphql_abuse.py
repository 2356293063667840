"""Documents made to cost: depth, breadth, aliases, batches, fragments, directives, introspection, and broken JSON.

Costs are counted, not timed: the calls it takes to check a document, and how many bytes of answer a request buys.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from flask.testing import FlaskClient
from graphql import get_introspection_query

from api import limits
from api.execution import InvalidDocumentError, _prepare
from database import insert_rows
from models import Killmail, User
from tests.security.asking import ask, codes, data
from tests.web_app import FakeBackend, make_killmail, make_user

#: Bytes that somebody whom nobody knows may have for one request. GraphiQL's introspection takes about 60 KB.
STRANGERS_SHARE = 256 * 1024
#: Function calls that checking a document may take: a plain one of 450 fields takes about 100,000.
CHECKING = 300_000


def nested(levels: int) -> str:
    return "{ killmails { nodes { items " + "{ items " * levels + "{ flag }" + " }" * levels + " } } }"


def each(count: int, text: str) -> str:
    return " ".join(text.replace("#", str(number)) for number in range(count))


#: What has to be refused as a whole.
TOO_MUCH = {
    "depth": nested(15),
    "depth without lists": "{ __schema { queryType { fields { type { "
    + "ofType { " * 14
    + "name"
    + " }" * 14
    + " } } } } }",
    "depth in fragments": "{ killmails { nodes { items { ...F0 } } } } fragment F15 on Item { flag } "
    + " ".join(f"fragment F{n} on Item {{ items {{ ...F{n + 1} }} }}" for n in range(15)),
    "depth in nameless fragments": "{ me " + "{ ... " * 400 + "{ id }" + " }" * 400 + " }",
    "breadth": "{ me { " + each(501, "a#: id") + " } }",
    "root aliases": "{ " + each(11, "a#: me { id }") + " }",
    "root aliases in a fragment": "{ ...A } fragment A on Query { " + each(11, "a#: me { id }") + " }",
    "root aliases in nameless fragments": "{ " + each(11, "... { a#: me { id } }") + " }",
    "pages": "{ " + each(4, "a#: killmails(first: 100) { nodes { id } }") + " }",
    "pages in fragments": "{ "
    + each(4, "...F#")
    + " } "
    + each(4, "fragment F# on Query { a#: killmails(first: 100) { nodes { id } } }"),
    "a fragment in itself": "{ me { ...A } } fragment A on User { ...A }",
    "fragments in a ring": "{ me { ...A } } fragment A on User { ...B } fragment B on User { ...A }",
    "a bomb of fragments": "{ me { ...F8 } } fragment F0 on User { id } "
    + " ".join(f"fragment F{n} on User {{ {each(10, f'...F{n - 1}')} }}" for n in range(1, 9)),
    "a fragment that nothing spreads": "{ me { id } } fragment A on Query { " + "me { id } " * 9 + "}",
    "a fragment defined twice": "{ ...A } fragment A on Query { x: me { id } } fragment A on Query { me { id } }",
    "a hollow bomb": "{ me { ...F6 } } fragment F0 on User { } "
    + " ".join(f"fragment F{n} on User {{ {each(10, f'...F{n - 1}')} }}" for n in range(1, 7)),
    "directives": "{ me { id " + "@include(if: true) " * 400 + "} }",
    "unknown directives": "{ me { id " + each(400, "@d#") + " } }",
    "the same directive twice": "{ me { id @skip(if: false) @skip(if: false) } }",
    "operations": each(300, "query Q# { me { id } }"),
    "variables": "query(" + each(400, "$v#: Int") + ") { me { id } }",
    "arguments": "{ killmails(" + each(400, "first: 1") + ") { nodes { id } } }",
    "lists in lists": "{ killmails(filter: " + "[" * 900 + "]" * 900 + ") { nodes { id } } }",
    "objects in objects": "{ killmails(filter: " + "{isLoss: " * 600 + "true" + "}" * 600 + ") { nodes { id } } }",
    "types in types": "query($a: " + "[" * 900 + "Int" + "]" * 900 + ") { me { id } }",
    "a type system": each(90, "type A# { a: Int }") + " { me { id } }",
    "braces": "{" * 30_000,
    "an endless name": "{ " + "a" * 60_000 + " }",
    "introspection in circles": "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }",
    "introspection in circles of fragments": "{ __schema { types { ...A } } } fragment A on __Type "
    "{ fields { type { ...B } } } fragment B on __Type { fields { type { fields { name } } } }",
    "possible types": "{ __schema { types { possibleTypes { possibleTypes { possibleTypes { name } } } } } }",
    "__type in circles": '{ __type(name: "Killmail") { fields { type { fields { type { fields { name } } } } } } }',
}


@pytest.mark.parametrize("query", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_a_document_that_asks_for_too_much_is_refused(client: FlaskClient, query: str) -> None:
    response = ask(client, query)
    assert response.status_code == 400
    assert set(codes(response)) == {"BAD_USER_INPUT"}
    assert len(response.data) < 64 * 1024


#: Documents within every count, whose cost must not grow with the square of their length, or with aliases of lists.
SAME_AGAIN = {
    "the same field again and again": "{ killmails { nodes { " + "id " * 450 + "} } }",
    "the same object again and again": "{ killmails { nodes { " + "victim { character { id } } " * 160 + "} } }",
    "the same nesting again": "{ killmails { nodes { " + "items { items { items { flag } } } " * 120 + "} } }",
    "conflicting aliases": "{ killmails { nodes { " + each(225, "a: id a: killmailHash") + " } } }",
    "conflicts across fragments": "{ me { " + each(120, "...F#") + " } } " + each(120, "fragment F# on User { a: id }"),
    "the same object in a fragment that nothing spreads": "{ me { id } } fragment A on Query { "
    + "me { id } " * 480
    + "}",
    "the same object in the first of two fragments": "{ ...A } fragment A on Query { "
    + "me { id } " * 470
    + "} fragment A on Query { me { id } }",
    "the same object in fragments that spread each other": "{ me { id } } fragment A on Query { ...B "
    + "me { id } " * 230
    + "} fragment B on Query { ...A "
    + "me { id } " * 230
    + "}",
    "the same argument again": "{ killmails(" + "first: 1 " * 390 + ") { nodes { id } } }",
    "misspelt": "{ me { " + each(490, "charcterNme#") + " } }",
}


@pytest.mark.parametrize("query", SAME_AGAIN.values(), ids=SAME_AGAIN.keys())
def test_checking_a_document_costs_about_what_reading_it_does(query: str) -> None:
    assert calls_of(lambda: _prepare(query, is_kept=False)) < CHECKING


STRANGERS = {
    "aliases of fields": "{ __schema { types { fields { " + each(240, "a#: description") + " } } } }",
    "aliases of lists": "{ __schema { types { "
    + each(80, "a#: fields { type { fields { type { name kind } } } }")
    + " } } }",
    "root aliases": "{ " + each(10, "a#: __schema { types { fields { name args { name } type { name } } } }") + " }",
}


@pytest.mark.parametrize("query", STRANGERS.values(), ids=STRANGERS.keys())
def test_a_stranger_cannot_buy_a_flood_with_one_request(client: FlaskClient, query: str) -> None:
    assert len(ask(client, query).data) < STRANGERS_SHARE


def test_graphiqls_introspection_and_the_largest_page_are_within_bounds(
    client: FlaskClient, sign_in: Callable[[User], None]
) -> None:
    """Or the refusals above would be worth nothing."""
    introspection = ask(client, get_introspection_query())
    assert "errors" not in introspection.get_json()
    assert len(introspection.data) < STRANGERS_SHARE
    sign_in(make_user())
    party = "character { id name } corporation { id name } alliance { id name } faction { id name }"
    attackers = f"attackers {{ {party} shipType {{ id name }} weaponType {{ id name }} damageDone finalBlow }}"
    item = "type { id name } flag singleton quantityDestroyed quantityDropped"
    everything = f"""{{ killmails(first: 100) {{ totalCount pageInfo {{ hasNextPage endCursor }} nodes {{
        id killmailHash killmailTime solarSystem {{ id name }} moonId warId attackerCount isLoss isNpc isSolo
        victim {{ {party} shipType {{ id name }} damageTaken position {{ x y z }} }} {attackers}
        items {{ {item} items {{ {item} }} }} zkillboardUrl }} }} }}"""
    assert "errors" not in ask(client, everything).get_json()


def test_a_pilot_cannot_have_the_longest_list_many_times_over(
    client: FlaskClient, sign_in: Callable[[User], None]
) -> None:
    """A killmail may have thousands of attackers; sixty aliases of them are sixty times as many."""
    user = make_user()
    sign_in(user)
    make_killmail(1, user, attackers=1500)
    plain = ask(client, "{ killmail(id: 1) { attackers { damageDone character { id } } } }")
    assert "errors" not in plain.get_json()
    aliased = ask(client, "{ killmail(id: 1) { " + each(60, "a#: attackers { damageDone character { id } }") + " } }")
    assert len(aliased.data) < 15 * len(plain.data)


def make_fight(killmail_id: int, viewer: User, attackers: int) -> None:
    """A killmail with so many attackers."""
    make_killmail(killmail_id, viewer, attackers=0)
    columns = ("killmail_id", "ordinal", "damage_done", "final_blow", "security_status")
    insert_rows("attackers", columns, [(killmail_id, each, 1, each == 0, 0.0) for each in range(attackers)])
    Killmail.update(attacker_count=attackers).where(Killmail.killmail_id == killmail_id).execute()


def test_many_large_fights_at_once_are_refused_before_they_are_read(
    client: FlaskClient, sign_in: Callable[[User], None]
) -> None:
    # Given a page of fights
    user = make_user()
    sign_in(user)
    for killmail_id in range(1, 26):
        make_fight(killmail_id, user, 800)
    # When attackers of all of them are asked for, or of many in several pages
    for query in (
        "{ killmails { nodes { id attackers { damageDone } } } }",
        "{ killmails { nodes { id attackers(first: 1) { damageDone } } } }",
        "{ " + each(3, "a#: killmails(first: 5) { nodes { attackers { damageDone } } }") + " }",
    ):
        response = ask(client, query)
        # Then the answer says what to do
        assert set(codes(response)) == {"BAD_USER_INPUT"}
        assert "fewer killmails" in response.get_json()["errors"][0]["message"]
    # And what shows no attackers but the last, or fewer killmails, is answered
    for query in (
        "{ killmails { nodes { id attackerCount finalBlow { damageDone } } } }",
        "{ killmails(first: 5) { nodes { id attackers { damageDone } } } }",
    ):
        assert "errors" not in ask(client, query).get_json()


def test_the_largest_fight_known_is_answered_and_not_four_times(
    client: FlaskClient, sign_in: Callable[[User], None]
) -> None:
    user = make_user()
    sign_in(user)
    make_fight(1, user, 3753)
    whole = "attackers { damageDone } items { flag items { flag } }"
    assert len(data(client, f"{{ killmail(id: 1) {{ {whole} }} }}")["killmail"]["attackers"]) == 3753
    assert set(codes(ask(client, "{ killmail(id: 1) { " + each(4, "a#: attackers { damageDone }") + " } }"))) == {
        "BAD_USER_INPUT"
    }


def test_many_items_at_once_are_refused_too(
    client: FlaskClient, sign_in: Callable[[User], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ROWS", 11)
    user = make_user()
    sign_in(user)
    for killmail_id in (1, 2, 3, 4):
        make_killmail(killmail_id, user)  # with three items each
    assert "errors" not in ask(client, "{ killmail(id: 1) { items { flag items { flag } } } }").get_json()
    for query in (
        "{ killmails { nodes { items { flag } } } }",
        "{ killmails { nodes { value { total } } } }",
        "{ killmail(id: 1) { " + each(4, "a#: items { " + each(4, "b#: items { flag }") + " }") + " } }",
    ):
        assert set(codes(ask(client, query))) == {"BAD_USER_INPUT"}


def test_aliases_do_not_get_round_the_limit_on_mutations(
    client: FlaskClient, sign_in: Callable[[User], None], backend: FakeBackend
) -> None:
    sign_in(make_user())
    for _ in range(10):
        ask(client, "mutation { " + each(10, "a#: syncMyKillmails { queued }") + " }")
    assert len(backend.requests) <= 60


def test_a_batch_is_no_way_round_any_limit(client: FlaskClient, sign_in: Callable[[User], None]) -> None:
    sign_in(make_user())
    for body in ([{"query": "{ me { id } }"}] * 20, [], [[{"query": "{ me { id } }"}]]):
        response = client.post("/graphql", json=body)
        assert (response.status_code, codes(response)) == (400, ["BAD_USER_INPUT"])


#: Bodies that no JSON reader likes. They are the sender's fault, and never ours.
BODIES = {
    "arrays in arrays": b"[" * 60_000,
    "objects in objects": b'{"a":' * 10_000,
    "closed arrays in arrays": b"[" * 30_000 + b"]" * 30_000,
    "deep variables": b'{"query": "{ me { id } }", "variables": ' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}",
    "a long number": b'{"query": "{ me { id } }", "variables": {"a": ' + b"9" * 60_000 + b"}}",
    "bad UTF-8": b'{"query": "\xff\xfe"}',
    "a lone surrogate": b'{"query": "{ \\ud800 }"}',
    "a lone surrogate in a name": b'{"query": "{ me { id } }", "operationName": "\\ud800"}',
    "NUL": b'{"query": "{ me { id } }\\u0000"}',
    "NaN": b'{"query": "{ me { id } }", "variables": {"a": NaN}}'.replace(b"}}", b"}", 1),
    "no object": b"null",
    "nothing": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_no_body_is_our_fault(client: FlaskClient, caplog: pytest.LogCaptureFixture, body: bytes) -> None:
    response = client.post("/graphql", data=body, content_type="application/json")
    assert response.status_code == 400
    assert codes(response) == ["BAD_USER_INPUT"]
    assert caplog.text == ""


@pytest.mark.parametrize("value", [[[[]]], {"a": {"b": 1}}, "\ud800", "x" * 50_000, 2**70, 1e308, True, "\x00"])
@pytest.mark.parametrize(
    "query",
    [
        "query($v: KillmailFilter) { killmails(filter: $v) { nodes { id } } }",
        "query($v: ID!) { killmail(id: $v) { id } }",
        "query($v: Int) { killmails(first: $v) { nodes { id } } }",
        "query($v: String) { killmails(after: $v) { nodes { id } } }",
        "query($v: String) { syncs(after: $v) { nodes { id } } }",
        "query($v: DateTime) { killmails(filter: {from: $v}) { nodes { id } } }",
        "query($v: Boolean) { killmails(filter: {isLoss: $v}) { nodes { id } } }",
        "mutation($v: Boolean) { syncMyKillmails(full: $v) { queued } }",
    ],
)
def test_no_variable_is_our_fault(
    client: FlaskClient, sign_in: Callable[[User], None], caplog: pytest.LogCaptureFixture, query: str, value: Any
) -> None:
    sign_in(make_user())
    body = json.dumps({"query": query, "variables": {"v": value}})
    answer = client.post("/graphql", data=body, content_type="application/json")
    if "errors" in answer.get_json():
        assert set(codes(answer)) == {"BAD_USER_INPUT"}
    assert caplog.text == ""


def calls_of(work: Callable[[], object]) -> int:
    """How many Python functions it takes."""
    count = 0

    def counting(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(counting)
    try:
        work()
    except InvalidDocumentError:
        pass
    finally:
        sys.setprofile(before)
    return count
