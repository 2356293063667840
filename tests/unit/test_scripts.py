"""The commands, as somebody at a terminal meets them: exit codes, one line on stderr, JSON, and never a secret."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests_mock
from cryptography.fernet import Fernet
from peewee import Database
from rich.console import Console

from database import db, execute, utcnow
from killmails import to_json
from ledger.storing import load
from models import Attacker, Killmail, Sync, User, UserKillmail, Victim
from settings import NAMES, ROOT
from tests.web_app import link, make_killmail, make_user

SCRIPTS = ("migrate", "queue_users", "check_queue", "users", "demo")
#: A broker that nobody runs: port 1 is nobody's.
NO_BROKER = "amqp://guest:geheim@127.0.0.1:1/%2F"
#: What `make test` hands down to its children.
INHERITED_FROM_MAKE = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "GNUMAKEFLAGS"}
CONTROL = "http://simulator.invalid/_simulator"


def run(script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A script with these settings and no others, from a directory that is not the repository."""
    environment = {**os.environ, **dict.fromkeys(NAMES, ""), "COLUMNS": "100", **settings}
    command = [sys.executable, str(ROOT / f"scripts/{script}.py"), *arguments]
    return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=60, check=False)


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line that a failed script leaves on stderr."""
    assert ended.returncode == 1, ended
    assert re.fullmatch(r"error: .+\n", ended.stderr), ended.stderr
    assert "geheim" not in ended.stdout + ended.stderr
    return ended.stderr.removeprefix("error: ").rstrip()


@pytest.fixture
def url(sqlite_db: Database, database_file: Path) -> str:
    """A migrated SQLite database, which `database.db` is bound to as well."""
    return f"sqlite:///{database_file}"


@pytest.fixture
def services(url: str) -> dict[str, str]:
    """The settings of a system with a broker, which is down."""
    keys = {"SECRET_KEY": "geheim" * 8, "TOKEN_KEYS": Fernet.generate_key().decode()}
    return {"DATABASE_URL": url, "RABBITMQ_URL": NO_BROKER, **keys}


class TestEveryScript:
    @pytest.mark.parametrize("script", SCRIPTS)
    def test_help_needs_no_settings(self, script: str) -> None:
        ended = run(script, "--help", DATABASE_URL="nonsense", RABBITMQ_URL="nonsense")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"usage: {script}.py")

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_bad_usage_is_2(self, script: str) -> None:
        ended = run(script, "--no-such-option")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "unrecognized arguments: --no-such-option" in ended.stderr

    @pytest.mark.parametrize("script", SCRIPTS)
    def test_a_wrong_setting_is_1_and_named(self, script: str) -> None:
        arguments = ("--services",) if script == "demo" else ()  # without, it looks at no setting
        line = error_of(run(script, *arguments, DATABASE_URL="mysql://u:geheim@h/db"))
        assert line.startswith("DATABASE_URL is not a database")

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("postgresql://u:geheim@127.0.0.1:1/db", "Connection refused"),
            ("sqlite:////dev/null/k.db", "cannot make the directory /dev/null: "),
            ("sqlite:////etc/hostname", "(file is not a database|readonly|unable to open)"),
        ],
    )
    @pytest.mark.parametrize("script", ["migrate", "queue_users", "check_queue"])
    def test_a_database_that_fails_is_1_and_says_where_to_look(self, script: str, address: str, reason: str) -> None:
        line = error_of(run(script, DATABASE_URL=address))
        assert re.search(rf"the database failed: .*{reason}.* \(check DATABASE_URL\)", line)

    @pytest.mark.parametrize("script", ["queue_users", "check_queue", "users"])
    def test_a_schema_that_is_older_says_what_to_run(self, script: str, tmp_path: Path) -> None:
        line = error_of(run(script, DATABASE_URL=f"sqlite:///{tmp_path}/new.db"))
        assert line.endswith("run `.venv/bin/python scripts/migrate.py`")

    def test_a_python_without_the_dependencies_says_which_to_take(self) -> None:
        command = [sys.executable, "-E", "-S", str(ROOT / "scripts/users.py")]  # without site-packages
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.fullmatch(r"error: this Python lacks \w+; run the script with \.venv/bin/python .*\n", ended.stderr)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_is_1_and_one_line(self, url: str) -> None:
        environment = {**os.environ, **dict.fromkeys(NAMES, ""), "DATABASE_URL": url}
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, str(ROOT / "scripts/check_queue.py")]
            ended = subprocess.run(
                command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert (ended.returncode, ended.stderr) == (1, "error: [Errno 28] No space left on device\n")

    def test_a_reader_that_has_seen_enough_is_no_traceback(self, url: str) -> None:
        environment = {**os.environ, **dict.fromkeys(NAMES, ""), "DATABASE_URL": url}
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, str(ROOT / "scripts/check_queue.py"), "--watch"]
        ended = subprocess.run(
            command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        os.close(writer)
        assert (ended.returncode, ended.stderr) == (1, "")


class TestMigrate:
    def test_once_and_again(self, tmp_path: Path) -> None:
        address = f"sqlite:///{tmp_path}/new.db"
        first, second = run("migrate", DATABASE_URL=address), run("migrate", DATABASE_URL=address)
        assert (first.returncode, second.returncode, first.stderr, second.stderr) == (0, 0, "", "")
        assert first.stdout.startswith("Applied 0001_initial")
        assert second.stdout == "Nothing to do: the schema is up to date.\n"

    def test_as_json(self, url: str) -> None:
        assert json.loads(run("migrate", "--json", DATABASE_URL=url).stdout) == {"applied": []}

    def test_a_newer_schema_that_refuses_this_code_is_not_up_to_date(self, url: str) -> None:
        with db.connection_context():
            execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_later', ?)", (utcnow(),))
            execute("UPDATE schema_compat SET min_code = 9999")
        assert "newer than this code" in error_of(run("migrate", DATABASE_URL=url))


class TestQueueUsers:
    @pytest.fixture
    def pilots(self, url: str) -> list[User]:
        with db.connection_context():
            return [make_user(90_000_001), make_user(90_000_002), make_user(90_000_003, next_sync_at=None)]

    def test_nobody_has_logged_in(self, url: str) -> None:
        ended = run("queue_users", DATABASE_URL=url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "No active users found. A pilot has to log in first" in ended.stdout

    def test_whoever_can_be_synced_is_queued_at_priority_5(self, url: str, pilots: list[User]) -> None:
        ended = run("queue_users", DATABASE_URL=url)

        assert (ended.returncode, ended.stderr) == (0, "")
        assert "Queued 2 of 2 users." in ended.stdout
        assert ended.stdout.count("FIRST SYNC") == 2
        with db.connection_context():
            assert [(s.user_id, s.trigger, s.priority) for s in Sync.select().order_by(Sync.user)] == [
                (pilot.id, "MANUAL", 5) for pilot in pilots[:2]
            ]

    def test_cool_down_is_told_and_force_ignores_it(self, url: str, pilots: list[User]) -> None:
        with db.connection_context():
            User.update(last_killmail_sync_at=utcnow()).execute()

        held, forced = run("queue_users", DATABASE_URL=url), run("queue_users", "--force", DATABASE_URL=url)

        assert (held.returncode, forced.returncode) == (0, 0)
        assert "COOL-DOWN" in held.stdout and "queue_users.py --force" in held.stdout
        assert "Queued 2 of 2 users." in forced.stdout

    def test_one_character_in_full_as_json(self, url: str, pilots: list[User]) -> None:
        ended = run("queue_users", "--json", "--full", "--character", "90000002", DATABASE_URL=url)

        report = json.loads(ended.stdout)
        assert (ended.stderr, report["queued"], len(report["users"])) == ("", 1, 1)
        assert (report["users"][0]["character_id"], report["users"][0]["queued"]) == (90_000_002, True)
        with db.connection_context():
            assert [(sync.user_id, sync.full) for sync in Sync.select()] == [(pilots[1].id, True)]

    def test_an_unknown_character_is_1_and_nobody_is_queued(self, url: str, pilots: list[User]) -> None:
        with db.connection_context():
            User.update(scopes="publicData").where(User.character_id == 90_000_003).execute()
        asked = [word for number in ("90000001", "90000003", "90000099") for word in ("--character", number)]
        ended = run("queue_users", *asked, DATABASE_URL=url)

        assert "The login does not allow reading killmails" in error_of(ended), "who did log in is told what is missing"
        assert "character id 90000099: the pilot has to log in first" in error_of(ended)
        with db.connection_context():
            assert Sync.select().count() == 0

    @pytest.mark.parametrize("word", ["x", "-1", "0", "9" * 20, "\u0663"])
    def test_what_is_no_id_is_2(self, url: str, word: str) -> None:
        ended = run("queue_users", f"--character={word}", DATABASE_URL=url)
        assert ended.returncode == 2
        assert "is not an id" in ended.stderr

    def test_a_broker_that_is_down_delays_and_fails_nothing(self, services: dict[str, str], pilots: list[User]) -> None:
        ended = run("queue_users", "--character", "90000001", **services)

        assert ended.returncode == 0
        assert "Queued 1 of 1 users." in ended.stdout
        why = "RabbitMQ does not answer (AMQPConnectionError)"
        assert ended.stderr == f"warning: {why}; the syncs are recorded, and start when that is over\n"
        assert "geheim" not in ended.stdout + ended.stderr
        with db.connection_context():
            assert Sync.select().count() == 1

    def test_after_one_message_that_was_not_taken_no_other_is_tried(
        self, services: dict[str, str], pilots: list[User]
    ) -> None:
        ended = run("queue_users", "--json", **services)

        assert (ended.returncode, json.loads(ended.stdout)["queued"]) == (0, 2)
        assert len(ended.stderr.splitlines()) == 1
        with db.connection_context():
            assert [sync.sent_at for sync in Sync.select()] == [None, None], "the tick has both to send"


class TestCheckQueue:
    def test_embedded_counts_rows_and_says_so(self, url: str) -> None:
        ended = run("check_queue", DATABASE_URL=url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("embedded: ")
        assert "killmails to fetch: empty" in ended.stdout
        assert "\033" not in ended.stdout

    @pytest.mark.parametrize("what", ["--dead", "--replay"])
    def test_embedded_has_no_dead_letters_and_says_so(self, url: str, what: str) -> None:
        ended = run("check_queue", what, DATABASE_URL=url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("embedded: no broker, no dead letters")

    def test_as_json(self, url: str) -> None:
        with db.connection_context():
            make_killmail(1, make_user())

        report = json.loads(run("check_queue", "--json", DATABASE_URL=url).stdout)

        assert (report["mode"], report["killmails"], report["ledger"], report["active_syncs"]) == (
            "embedded",
            1,
            {},
            {},
        )
        assert {"esi_user_killmails_queue", "esi_killmail_details_queue", "esi_names_queue", "maintenance_queue"} == {
            queue["queue_name"] for queue in report["queues"]
        }

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_a_broker_that_is_down_is_1(self, services: dict[str, str], options: list[str]) -> None:
        ended = run("check_queue", *options, **services)
        assert (error_of(ended), ended.stdout) == (
            "RabbitMQ does not answer (AMQPConnectionError) (check RABBITMQ_URL)",
            "",
        )


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The demo's module, at home in a directory of the test's."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    module = importlib.import_module("scripts.demo")
    monkeypatch.setattr(module, "DEMO", tmp_path / "demo")
    monkeypatch.setattr(module.settings, "VAR", tmp_path)
    return module


class TestDemo:
    def test_a_busy_port_is_no_error(self, demo: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            busy = listener.getsockname()[1]
            assert demo.free_port(busy) != busy
        assert demo.free_port(busy) == busy

    def test_a_second_one_would_take_the_first_ones_database_away(self, demo: Any) -> None:
        with demo.alone():
            (demo.DEMO / "killmails.db").touch()
            with pytest.raises(demo.command.Failure, match="another demo is running"), demo.alone():
                pass
            assert (demo.DEMO / "killmails.db").exists()
        with demo.alone():
            assert list(demo.DEMO.iterdir()) == []

    def test_of_the_callers_settings_it_takes_none(self, demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in NAMES:
            monkeypatch.setenv(name, f"THEIRS-{name}")

        config = demo.read_addresses(Namespace(services=False))
        with demo.addresses(config, Console(file=io.StringIO())) as (database_url, rabbitmq_url):
            made = demo.demo_environment("http://127.0.0.1:4711", database_url, rabbitmq_url)

        assert [name for name in NAMES if "THEIRS" in made[name]] == []
        assert made["DATABASE_URL"] == f"sqlite:///{demo.DEMO}/killmails.db"
        assert made["EVE_CALLBACK_URL"] == f"http://127.0.0.1:{made['PORT']}/auth/callback"
        assert demo.settings.load(made, Path("/nonexistent")).embedded

    def test_with_services_it_takes_two_addresses(self, demo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Given no keys, as before an installation, Then they are no more missed than anything else of the caller's."""
        for name in NAMES:
            monkeypatch.setenv(name, f"THEIRS-{name}")
        monkeypatch.setenv("DATABASE_URL", "postgresql://killmails@127.0.0.1/production")
        monkeypatch.setenv("RABBITMQ_URL", NO_BROKER)

        config = demo.read_addresses(Namespace(services=True))

        assert (config.database_url, config.rabbitmq_url) == ("postgresql://killmails@127.0.0.1/production", NO_BROKER)
        assert [name for name in config.__slots__ if "THEIRS" in str(getattr(config, name))] == []

    def test_with_services_it_must_be_told_which(self) -> None:
        ended = run("demo", "--services", ONCE="1")
        assert "set DATABASE_URL (postgresql://…) and RABBITMQ_URL" in error_of(ended)

    def test_a_child_is_heard_and_ended(self, demo: Any) -> None:
        demo.DEMO.mkdir()
        source = "import time; print('listening on http://x:1 now', flush=True); time.sleep(60)"
        with demo.process("child", [sys.executable, "-c", source], os.environ) as child:
            assert demo.wait_for_line(child, "listening on ") == "http://x:1"
            assert child.process.poll() is None
        assert child.process.poll() is not None

    def test_a_child_that_ends_is_told_in_one_line(self, demo: Any) -> None:
        demo.DEMO.mkdir()
        source = "import sys; print('something before'); sys.exit('error: PORT must be a number')"
        with (
            demo.process("web", [sys.executable, "-c", source], os.environ) as child,
            pytest.raises(demo.command.Failure) as caught,
        ):
            demo.wait_for_line(child, "listening on ")
        assert str(caught.value) == f"web ended at once: PORT must be a number (all of it: {child.log})"


class TestTruth:
    """Two pilots; both have killmail 1, the second one also 2. What is stored is changed, and the difference told."""

    @pytest.fixture
    def pilots(self, sqlite_db: Database, requests_mock: requests_mock.Mocker) -> Iterator[list[User]]:
        with db.connection_context():
            pilots = [make_user(11), make_user(12)]
            make_killmail(1, *pilots, victim_id=11)
            make_killmail(2, pilots[1])
            Attacker.update(character_id=12).execute()
            hashes = {row.killmail_id: row.killmail_hash for row in Killmail.select()}
            for killmail_id in hashes:
                killmail = load(killmail_id)
                assert killmail is not None
                requests_mock.get(f"{CONTROL}/killmails/{killmail_id}", json=to_json(killmail))
            lists = {"11": [1], "12": [1, 2]}
            characters = {key: {"killmails": [[id_, hashes[id_]] for id_ in ids]} for key, ids in lists.items()}
            requests_mock.get(f"{CONTROL}/truth", json={"characters": characters})
            yield pilots

    def differences(self, *character_ids: int) -> list[str]:
        truth = importlib.import_module("scripts.truth")
        found: list[str] = truth.differences("http://simulator.invalid", set(character_ids))
        return found

    def test_what_is_whole_has_none(self, pilots: list[User]) -> None:
        assert self.differences() == []

    def test_a_lost_killmail(self, pilots: list[User]) -> None:
        Killmail.delete().where(Killmail.killmail_id == 2).execute()
        assert self.differences() == ["killmail 2 is missing"]
        assert self.differences(11) == []  # stood in no list of that pilot's

    def test_one_that_does_not_name_a_pilot_who_listed_it_is_stored_and_not_linked(
        self, pilots: list[User], requests_mock: requests_mock.Mocker
    ) -> None:
        """ESI's list was another pilot's."""
        rows = Killmail.select().order_by(Killmail.killmail_id)
        all_of_them = [[row.killmail_id, row.killmail_hash] for row in rows]
        characters = {key: {"killmails": all_of_them} for key in ("11", "12")}
        requests_mock.get(f"{CONTROL}/truth", json={"characters": characters})
        assert self.differences() == []
        link(pilots[0], 2)
        assert self.differences() == ["killmail 2 is wrongly linked to character 11"]

    def test_a_lost_and_a_wrong_link(self, pilots: list[User]) -> None:
        UserKillmail.delete().where(UserKillmail.user == pilots[1].id, UserKillmail.killmail_id == 2).execute()
        link(pilots[0], 2)
        assert self.differences() == [
            "killmail 2 is wrongly linked to character 11",
            "killmail 2 is not linked to character 12",
        ]

    def test_one_that_nobody_listed(self, pilots: list[User]) -> None:
        make_killmail(3)
        assert self.differences() == ["killmail 3 stood in no list"]

    def test_another_hash(self, pilots: list[User]) -> None:
        Killmail.update(killmail_hash="0" * 40).where(Killmail.killmail_id == 1).execute()
        assert self.differences() == ["killmail 1 has another hash"]

    @pytest.mark.parametrize("sql", ["UPDATE attackers SET damage_done = 11", "UPDATE killmail_items SET flag = 6"])
    def test_a_field_of_a_part(self, pilots: list[User], sql: str) -> None:
        execute(sql)
        assert len(self.differences()) == 2
        assert all(re.fullmatch(r"killmail [12]: (attackers|victim) differs", line) for line in self.differences())

    def test_one_that_cannot_be_read_back(self, pilots: list[User]) -> None:
        Victim.delete().where(Victim.killmail == 1).execute()
        assert self.differences() == ["killmail 1 cannot be read back"]


class TestMake:
    """`make` on machines that lack something. Nothing is installed."""

    def make(self, tmp_path: Path, python: str, target: str) -> subprocess.CompletedProcess[str]:
        """`python`: the body of a shell script that stands for PYTHON; `$2` is the code of its -c."""
        stub = tmp_path / "python"
        stub.write_text(f"#!/bin/sh\n{python}\n")
        stub.chmod(0o755)
        return self.run(f"VENV={tmp_path}/.venv", f"PYTHON={stub}", target)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As from a shell, also where `make test` runs this: a make that knows it is inside another says more."""
        environment = {name: value for name, value in os.environ.items() if name not in INHERITED_FROM_MAKE}
        return subprocess.run(
            ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    @pytest.fixture(autouse=True)
    def has_make(self) -> None:
        if shutil.which("make") is None:
            pytest.skip("make is not installed")

    @pytest.mark.parametrize("target", ["help", ""])
    def test_help_is_the_default_and_lists_every_target(self, target: str) -> None:
        ended = self.run(*target.split())

        phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert phony is not None
        assert [line.split()[1] for line in ended.stdout.splitlines()] == phony[1].split()

    @pytest.mark.parametrize("target", ["demo", "run", "test"])
    @pytest.mark.parametrize(
        ("python", "line"),
        [
            ("exit 1", "error: Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"),
            (
                'case "$2" in *ensurepip*) exit 1;; esac',
                "error: this Python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv",
            ),
        ],
    )
    def test_a_python_that_will_not_do_is_told_in_one_line(
        self, tmp_path: Path, target: str, python: str, line: str
    ) -> None:
        ended = self.make(tmp_path, f"{python}\n", target)

        said = [each for each in ended.stderr.splitlines() if not each.startswith("make: ")]
        assert (ended.returncode, said) == (2, [line])
        assert not (tmp_path / ".venv").exists()

    def test_half_a_virtual_environment_does_not_stay(self, tmp_path: Path) -> None:
        """It would be taken for a whole one the next time."""
        fails = (
            f'test "$2" = venv && mkdir -p {tmp_path}/.venv/bin && touch {tmp_path}/.venv/bin/python && exit 1; exit 0'
        )
        assert self.make(tmp_path, fails, "run").returncode != 0
        assert not (tmp_path / ".venv").exists()
