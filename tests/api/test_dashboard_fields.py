"""What the dashboard asks of the API beyond the contract's fields."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from flask.testing import FlaskClient

import prices
from api import security
from database import utcnow
from models import User
from tests.web_app import make_killmail, make_sync, make_user, secure, wait_for_killmail

QUERY = """
{
  me { coolDownEndsAt }
  syncs { nodes { phase summary progress pages pagesRead failures { count reason retryAt } } }
  killmails { nodes { securityStatus value { destroyed dropped total unpriced unpricedStacks pricedAt } } }
}
"""


def test_they_are_all_there(client: FlaskClient, sign_in: Callable[[User], None]) -> None:
    # Given a pilot in cool-down with a sync under way, a killmail given up, and one stored in wormhole space
    synced_at = utcnow().replace(microsecond=0)
    user = make_user(last_killmail_sync_at=synced_at)
    sign_in(user)
    sync = make_sync(user.id, state="FETCHING", found=2, pages=1, next_page=2)
    wait_for_killmail(sync, 9, state="rejected", attempts=1, last_error="no such killmail")
    make_killmail(1, user, solar_system_id=31_000_001)
    secure(31_000_001, -0.99)
    prices.ask()
    prices.save({587: 100.0, 34: 1.0, 35: 1.0})
    # When everything is asked for
    data = client.post("/graphql", json={"query": QUERY}).get_json()["data"]
    # Then it is there
    assert data["me"]["coolDownEndsAt"] == f"{synced_at + timedelta(minutes=15):%Y-%m-%dT%H:%M:%SZ}"
    (node,) = data["syncs"]["nodes"]
    assert node["progress"] == pytest.approx(1.0)
    assert {**node, "progress": None} == {
        "phase": "FETCHING",
        "summary": "Fetching 2 of 2",
        "progress": None,
        "pages": 1,
        "pagesRead": 1,
        "failures": [{"count": 1, "reason": "no such killmail", "retryAt": None}],
    }
    (killmail,) = data["killmails"]["nodes"]
    assert killmail["securityStatus"] == -1.0
    value = {**killmail["value"], "pricedAt": None}
    assert value == {
        "destroyed": 103.0,
        "dropped": 5e9,
        "total": 5e9 + 103,
        "unpriced": 1,
        "unpricedStacks": 1,
        "pricedAt": None,
    }


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        (0.9459131360054016, 0.9),
        (0.45, 0.5),
        (0.4499, 0.4),
        (0.05, 0.1),
        (0.0001, 0.1),
        (0.0, 0.0),
        (-0.04, 0.0),
        (-0.385, -0.4),
        (-0.99, -1.0),
        (1.0, 1.0),
    ],
)
def test_security_as_the_game_shows_it(exact: float, shown: float) -> None:
    assert str(security.shown(exact)) == str(shown), "-0.0 is not 0.0"


@pytest.mark.parametrize("system", [None, (30_000_142, None), (30_000_144, 0.9)])
def test_security_that_is_not_known_is_null(
    client: FlaskClient, sign_in: Callable[[User], None], system: tuple[int, float | None] | None
) -> None:
    user = make_user()
    sign_in(user)
    make_killmail(1, user, solar_system_id=30_000_142)
    if system is not None:
        secure(*system)
    data = client.post("/graphql", json={"query": "{ killmail(id: 1) { securityStatus } }"}).get_json()["data"]
    assert data == {"killmail": {"securityStatus": None}}
