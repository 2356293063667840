"""Cursors of the API: pages put together are the whole list, whatever their sizes, and no text breaks them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

import database
from api import killmails, syncs
from api.errors import BadUserInput
from api.pages import MAX_PAGE, decode_cursor, encode_cursor
from models import SyncState, User
from tests.properties.budget import budget
from tests.properties.table import wipe
from tests.web_app import make_killmail, make_sync, make_user

LISTS = {"killmails": killmails.CURSOR, "syncs": syncs.CURSOR}

ids = st.integers(1, 60)
sizes = st.lists(st.integers(1, 8) | st.just(MAX_PAGE), min_size=1, max_size=6)
garbage = (
    st.text(max_size=20)
    | st.binary(max_size=20).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
    | st.from_regex(r"(killmail|sync|user|):?-?[0-9]{0,25} ?", fullmatch=True).map(
        lambda text: base64.urlsafe_b64encode(text.encode()).decode()
    )
)


@pytest.fixture
def viewer(sign_in: Callable[[User], None], client: FlaskClient) -> Callable[[], User]:
    """A pilot who has just signed in, in a database that holds nothing else."""

    def sign_up() -> User:
        with database.db.connection_context():
            wipe()
            user = make_user()
        sign_in(user)
        return user

    return sign_up


def ask(client: FlaskClient, listed: str, **variables: Any) -> Any:
    query = f"""query($first: Int, $after: String) {{ {listed}(first: $first, after: $after) {{
        edges {{ cursor node {{ id }} }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"""
    return client.post("/graphql", json={"query": query, "variables": variables}).get_json()


def walk(client: FlaskClient, listed: str, page_sizes: list[int], between: Callable[[int], None]) -> list[int]:
    """All pages, one after the other; `between` is told which page comes next."""
    walked: list[int] = []
    after = None
    for number, first in enumerate(cycle(page_sizes)):
        between(number)
        page = ask(client, listed, first=first, after=after)["data"][listed]
        info, edges = page["pageInfo"], page["edges"]
        assert len(edges) <= first
        assert edges or after is None, "a next page that was promised is there"
        assert info["hasPreviousPage"] == (after is not None)
        assert (info["startCursor"], info["endCursor"]) == (
            (edges[0]["cursor"], edges[-1]["cursor"]) if edges else (None, None)
        )
        walked += [int(edge["node"]["id"]) for edge in edges]
        if not info["hasNextPage"]:
            return walked
        assert len(edges) == first, "only the last page may be short"
        after = info["endCursor"]
    raise AssertionError("unreachable")


@given(there=st.sets(ids, max_size=25), come=st.dictionaries(st.integers(0, 8), ids, max_size=6), page_sizes=sizes)
@budget(examples=40)
def test_pages_put_together_are_the_whole_list_while_new_killmails_come(client, viewer, there, come, page_sizes):
    user = viewer()
    other = User.create(character_id=1, character_name="Other", owner_hash="owner")
    listed = set(there)
    for killmail_id in there:
        make_killmail(killmail_id, user, attackers=0)
    make_killmail(77, other, attackers=0)

    def between(page: int) -> None:
        new = come.get(page)
        if new is not None and new not in listed:
            listed.add(new)
            make_killmail(new, user, attackers=0)

    walked = walk(client, "killmails", page_sizes, between)
    # Nothing twice, newest first, nothing of another's, and all that was there from the beginning
    assert walked == sorted(set(walked), reverse=True)
    assert there <= set(walked) <= listed
    # And once nothing comes any more, the pages are the list, in both directions
    assert walk(client, "killmails", page_sizes, lambda _page: None) == sorted(listed, reverse=True)
    assert walk_back(user, page_sizes) == sorted(listed)


def walk_back(user: User, page_sizes: list[int]) -> list[int]:
    walked: list[int] = []
    at = 0
    for first in cycle(page_sizes):
        page = killmails.newer_page_of(user, killmails.Filter(), first, at, frozenset())
        walked += [view.id for view in page.nodes][::-1]
        if not page.page_info.has_next_page:
            return walked
        at = decode_cursor(killmails.CURSOR, page.edges[0].cursor)
    raise AssertionError("unreachable")


@given(count=st.integers(0, 15), new=st.integers(0, 4), page_sizes=sizes)
@budget(examples=20)
def test_syncs_put_together_are_all_my_syncs(client, viewer, count, new, page_sizes):
    user = viewer()
    mine: list[int] = []

    def make(_page: int = 0) -> None:
        mine.append(make_sync(user.id, state=SyncState.FINISHED, finished_at=database.utcnow()).id)

    for _ in range(count):
        make()
    before = list(mine)
    walked = walk(client, "syncs", page_sizes, lambda page: make() if page and page <= new else None)
    assert walked == sorted(before, reverse=True)


@given(listed=st.sampled_from(sorted(LISTS)), after=garbage)
@example(listed="killmails", after="")
@example(listed="syncs", after=encode_cursor("killmail", 1))
@example(listed="killmails", after=encode_cursor("killmail", 2**63))
@example(listed="killmails", after=encode_cursor("killmail", 1) + "\n")
@example(listed="killmails", after="\ud800")
@example(listed="killmails", after="\x00")
@budget(examples=150)
def test_a_cursor_that_we_did_not_hand_out_is_the_clients_error(client, viewer, listed, after):
    viewer()
    answer = ask(client, listed, first=5, after=after)
    if ours(LISTS[listed], after):
        assert "errors" not in answer
    else:
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_USER_INPUT"]


def ours(kind: str, cursor: str) -> bool:
    """Decided by listing: whether some id's cursor reads the same, but for what base64 leaves open at its end."""
    try:
        return (
            1 <= decode_cursor(kind, cursor) < 2**63
            and cursor.rstrip("=")[:-1] == encode_cursor(kind, decode_cursor(kind, cursor))[:-1]
        )
    except BadUserInput:
        return False


@given(kind=st.sampled_from(sorted(LISTS.values())), node_id=st.integers(1, 2**63 - 1))
@budget(examples=100)
def test_a_cursor_leads_back_to_where_it_was_made(kind, node_id):
    assert decode_cursor(kind, encode_cursor(kind, node_id)) == node_id
    other = next(other for other in LISTS.values() if other != kind)
    with pytest.raises(BadUserInput):
        decode_cursor(other, encode_cursor(kind, node_id))


@given(text=garbage)
@budget(examples=300)
def test_a_cursor_is_an_id_or_refused_and_nothing_else_happens(text):
    try:
        assert 1 <= decode_cursor("killmail", text) < 2**63
    except BadUserInput as refusal:
        assert text not in str(refusal) or len(text) < 3
