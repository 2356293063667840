"""Fixtures of every test that needs a database file, settings, or a web application without the system behind it.

And the rule of skips: with CI=true there are none, but for tests whose marker says that they need what a checkout does
not hold (`real_killmails`) or write what only a person asks for (`screenshots`).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from cryptography.fernet import Fernet
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database

import database
import events
import migrations
import settings as settings_module
from api import transport_ws
from api.callers import limiter
from app import create_app
from models import User
from settings import Settings
from tests.web_app import FakeBackend

# A developer's own settings stay out of the tests: the actors read theirs when they are imported.
os.environ.update(dict.fromkeys(settings_module.NAMES, ""))

# What a shell runs in the background ignores Ctrl-C, and so would every process that a test starts and stops by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: 439 real killmails beside the repository, and no part of it.
REAL_KILLMAILS = settings_module.ROOT.parent / "shared" / "esi" / "killmails"
#: Markers of tests that may be skipped everywhere.
MAY_BE_SKIPPED = ("real_killmails", "screenshots")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real_killmails") is not None and not REAL_KILLMAILS.is_dir():
        pytest.skip("the real killmails are not here: ../shared/esi/killmails")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if any(map(item.get_closest_marker, MAY_BE_SKIPPED)) else without_skip(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skip((yield))


def without_skip(report: Report) -> Report:
    """With CI=true a skip is a failure: what is not run there is run nowhere."""
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"CI=true allows no skip. {reason}"
    return report


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file with the schema that production's migrations make, to be copied."""
    path = tmp_path_factory.mktemp("schema") / "empty.db"
    connected = database.connect(f"sqlite:///{path}")
    migrations.upgrade()
    cast(Any, connected).close_all()
    return path


@pytest.fixture
def database_file(migrated_file: Path, tmp_path: Path) -> Path:
    """An empty, migrated SQLite file of the test's own."""
    return Path(shutil.copyfile(migrated_file, tmp_path / "killmails.db"))


@pytest.fixture
def sqlite_db(database_file: Path) -> Iterator[Database]:
    """`database.db` bound to `database_file`. The application opens and closes connections as in production."""
    connected = database.connect(f"sqlite:///{database_file}")
    yield connected
    if not connected.is_closed():
        connected.close()
    cast(Any, connected).close_all()


@pytest.fixture
def make_settings(database_file: Path) -> Callable[..., Settings]:
    """Settings as embedded mode has them, read from nothing but this; keyword arguments replace single ones."""

    def make(**changes: Any) -> Settings:
        environ = {
            "DATABASE_URL": f"sqlite:///{database_file}",
            "EVE_CLIENT_ID": "client-id",
            "EVE_CLIENT_SECRET": "client-secret",
            "SECRET_KEY": "not-a-secret-" * 4,
            "TOKEN_KEYS": Fernet.generate_key().decode(),
        }
        return replace(settings_module.load(environ, env_file=Path("/nonexistent")), **changes)

    return make


@pytest.fixture
def backend() -> FakeBackend:
    """What the application asks for syncs, queues and logins."""
    return FakeBackend()


@pytest.fixture
def app(sqlite_db: Database, make_settings: Callable[..., Settings], backend: FakeBackend) -> Iterator[Flask]:
    """The web application on `sqlite_db`, with `backend` behind it."""
    settings = make_settings()
    events.configure(None)
    app = create_app(settings, backend.system(settings))
    limiter.reset()  # counts are the process's
    yield app
    app.extensions[transport_ws.EXTENSION].close_all()  # its thread has a connection that is closed next
    events.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser that nobody has signed in."""
    return app.test_client()


@pytest.fixture
def sign_in(client: FlaskClient) -> Callable[[User], None]:
    """Give `client` the session that a login of this user ends with."""

    def sign_in(user: User) -> None:
        with client.session_transaction() as session:
            session["user_id"] = user.id
            session["epoch"] = user.session_epoch

    return sign_in
