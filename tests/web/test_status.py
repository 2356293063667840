"""The operator's page: open to anybody, and about nobody."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient

import row_counts
from api import operations, system
from database import from_epoch, insert_rows, utcnow
from esi.limiter import GroupState, Limiter
from esi.rate_limit import CHAR_KILLMAIL
from models import User
from tests.web_app import FakeBackend, make_killmail, make_sync, make_user, name, wait_for_killmail


@pytest.fixture
def roads(app: Flask) -> Iterator[list[GroupState]]:
    """What the limiter says; to be added to before the page is asked for."""
    states: list[GroupState] = []
    app.extensions[system.EXTENSION] = replace(app.extensions[system.EXTENSION], roads=lambda: states)
    return iter([states])


@pytest.fixture
def road_states(roads: Iterator[list[GroupState]]) -> list[GroupState]:
    return next(roads)


def test_it_tells_how_much_there_is_to_do_and_of_nobody(client: FlaskClient) -> None:
    user = make_user(character_name="Somebody")
    make_user(90_000_002, needs_login_reason="refused", next_sync_at=None, character_name="Nobody Else")
    make_killmail(4_242_421, user)
    sync = make_sync(user.id, state="FETCHING")
    wait_for_killmail(sync, 777_777)
    name(96_000_000, "A Stranger")
    text = client.get("/status").text
    for figure in ("<dt>Pending</dt><dd>1</dd>", "<dt>Fetching</dt><dd>1</dd>", "<dt>Needs login</dt><dd>1</dd>"):
        assert figure in text
    assert "esi_killmail_details_queue" in text
    assert "1 is stored" in text
    for secret in ("Somebody", "Nobody Else", "A Stranger", "4242421", "4,242,421", "777777", "777,777", "90000001"):
        assert secret not in text


def test_it_looks_the_same_to_who_is_signed_in(client: FlaskClient, sign_in: Callable[[User], None]) -> None:
    sign_in(make_user(character_name="Somebody"))
    assert "<dt>OK</dt><dd>1</dd>" in client.get("/status").text


def test_a_broker_that_is_away_is_told(client: FlaskClient, backend: FakeBackend) -> None:
    backend.broker_error = ConnectionError("amqp://user:secret@host")
    response = client.get("/status")
    assert response.status_code == 200
    assert "The broker does not answer" in response.text
    assert "secret" not in response.text


def row_of(text: str, name: str) -> list[str]:
    """The cells of a budget's row, as read."""
    row = text.partition(f'<th scope="row">{name}')[2].partition("</tr>")[0]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in cells]


def test_budgets_and_when_they_refill(client: FlaskClient, road_states: list[GroupState]) -> None:
    # Given the bucket of this address, those of five characters, two of them closed, and one that is full
    more_at, full_at = time.time() + 60, time.time() + 600
    road_states += [
        GroupState("killmail", 3600, 3000, None, None, 1, 0, 900, more_at, full_at),
        GroupState("char-killmail", 30, 0, more_at, "used up", 5, 2, 900, more_at, full_at),
        GroupState("status", 600, 600, None, None, 1, 0, 900, None, None),
    ]
    text = client.get("/status").text
    # Then each has its line, the characters' together
    soon, later = (f"{from_epoch(at):%H:%M}" for at in (more_at, full_at))
    closed = f"2 closed, the emptiest until {soon}"
    assert row_of(text, "killmail") == ["1", "3,000 of 3,600", "15 min after use", soon, later, "open"]
    assert row_of(text, "char-killmail") == ["5", "emptiest: 0 of 30", "15 min after use", soon, later, closed]
    assert row_of(text, "status") == ["1", "600 of 600", "15 min after use", "–", "now", "open"]
    assert "an allowance is used up" in text


def test_what_the_limiter_keeps_is_shown_without_its_owners(client: FlaskClient, app: Flask) -> None:
    # Given what was spent for two characters, in the limiter's own rows
    limiter = Limiter(50)
    app.extensions[system.EXTENSION] = replace(app.extensions[system.EXTENSION], roads=limiter.snapshot)
    for owner in ("90000001", "90000002"):
        limiter.acquire(CHAR_KILLMAIL, owner, background=False)
    text = client.get("/status").text
    # Then they are counted, and not told
    assert row_of(text, "char-killmail")[:3] == ["2", "emptiest: 28 of 30", "15 min after use"]
    assert "Every road to ESI is open" in text
    assert "9000000" not in text


def test_closed_gates_are_told(client: FlaskClient, road_states: list[GroupState]) -> None:
    until = time.time() + 600
    road_states.append(GroupState("downtime", None, None, until, "ESI is down"))
    text = client.get("/status").text
    assert f"{from_epoch(until):%H:%M}" in text
    assert "ESI is down" in text
    assert "Every road to ESI is open" not in text


def test_it_is_counted_once_in_a_while(client: FlaskClient, backend: FakeBackend) -> None:
    for _ in range(3):
        client.get("/status")
    assert backend.counted == 1


def test_a_budget_that_is_used_up_is_no_open_road(client: FlaskClient, road_states: list[GroupState]) -> None:
    road_states.append(GroupState("killmail", 3600, 0, time.time() + 300, "ESI's allowance is used up"))
    text = client.get("/status").text
    assert "an allowance is used up" in text
    assert "Every road to ESI is open" not in text


def test_many_rows_are_told_as_counted_last_and_when(client: FlaskClient, app: Flask) -> None:
    # Given more names to ask for than are counted for a page
    now = utcnow()
    insert_rows("names", ("id", "updated_at"), [(each, now) for each in range(1, row_counts.EXACT_ROWS + 2)])
    assert "More than 10,000 names are still to be asked for" in client.get("/status").text
    # When the tick has counted them
    row_counts.recount_if_due()
    del app.extensions[operations.EXTENSION]
    text = " ".join(re.sub(r"<[^>]+>", "", client.get("/status").text).split())
    assert re.search(r"10,001 names are still to be asked for\. \(counted at \d\d:\d\d", text)


def test_a_sample_of_the_buckets_is_told(client: FlaskClient, road_states: list[GroupState]) -> None:
    road_states.append(
        GroupState("char-killmail", 30, 0, None, None, 10_000, 2, 900, None, None, sampled=501, more_buckets=True)
    )
    assert row_of(client.get("/status").text, "char-killmail")[0] == "more than 10,000 (501 looked at)"
