"""SQL through every argument there is: those of the schema, found by reading it, and those of the pages' addresses.

An injection shows itself: rows that are not the viewer's, tables that are gone, an answer that comes late, an error in
a database's words. Each is looked for after each attack, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient

import database
import migrations
from api import system
from api.callers import limiter
from api.errors import ApiError
from api.execution import InvalidDocumentError, prepare
from api.subscribing import open_subscription
from api.subscriptions import Reader
from app import create_app
from models import TABLES, Killmail, User
from tests import postgres
from tests.security.arguments import MINE, operations, places
from tests.security.asking import ask
from tests.web_app import FakeBackend, make_killmail, make_sync, make_user

ATTACKS = [
    "1 OR 1=1", "1' OR '1'='1", "1; DROP TABLE users; --", "' UNION SELECT killmail_hash FROM killmails --",
    "1) UNION ALL SELECT 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19--", "%", "_", "\\", "\\'", "''",
    "1/**/OR/**/1", "587 AND (SELECT COUNT(*) FROM users) > 0", "1e0", "0x24B", "?", "%s", "%(x)s", ":1", "$1", "{0}",
    "NULL", "\x00", "1'||(SELECT refresh_token FROM users)||'", "'; SELECT pg_sleep(9); --", "￼'", "９",
    "1' AND randomblob(1000000000) --", "2026-01-01' OR '1'='1", "-1", str(2**63), "9" * 400,
]  # fmt: skip
#: What a database says when it reads somebody's text as its own.
WORDS = (
    "syntax error", "sqlite", "psycopg", "operationalerror", "programmingerror", "no such column", "unrecognized token",
    "invalid input syntax", "pg_", "select ",
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        request.getfixturevalue("sqlite_db")
        yield "sqlite"
        return
    postgres.require_server()
    with postgres.scratch_database() as url:
        connected: Any = database.connect(url)
        migrations.upgrade()
        yield "postgresql"
        if not connected.is_closed():
            connected.close()
        connected.close_all()


@pytest.fixture
def attacker(engine: str, make_settings: Callable[..., Any], backend: FakeBackend) -> FlaskClient:
    """Signed in, with one killmail; another pilot has another."""
    settings = make_settings()
    app: Flask = create_app(settings, backend.system(settings))
    limiter.reset()
    victim, me = make_user(90_000_001, character_name="Victim Alvarado"), make_user(90_000_666)
    make_killmail(7001, victim)
    make_killmail(MINE, me)
    make_sync(victim.id, error="the victim's own trouble")
    client = app.test_client()
    with client.session_transaction() as session:
        session["user_id"], session["epoch"] = me.id, me.session_epoch
    return client


def harmless(text: str, attack: str) -> None:
    """Nothing of the victim's, no word of a database, and every table is there with what was in it."""
    told = text.replace(attack, "").lower()
    for secret in (f"{7001:040x}", "victim alvarado", "the victim's own trouble", "sealed"):
        assert secret not in told
    assert not [word for word in WORDS if word in told], told[:500]
    assert User.select().count() == 2 and Killmail.select().count() == 2
    assert {table._meta.table_name for table in TABLES} <= set(database.db.get_tables())


OPERATIONS = operations("query", "mutation")
SUBSCRIPTIONS = operations("subscription")


@pytest.mark.parametrize("query", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_no_argument_of_the_api_is_sql(attacker: FlaskClient, caplog: pytest.LogCaptureFixture, query: str) -> None:
    for attack in ATTACKS:
        for value in (attack, [attack]):
            harmless(ask(attacker, query, {"v": value}).text, attack)
        limiter.reset()
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("query", SUBSCRIPTIONS.values(), ids=SUBSCRIPTIONS.keys())
def test_no_argument_of_a_subscription_is_sql(
    attacker: FlaskClient, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    """Opened as a socket opens it, and read once: what is told later comes from events, which hold ids."""
    viewer = User.get(User.character_id == 90_000_666)
    prepared = prepare(query)
    with attacker.application.app_context():
        behind = system.current()
    for attack in ATTACKS:
        for value in (attack, [attack]):
            reader = Reader(viewer, lambda: None, lambda: None)
            try:
                subscription = open_subscription(reader, behind, prepared, prepared.operation(None), {"v": value})
                told = repr(subscription.take())
            except (ApiError, InvalidDocumentError) as refusal:
                told = str(refusal)
            harmless(told, attack)
    assert "Traceback" not in caplog.text


def test_no_cursor_is_sql(attacker: FlaskClient) -> None:
    for attack in ATTACKS:
        for kind, field in (("killmail", "killmails"), ("sync", "syncs")):
            for text in (f"{kind}:{attack}", f"{kind}:1 {attack}", attack):
                cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
                answer = ask(
                    attacker, f"query($a: String) {{ {field}(after: $a) {{ nodes {{ id }} }} }}", {"a": cursor}
                )
                harmless(answer.text, attack)


#: What the pages read from their addresses, and some they do not; the last is a name of ours in other clothes.
PARAMETERS = [
    "after", "first", "isLoss", "is_loss", "shipTypeId", "ship", "solarSystemId", "system", "from", "to", "sort",
    "side", "solo", "npc", "before", "newer", "attackers", "order", "kind", "role", "page", "format", "q", "since", "until", "user_id", "user.id", "killmail_id__gt",
]  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/killmails", "/killmails/export.csv", "/killmails/export.json", "/", "/pictures", "/status"]
)
def test_no_parameter_of_a_page_is_sql(attacker: FlaskClient, caplog: pytest.LogCaptureFixture, path: str) -> None:
    for parameter in PARAMETERS:
        for attack in ATTACKS[:12]:
            response = attacker.get(path, query_string={parameter: attack})
            assert response.status_code in (200, 302, 400, 404, 429), (parameter, attack)
            if response.status_code == 200:
                assert attack not in response.text or "<" not in attack
            assert f"{7001:040x}" not in response.text
    harmless("", "")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("path", ["/killmails/{}", "/killmails/{}.json", "/killmails/export.{}"])
def test_no_part_of_a_path_is_sql(attacker: FlaskClient, caplog: pytest.LogCaptureFixture, path: str) -> None:
    for attack in ATTACKS:
        response = attacker.get(path.format(quote(attack, safe="")))
        assert response.status_code in (200, 302, 308, 400, 404, 405), attack
        assert f"{7001:040x}" not in response.text
    harmless("", "")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("cookie", [{"user_id": "1 OR 1=1", "epoch": "5"}, {"user_id": "' OR ''='", "epoch": 5}])
def test_no_session_is_sql(attacker: FlaskClient, cookie: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Only somebody with SECRET_KEY can write one; still it is a value and not SQL."""
    with attacker.session_transaction() as session:
        session.update(cookie)
    harmless(ask(attacker, "{ me { characterName } }").text, "")


@pytest.mark.parametrize("argument", ["1 OR 1=1", "1; DROP TABLE users", "'", "-1", "0", "99999999999999999999", ""])
def test_no_argument_of_a_script_is_sql(tmp_path: Path, database_file: Path, argument: str) -> None:
    from cryptography.fernet import Fernet

    from tests.acceptance.processes import Processes

    settings = {"DATABASE_URL": f"sqlite:///{database_file}", "EVE_CLIENT_ID": "x", "EVE_CLIENT_SECRET": "x",
                "SECRET_KEY": "x" * 40, "TOKEN_KEYS": Fernet.generate_key().decode()}  # fmt: skip
    ended = Processes(tmp_path, settings).run([sys.executable, "scripts/queue_users.py", "--character", argument])
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


def test_the_operations_cover_what_the_schema_has() -> None:
    """Or a new argument would go unattacked."""
    reached = {re.sub(r"\.\w+\)$", ")", place) for place in {**OPERATIONS, **SUBSCRIPTIONS}}
    assert reached == places()
    assert {"Query.killmails(filter.shipTypeId)", "Query.killmails(filter.from)"} <= set(OPERATIONS)
