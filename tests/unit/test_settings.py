"""Settings: what is valid, what ends the process with one line, and that no line, repr or file shows a secret."""

from __future__ import annotations

import base64
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

import settings
from settings import NAMES, ROOT, Settings, SettingsError

NO_FILE = Path("/nonexistent/.env")
# Fixed: what a test is called must not change from run to run.
KEY, OLD_KEY = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"k", b"o"))
GIVEN = {"SECRET_KEY": "s3cret-" * 6, "TOKEN_KEYS": KEY}


def load(**environ: str) -> Settings:
    return settings.load({**GIVEN, **environ}, NO_FILE)


def refused(**environ: str) -> str:
    """The one line that a wrong setting ends in."""
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for secrets that are made, in the stead of var/."""
    monkeypatch.setattr(settings, "VAR", tmp_path / "var")
    return tmp_path / "var"


def test_the_defaults_are_the_contracts() -> None:
    made = load()

    assert made.database_url == f"sqlite:///{ROOT}/var/killmails.db"
    assert made.embedded and made.rabbitmq_url is None
    assert (made.esi_url, made.sso_url) == ("https://esi.evetech.net", "https://login.eveonline.com")
    assert made.eve_callback_url == "http://127.0.0.1:8000/auth/callback"
    assert made.eve_client_scopes == ("esi-killmails.read_killmails.v1",)
    assert (made.esi_requests_per_second, made.schedule_minutes) == (50, 10)
    assert (made.sync_cooldown_minutes, made.sync_max_pages) == (15, 50)
    assert (made.host, made.port, made.log_level, made.log_format) == ("127.0.0.1", 8000, "INFO", "console")
    assert made.graphql_explorer is False
    assert made.trusted_proxies == (ip_network("127.0.0.1"), ip_network("::1"))


def test_env_example_lists_every_setting_once_and_holds_the_defaults() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assignments = [line.removeprefix("# ") for line in lines if line.removeprefix("# ").partition("=")[0].isupper()]
    listed = dict(line.split("=", 1) for line in assignments)

    assert sorted(line.partition("=")[0] for line in assignments) == sorted(NAMES)
    del listed["RABBITMQ_URL"]  # commented out: with it, it is no embedded system
    assert settings.load({**GIVEN, **listed, **GIVEN}, NO_FILE) == load()


def test_proxies_are_addresses_or_networks() -> None:
    trusted = load(TRUSTED_PROXIES="10.0.0.1, fd00::/8").trusted_proxies
    assert trusted == (ip_network("10.0.0.1"), ip_network("fd00::/8"))


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.1,", "10.0.0.1 10.0.0.2", "*"])
def test_proxies_that_are_none(value: str) -> None:
    assert "TRUSTED_PROXIES must be addresses or networks" in refused(TRUSTED_PROXIES=value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("sqlite:///var/other.db", f"sqlite:///{ROOT}/var/other.db"),
        ("sqlite:////data/k.db", "sqlite:////data/k.db"),
        ("postgres://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgresql://u:p%40ss%2F@h:6543/db?sslmode=require", "postgresql://u:p%40ss%2F@h:6543/db?sslmode=require"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_a_database_address(given: str, meant: str) -> None:
    assert load(DATABASE_URL=given).database_url == meant


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://u:geheim@h/db"),
        ("DATABASE_URL", "killmails.db"),
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "sqlite:///"),
        ("DATABASE_URL", "sqlite:///var/"),
        ("DATABASE_URL", "sqlite:///var/k.db?mode=ro"),
        ("DATABASE_URL", "postgresql://u:geheim@h"),
        ("DATABASE_URL", "postgresql://u:geheim@h/"),
        ("DATABASE_URL", "postgresql://u:geheim@h:port/db"),
        ("DATABASE_URL", "postgresql://u:12/geheim@h/db"),
        ("DATABASE_URL", "postgresql://u:ab#geheim@h/db"),
        ("DATABASE_URL", "postgresql://u:geheim@[h/db"),
        ("DATABASE_URL", "postgresql://u:geheim@h/db?password=geheim"),
        ("RABBITMQ_URL", "http://u:geheim@h"),
        ("RABBITMQ_URL", "amqp://"),
        ("RABBITMQ_URL", "amqp://u:geheim@[h"),
        ("RABBITMQ_URL", "amqp://u:pa/geheim@h"),
        ("RABBITMQ_URL", "amqp://u:ge heim@h"),
        ("ESI_URL", "esi.evetech.net"),
        ("ESI_URL", "http://esi.evetech.net"),
        ("ESI_URL", "https://esi.evetech.net/?token=geheim"),
        ("ESI_URL", "https://u:geheim@esi.evetech.net"),
        ("SSO_URL", "https://:geheim@login.eveonline.com"),
        ("SSO_URL", "https://login.eve online.com"),
        ("EVE_CALLBACK_URL", "ftp://h/auth/callback"),
        ("EVE_CALLBACK_URL", "https://h/auth/callback#geheim"),
        ("EVE_CALLBACK_URL", "https://h:0/auth/callback"),
        ("EVE_CLIENT_ID", "two words"),
        ("EVE_CLIENT_SECRET", "geheim\u00e9"),
        ("EVE_CLIENT_SCOPES", "publicData"),
        ("EVE_CLIENT_SCOPES", "esi-killmails.read_killmails.v1,publicData"),
        ("EVE_CALLBACK_URL", "https://example.org/somewhere/else"),
        ("ESI_COMPATIBILITY_DATE", "today"),
        ("EVE_CALLBACK_URL", "https://example.org/auth/callback/"),
        ("EVE_CALLBACK_URL", "https://example.org//auth/callback"),
        ("EVE_CALLBACK_URL", "https://example.org/tools/../auth/callback"),
        ("EVE_CALLBACK_URL", "https://example.org/two%20words/auth/callback"),
        ("ESI_COMPATIBILITY_DATE", "2199-01-01"),
        ("ESI_COMPATIBILITY_DATE", "1999-01-01"),
        ("ESI_COMPATIBILITY_DATE", "2026-02-30"),
        ("ESI_COMPATIBILITY_DATE", "20260818"),
        ("ESI_CONTACT", "me\x7f@example.com"),
        ("ESI_CONTACT", "x" * 201),
        ("ESI_REQUESTS_PER_SECOND", "0"),
        ("ESI_REQUESTS_PER_SECOND", "nan"),
        ("ESI_REQUESTS_PER_SECOND", "inf"),
        ("ESI_REQUESTS_PER_SECOND", "many"),
        ("SECRET_KEY", "geheim"),
        ("TOKEN_KEYS", "geheim"),
        ("TOKEN_KEYS", f"{KEY},geheim"),
        ("TOKEN_KEYS", "gehe\u00efm"),
        ("SYNC_COOLDOWN_MINUTES", "4"),
        ("SYNC_COOLDOWN_MINUTES", "1.5"),
        ("SYNC_MAX_PAGES", "0"),
        ("SYNC_MAX_PAGES", "\u0663"),
        ("SCHEDULE_MINUTES", "7"),
        ("SCHEDULE_MINUTES", "0"),
        ("SCHEDULE_MINUTES", "-10"),
        ("GRAPHQL_EXPLORER", "yes"),
        ("HOST", "a b"),
        ("PORT", "65536"),
        ("PORT", "http"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_malformed_setting_is_named_with_a_valid_value_and_not_repeated(name: str, value: str) -> None:
    line = refused(**{name: value})

    assert line.startswith(name)
    assert "a valid value is " in line
    assert "geheim" not in line


@pytest.mark.parametrize("name", ["SECRET_KEY", "TOKEN_KEYS"])
def test_the_command_that_makes_a_secret_is_no_secret(name: str) -> None:
    """Given the refusal's text pasted into .env, Then it is refused: what everybody is shown must sign nothing."""
    shown = refused(**{name: "x"}).rpartition("a valid value is ")[2]
    command = shown.partition(": ")[2]

    for pasted in (shown, command, f"$({command})"):
        assert refused(**{name: pasted}).startswith(name)


@pytest.mark.parametrize(
    ("name", "host"), [("ESI_URL", "esi.evetech.net"), ("SSO_URL", "login.eveonline.com"), ("EVE_CALLBACK_URL", "8000")]
)
def test_an_address_is_told_by_one_of_its_kind(name: str, host: str) -> None:
    assert host in refused(**{name: "nonsense"})


def test_the_valid_value_of_a_refusal_is_valid() -> None:
    """What is shown to be copied can be copied; but for the commands that make a secret."""
    for name, value in {
        "PORT": "x",
        "SYNC_MAX_PAGES": "x",
        "LOG_LEVEL": "x",
        "HOST": "a b",
        "ESI_CONTACT": "\u00e9",
        "ESI_URL": "x",
        "SSO_URL": "x",
    }.items():
        example = refused(**{name: value}).rpartition("a valid value is ")[2]
        assert load(**{name: example})


@pytest.mark.parametrize("name", ["PORT", "RABBITMQ_URL", "DATABASE_URL", "EVE_CLIENT_ID", "LOG_LEVEL", "ESI_URL"])
@pytest.mark.parametrize("blank", ["", "  \t"])
def test_blank_means_the_default(name: str, blank: str) -> None:
    assert load(**{name: blank}) == load()


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    assert load(PORT=" 81 ", LOG_LEVEL=" debug\n").port == 81


def test_an_address_is_compared_and_joined_later_so_it_has_one_form() -> None:
    made = load(EVE_CALLBACK_URL="HTTPS://k.example/auth/callback", ESI_URL="https://esi.evetech.net/")

    assert made.eve_callback_url == "https://k.example/auth/callback"  # what decides whether the cookie is Secure
    assert made.esi_url == "https://esi.evetech.net"


def test_what_talks_to_the_sso_needs_an_application_and_is_told_how_to_get_one() -> None:
    with pytest.raises(SettingsError, match=r"EVE_CLIENT_ID is not set.*developers.*/auth/callback.*read_killmails"):
        load().require_eve_application()
    with pytest.raises(SettingsError, match="EVE_CLIENT_SECRET is not set"):
        load(EVE_CLIENT_ID="id").require_eve_application()
    load(EVE_CLIENT_ID="id", EVE_CLIENT_SECRET="geheim").require_eve_application()


class TestEnvFile:
    def read(self, tmp_path: Path, content: str | bytes, **environ: str) -> Settings:
        path = tmp_path / ".env"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return settings.load({**GIVEN, **environ}, path)

    def test_it_is_read_and_the_environment_wins(self, tmp_path: Path) -> None:
        content = "# a comment\nexport PORT=81\nLOG_LEVEL='ERROR'\nHOST=0.0.0.0\n"

        made = self.read(tmp_path, content, HOST="::", LOG_LEVEL="")

        assert (made.port, made.host) == (81, "::")
        assert made.log_level == "INFO"  # switched off by the environment

    def test_a_password_stands_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("x", "changed")
        assert self.read(tmp_path, "EVE_CLIENT_SECRET=a$b${x}c").eve_client_secret == "a$b${x}c"

    @pytest.mark.parametrize("content", ["PORT=81\nEVE_CLIENT_SECRET='geheim\n", b"EVE_CLIENT_SECRET=geheim\xff\n"])
    def test_a_file_that_cannot_be_read_is_told_without_its_content(self, tmp_path: Path, content: str | bytes) -> None:
        with pytest.raises(SettingsError, match=r"^\.env.{1,60}$") as caught:
            self.read(tmp_path, content)
        assert "geheim" not in str(caught.value)

    def test_a_directory_in_its_place(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
            settings.load(GIVEN, tmp_path)


class TestSecrets:
    SERVICES: Mapping[str, str] = {
        "DATABASE_URL": "postgresql://u:geheim-db@h/db",
        "RABBITMQ_URL": "amqp://u:geheim-mq@h",
        "EVE_CLIENT_SECRET": "geheim-sso",
    }

    def test_none_is_shown(self) -> None:
        made = load(**self.SERVICES)

        shown = f"{made!r} {made} {made.user_agent}"
        for secret in ("geheim", GIVEN["SECRET_KEY"], KEY):
            assert secret not in shown

    def test_settings_cannot_be_changed(self) -> None:
        changing: Any = load()
        with pytest.raises(FrozenInstanceError):
            changing.port = 1

    def test_with_a_broker_they_must_be_given(self) -> None:
        """Several machines must have the same ones."""
        for name in ("SECRET_KEY", "TOKEN_KEYS"):
            with pytest.raises(SettingsError, match=f"{name} is not set"):
                settings.load({**GIVEN, **self.SERVICES, name: ""}, NO_FILE)

    def test_without_one_they_are_made_once_and_kept_for_the_owner(self, var: Path) -> None:
        first, second = settings.load({}, NO_FILE), settings.load({}, NO_FILE)

        assert (first.secret_key, first.token_keys) == (second.secret_key, second.token_keys)
        assert {path.name for path in var.iterdir()} == {"secret_key", "token_keys"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in var.iterdir()} == {0o600}
        assert stat.S_IMODE(var.stat().st_mode) == 0o700

    def test_of_many_that_start_together_all_have_the_same(self, var: Path) -> None:
        def secrets_of_a_process(_: int) -> str:
            source = (
                "import os, pathlib, settings\n"
                f"settings.VAR = pathlib.Path({str(var)!r})\n"
                "made = settings.load({}, pathlib.Path('/nonexistent'))\n"
                "print(made.secret_key, made.token_keys)\n"
            )
            return subprocess.run(
                [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
            ).stdout

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(secrets_of_a_process, range(8)))) == 1

    def test_keys_are_rotated_by_putting_a_new_one_in_front(self) -> None:
        assert load(TOKEN_KEYS=f" {KEY} , {OLD_KEY},").token_keys == (KEY, OLD_KEY)

    @pytest.mark.parametrize("kept", [b"", b"\n", b"geheim\xff"])
    def test_a_damaged_one_is_not_replaced(self, var: Path, kept: bytes) -> None:
        """A new TOKEN_KEYS would make every stored token unreadable."""
        var.mkdir()
        (var / "token_keys").write_bytes(kept)

        with pytest.raises(SettingsError, match=r"TOKEN_KEYS.*var/token_keys") as caught:
            settings.load({"SECRET_KEY": GIVEN["SECRET_KEY"]}, NO_FILE)

        assert "geheim" not in str(caught.value)
        assert (var / "token_keys").read_bytes() == kept

    def test_a_place_that_cannot_be_written_is_told(self, var: Path) -> None:
        var.write_text("a file, where a directory should be")
        with pytest.raises(SettingsError, match="SECRET_KEY is not set and cannot be kept in var/secret_key: "):
            settings.load({}, NO_FILE)


def python_too_old() -> tuple[str, str]:
    """A Python 3.10 of this machine and no words; or else this one, and the words that make it like one."""
    for candidate in ("python3.10", *map(str, Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))):
        found = shutil.which(candidate)
        if found and subprocess.run([found, "-S", "-c", ""], capture_output=True, check=False).returncode == 0:
            return found, ""
    return sys.executable, "import datetime, sys; del datetime.UTC; sys.version_info = (3, 10, 4, 'final', 0)\n"


@pytest.mark.parametrize(
    "start",
    [
        "runpy.run_path('app.py', run_name='__main__')",
        "runpy.run_path('web/gunicorn.py')",
        "import app",
        "import actors",
        "runpy.run_module('simulator', run_name='__main__')",
        "runpy.run_path('scripts/migrate.py', run_name='__main__')",
        "runpy.run_path('scripts/check_queue.py', run_name='__main__')",
        "runpy.run_path('scripts/queue_users.py', run_name='__main__')",
        "runpy.run_path('scripts/demo.py', run_name='__main__')",
    ],
)
def test_a_python_that_is_too_old_is_told_so_before_anything_it_lacks_is_missed(start: str) -> None:
    python, pretend = python_too_old()
    words = f"{pretend}import runpy, sys; sys.path.insert(0, 'scripts')\n{start}"
    # -S: nothing that has to be installed is there, as in a fresh environment of that Python
    ended = subprocess.run([python, "-S", "-c", words], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("error: Python 3.11 or newer is needed")


def test_an_sqlite_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 34, 1))
    assert "SQLite 3.35 or newer is needed" in refused()


def test_the_environment_is_the_processes_own_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, GIVEN.get(name, ""))
    monkeypatch.setitem(os.environ, "PORT", "4711")
    assert settings.load(env_file=NO_FILE).port == 4711
