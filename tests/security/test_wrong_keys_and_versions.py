"""An operator's mistakes: TOKEN_KEYS that lack the key, and a schema that is newer than the code.

Each is told in one clear line, overwrites nothing, and is over when it is mended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

import database
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import BIN, Process, wait_until

SIMULATOR = ("--pilots", "2", "--killmails-count", "20", "--cache-seconds", "0", "--limit", "char-killmail=1000/1m")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Cluster]:
    """Embedded mode, not started yet."""
    with cluster(tmp_path, f"sqlite:///{tmp_path}/killmails.db", "", *SIMULATOR) as made:
        yield made


def change(system: Cluster, **environment: str) -> None:
    system.processes.environment = {**system.processes.environment, **environment}


def tokens(system: Cluster) -> list[tuple[Any, ...]]:
    return system.rows("SELECT id, access_token, refresh_token, needs_login_reason FROM users ORDER BY id")


def age_access_tokens(system: Cluster) -> None:
    database.execute("UPDATE users SET expires_at = '2026-01-01 00:00:00'")


class TestTokenKeys:
    def test_tokens_outlive_a_wrong_key(self, system: Cluster) -> None:
        """Given pilots who logged in, When the system runs with another key and then with theirs again."""
        right = system.processes.environment["TOKEN_KEYS"]
        web = system.start_web()
        browsers = {pilot: system.browser() for pilot in system.simulated.truth()}
        for pilot, browser in browsers.items():
            browser.log_in(pilot)
        system.wait_for_syncs()
        before = tokens(system)
        web.stop()
        pilot, browser = next(iter(browsers.items()))
        system.simulated.post(f"characters/{pilot}/killmails", {"count": 2, "bust_cache": True})

        change(system, TOKEN_KEYS=Fernet.generate_key().decode())
        age_access_tokens(system)
        web = system.start_web()
        browser.web_url = system.web_url
        assert system.script("queue_users", "--force").returncode == 0
        wait_until(lambda: system.scalar("SELECT COUNT(*) FROM syncs WHERE state = 'FAILED'") == 2, "they fail", 30)

        # Then the tokens are as they were, the pilot is told, and the operator, each in a line
        assert tokens(system) == before
        sync = browser.last_sync()
        assert sync is not None and "TOKEN_KEYS" in sync["error"] and "Traceback" not in sync["error"]
        assert "TOKEN_KEYS" in browser.session.get(f"{system.web_url}/").text
        told = [line for line in web.output().splitlines() if "TOKEN_KEYS" in line]
        assert 1 <= len(told) <= 4 and "Traceback" not in web.output()
        assert browser.me()["tokenState"] != "NEEDS_LOGIN"  # no login is needed, only the key
        web.stop()

        change(system, TOKEN_KEYS=right)
        web = system.start_web()
        assert system.script("queue_users", "--force").returncode == 0
        wait_until(lambda: not system.differences(), "everything is stored", 30)
        system.wait_for_syncs()
        assert {reason for *_, reason in tokens(system)} == {None}

    def test_a_sync_after_a_wrong_key_comes_by_itself(self, system: Cluster) -> None:
        """A failure puts the next sync off, and does not end syncing."""
        web = system.start_web()
        pilot = min(system.simulated.truth())
        system.browser().log_in(pilot)
        system.wait_for_syncs()
        web.stop()
        change(system, TOKEN_KEYS=Fernet.generate_key().decode())
        age_access_tokens(system)
        system.start_web()
        system.script("queue_users", "--force")
        wait_until(lambda: system.scalar("SELECT COUNT(*) FROM syncs WHERE state = 'FAILED'") == 1, "it fails", 30)
        assert system.scalar("SELECT next_sync_at FROM users") is not None

    def test_a_login_with_the_new_key_is_good_beside_the_old_ones(self, system: Cluster) -> None:
        web = system.start_web()
        first, second = sorted(system.simulated.truth())
        system.browser().log_in(first)
        system.wait_for_syncs()
        before = tokens(system)
        web.stop()
        change(system, TOKEN_KEYS=Fernet.generate_key().decode())
        system.start_web()
        system.browser().log_in(second)
        wait_until(lambda: not system.differences(second), "the second pilot is synced", 30)
        assert tokens(system)[:1] == before

    def test_a_key_is_rotated_without_a_login(self, system: Cluster) -> None:
        old = system.processes.environment["TOKEN_KEYS"]
        web = system.start_web()
        pilot = min(system.simulated.truth())
        system.browser().log_in(pilot)
        system.wait_for_syncs()
        web.stop()
        new = Fernet.generate_key().decode()
        change(system, TOKEN_KEYS=f"{new},{old}")
        age_access_tokens(system)
        web = system.start_web()
        system.script("queue_users", "--force")
        wait_until(lambda: decrypts(new, tokens(system)[0][2]), "the token is encrypted anew", 30)
        assert "TOKEN_KEYS" not in web.output()

    @pytest.mark.parametrize("keys", ["not-a-key", "x" * 44, ","])
    def test_what_is_no_key_is_told_and_not_shown(self, system: Cluster, keys: str) -> None:
        ended = system.processes.run([sys.executable, "app.py"], TOKEN_KEYS=keys)
        assert ended.returncode == 1
        assert one_line(ended.stderr).startswith("error: TOKEN_KEYS") and "x" * 44 not in ended.stderr


def decrypts(key: str, sealed: str) -> bool:
    try:
        return bool(Fernet(key).decrypt(sealed.encode()))
    except Exception:  # noqa: BLE001 - whatever it is, no
        return False


def one_line(text: str) -> str:
    """The one line that was said; fails for more."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


def add_future_migration(system: Cluster) -> int:
    """As a newer version leaves a schema that older code cannot run on; returns how many users there are."""
    table = "migration_history" if "migration_history" in tables() else migration_table()
    columns = [column.name for column in database.db.get_columns(table)]
    newest = database.execute(f"SELECT * FROM {table} ORDER BY 1 DESC LIMIT 1").fetchone()
    row = dict(zip(columns, newest, strict=True))
    for name, value in row.items():
        if isinstance(value, str) and value[:1] == "0":
            row[name] = "9999_from_the_future"
        elif name == "id":
            row[name] = value + 1000
    marks = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
    database.execute("UPDATE schema_compat SET min_code = 9999")
    return int(system.scalar("SELECT COUNT(*) FROM users"))


def tables() -> list[str]:
    return list(database.db.get_tables())


def migration_table() -> str:
    return next(name for name in tables() if "migrat" in name)


class TestNewerSchema:
    def test_embedded_mode_refuses_it(self, system: Cluster) -> None:
        assert system.script("migrate").returncode == 0
        add_future_migration(system)
        dump = schema_of(system)
        for command in (["app.py"], ["scripts/migrate.py"], ["scripts/queue_users.py"], ["scripts/check_queue.py"]):
            ended = system.processes.run([sys.executable, *command])
            assert ended.returncode == 1, command
            assert "newer than this code" in one_line(ended.stderr), command
        assert schema_of(system) == dump

    @pytest.mark.services
    def test_services_refuse_it(self, tmp_path: Path, both_services: None) -> None:
        with services(tmp_path, *SIMULATOR) as system:
            add_future_migration(system)
            for command in (
                [sys.executable, "app.py"],
                [sys.executable, "scripts/migrate.py"],
                [str(BIN / "dramatiq"), "--processes", "1", "--threads", "1", "actors"],
                [str(BIN / "periodiq"), "actors"],
                [str(BIN / "gunicorn"), "--config", "web/gunicorn.py", "app:create_app()"],
            ):
                process = system.processes.start("refusing", command)
                wait_until(partial(has_ended, process), f"{command} ends", 20)
                assert process.child.returncode != 0, command
                assert process.output().count("newer than this code") >= 1, command
                assert "Traceback" not in process.output(), command


def has_ended(process: Process) -> bool:
    return process.child.poll() is not None


def schema_of(system: Cluster) -> str:
    return json.dumps(system.rows("SELECT type, name, sql FROM sqlite_master ORDER BY name"))
