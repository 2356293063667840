"""Rows edited by hand into states that no code of ours writes: refused by the schema, or lived with.

A running system is edited under its feet. Whatever is wrong with one row, the system works on, and what can be had
from ESI is had again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peewee
import pytest
from flask.testing import FlaskClient
from peewee import Database

from database import execute
from models import User
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import wait_until
from tests.security.asking import ask
from tests.web_app import make_killmail, make_sync, make_user, wait_for_killmail

#: What the schema itself refuses.
REFUSED = [
    "UPDATE syncs SET state = 'NONSENSE'",
    "UPDATE syncs SET state = 'FINISHED'",
    "UPDATE syncs SET finished_at = '2026-01-01 00:00:00'",
    "UPDATE syncs SET priority = 11",
    "UPDATE syncs SET \"trigger\" = 'NOBODY'",
    "UPDATE syncs SET user_id = NULL",
    "UPDATE syncs SET user_id = 999999",
    'INSERT INTO syncs (user_id, "trigger", priority, "full", state, next_page, found, skipped, saved, failed,'
    " attempts, queued_at) SELECT user_id, 'WEB', 8, \"full\", 'QUEUED', 1, 0, 0, 0, 0, 0, queued_at FROM syncs",
    "UPDATE ledger SET state = 'lost'",
    "UPDATE ledger SET priority = -1",
    "UPDATE ledger SET killmail_hash = NULL",
    "UPDATE users SET character_id = NULL",
    "INSERT INTO users SELECT * FROM users",
    "INSERT INTO killmails SELECT * FROM killmails",
    "DELETE FROM killmails; INSERT INTO victims (killmail_id, ship_type_id, damage_taken) VALUES (1, 1, 1)",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_what_the_schema_refuses(sqlite_db: Database, statement: str) -> None:
    user = make_user()
    make_killmail(1, user)
    wait_for_killmail(make_sync(user.id), 2)
    with pytest.raises(peewee.PeeweeException):
        for each in statement.split("; "):
            execute(each)


#: What is wrong with one killmail, which stands between two good ones.
ODD_KILLMAILS = {
    "an item in nothing": "UPDATE killmail_items SET parent_ordinal = 99 WHERE killmail_id = 2 AND ordinal = 2",
    "an item in itself": "UPDATE killmail_items SET parent_ordinal = ordinal WHERE killmail_id = 2",
    "items in each other": "UPDATE killmail_items SET parent_ordinal = 2 - ordinal WHERE killmail_id = 2",
    "no victim": "DELETE FROM victims WHERE killmail_id = 2",
    "no attackers": "DELETE FROM attackers WHERE killmail_id = 2",
    "two final blows": "UPDATE attackers SET final_blow = 1 WHERE killmail_id = 2",
    "half a position": "UPDATE victims SET position_x = 1.0 WHERE killmail_id = 2",
    "no hash": "UPDATE killmails SET killmail_hash = '' WHERE killmail_id = 2",
    "a negative id": "UPDATE victims SET ship_type_id = -1 WHERE killmail_id = 2",
    "a name that is empty": "INSERT INTO names (id, name, updated_at) VALUES (587, '', '2026-01-01 00:00:00')",
}


@pytest.mark.parametrize("statement", ODD_KILLMAILS.values(), ids=ODD_KILLMAILS.keys())
def test_one_odd_killmail_spoils_no_page(
    client: FlaskClient, sign_in: Callable[[User], None], caplog: pytest.LogCaptureFixture, statement: str
) -> None:
    user = make_user()
    sign_in(user)
    for killmail_id in (1, 2, 3):
        make_killmail(killmail_id, user, attackers=2)
    execute(statement)
    party = "character { id name } shipType { id name }"
    killmail = f"""id killmailHash victim {{ shipType {{ name }} position {{ x y z }} }} attackers {{ {party} }}
        finalBlow {{ {party} }} items {{ flag items {{ flag }} }}"""
    answer = ask(client, f"{{ killmails {{ nodes {{ {killmail} }} }} }}").get_json()
    shown = {node["id"] for node in (answer["data"] or {"killmails": {"nodes": []}})["killmails"]["nodes"]}
    assert {"1", "3"} <= shown, answer
    assert client.get("/").status_code == 200
    assert "Traceback" not in caplog.text


FOR_EVER = "2999-01-01 00:00:00"
UNCLAIMED = "claimed_until = NULL, sent_at = NULL WHERE finished_at IS NULL"

#: What is wrong with the bookkeeping of a running system. Each row stops nothing for longer than the tick takes.
ODD_BOOKKEEPING = {
    "sent to nobody": "UPDATE ledger SET state = 'sent', claimed_until = NULL",
    "fetched by nobody": "UPDATE ledger SET state = 'fetching', claimed_until = NULL",
    "put off for no time": "UPDATE ledger SET state = 'deferred', not_before = NULL, attempts = 1",
    "pending with a claim": "UPDATE ledger SET state = 'pending', claimed_until = '2999-01-01 00:00:00'",
    "a negative number of attempts": "UPDATE ledger SET attempts = -5",
    "items that nothing is known of": "DELETE FROM ledger",
    "a sync that lists and was never claimed": f"UPDATE syncs SET state = 'LISTING', {UNCLAIMED}",
    "a sync on page 0": "UPDATE syncs SET next_page = 0 WHERE finished_at IS NULL",
    "a sync behind the last page": f"UPDATE syncs SET state = 'LISTING', next_page = 40, {UNCLAIMED}",
    "a sync that waits without end": f"UPDATE syncs SET waiting_until = '{FOR_EVER}' WHERE finished_at IS NULL",
    "a refresh without end": "UPDATE users SET refresh_claimed_until = '2026-01-01 00:00:00', expires_at = NULL",
    "a token that is none": "UPDATE users SET access_token = 'garbage', expires_at = '2026-01-01 00:00:00'",
    "a token without its expiry": "UPDATE users SET expires_at = NULL",
    "no dispatcher's lock": "DELETE FROM locks WHERE name = 'dispatch'",
    "a wake-up that never comes": "UPDATE locks SET wake_at = '2999-01-01 00:00:00'",
    "a slot in a thousand years": "UPDATE rate_slots SET next_at = 33000000000.0",
    "no slots": "DELETE FROM rate_slots",
    "spends that are no spends": "UPDATE rate_buckets SET spends = 'garbage;;1:x'",
    "a bucket of nothing": "UPDATE rate_buckets SET allowance = 0, window_seconds = 0",
    "a bucket closed for a thousand years": "UPDATE rate_buckets SET closed_until = 33000000000.0",
    "a gate closed for a thousand years": "INSERT INTO gates (name, closed_until, reason, failures)"
    " VALUES ('downtime', 33000000000.0, 'x', 9) ON CONFLICT (name) DO UPDATE SET closed_until = 33000000000.0",
    "a gate that opens soon": "INSERT INTO gates (name, closed_until, reason, failures)"
    " VALUES ('downtime', 'soon', 'x', 'many') ON CONFLICT (name) DO UPDATE SET closed_until = 'soon'",
    "a bucket that opens soon": "UPDATE rate_buckets SET closed_until = 'soon'",
    "a hash that is none": "UPDATE ledger SET killmail_hash = 'zz'",
    "an unknown gate": "INSERT INTO gates (name, closed_until, reason, failures) VALUES ('x', 33000000000.0, 'x', 9)",
}

SIMULATOR = (
    "--pilots", "60", "--killmails-count", "600", "--shared", "0", "--cache-seconds", "0", "--attackers", "2",
    "--items", "1", "--limit", "char-killmail=1000/1m", "--limit", "killmail=100000/1m", "--latency-ms", "30-60",
)  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("rows")
    with cluster(directory, f"sqlite:///{directory}/killmails.db", "", *SIMULATOR) as running:
        running.start_web()
        yield running


@pytest.fixture(scope="module")
def pilots(system: Cluster) -> Iterator[tuple[int, Browser]]:
    return iter([(pilot, browser_at(system, number)) for number, pilot in enumerate(sorted(system.simulated.truth()))])


def browser_at(system: Cluster, number: int) -> Browser:
    """A browser behind a proxy, at an address of its own: logins are limited by address."""
    browser = system.browser()
    browser.session.headers["X-Forwarded-For"] = f"203.0.113.{number}"
    return browser


@pytest.mark.parametrize("statement", ODD_BOOKKEEPING.values(), ids=ODD_BOOKKEEPING.keys())
def test_odd_bookkeeping_stops_nothing(system: Cluster, pilots: Iterator[tuple[int, Browser]], statement: str) -> None:
    """Given a sync in the middle of its work, When a row is edited, Then it ends, and so does the next pilot's."""
    (pilot, browser), (other, others) = next(pilots), next(pilots)
    assert browser.log_in(pilot).status_code == 200
    wait_until(lambda: stored(system, pilot) > 0 or ended(system, pilot), "it is at work", 20, 0.01)
    try:
        execute(statement)
    except peewee.IntegrityError:
        return  # the schema refuses it: better still
    try:
        assert others.log_in(other).status_code == 200
        wait_until(lambda: not system.differences(other), "the next pilot is synced", 20)
        wait_until(lambda: ended(system, pilot), "the sync in hand ends", 20)
    finally:
        tidy(system)


def stored(system: Cluster, pilot: int) -> int:
    return int(system.scalar(
        "SELECT COUNT(*) FROM killmails k JOIN user_killmails l ON l.killmail_id = k.killmail_id"
        " JOIN users u ON u.id = l.user_id WHERE u.character_id = ?", pilot))  # fmt: skip


def ended(system: Cluster, pilot: int) -> bool:
    active = "SELECT COUNT(*) FROM syncs s JOIN users u ON u.id = s.user_id WHERE s.finished_at IS NULL"
    return bool(system.scalar(f"{active} AND u.character_id = ?", pilot) == 0)


def tidy(system: Cluster) -> None:
    """What a test that failed leaves behind would fail the next one, too."""
    for statement in (
        "DELETE FROM ledger", "DELETE FROM sync_items", "DELETE FROM gates", "DELETE FROM rate_buckets",
        "UPDATE rate_slots SET next_at = 0", "UPDATE locks SET wake_at = NULL",
        "UPDATE syncs SET state = 'FAILED', finished_at = '2026-01-01 00:00:00' WHERE finished_at IS NULL",
    ):  # fmt: skip
        execute(statement)


def test_text_where_a_number_should_be(
    client: FlaskClient, sign_in: Callable[[User], None], database_file: Path
) -> None:
    """SQLite stores what it is given: a hand-written row may hold text in a column of numbers."""
    user = make_user()
    sign_in(user)
    make_killmail(1, user)
    make_killmail(2, user)
    with sqlite3.connect(database_file) as connection:
        connection.execute("UPDATE victims SET damage_taken = 'a lot' WHERE killmail_id = 2")
    answer: Any = ask(client, "{ killmails { nodes { id victim { damageTaken } } } }")
    assert answer.status_code == 200
    assert client.get("/").status_code == 200
