"""A real Chromium against the embedded system and the simulator: one for all tests here, and a fresh profile for each.

Where there is no Chromium the tests are skipped with one line; with CI=true they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.acceptance.cluster import Cluster, cluster
from tests.browser.pilot import Pilot
from tests.postgres import missing

NO_CHROMIUM = "Chromium not found: on Debian, apt install chromium; or set CHROMIUM to where it is"
#: As root, without a display, and asking nobody on the network for anything.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
#: Five pilots with eighty killmails each; their lists may be asked for again at once, and often.
SIMULATOR = (
    *("--pilots", "5", "--killmails-count", "400", "--cache-seconds", "0", "--seed", "7"),
    *("--limit", "char-killmail=300/1m"),
)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing(NO_CHROMIUM)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def system(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Cluster]:
    """`python app.py` on SQLite, serving."""
    directory = tmp_path_factory.mktemp("browser")
    with cluster(directory, f"sqlite:///{directory}/killmails.db", "", *SIMULATOR) as made:
        made.start_web()
        yield made


@pytest.fixture
def sit_down(system: Cluster, chromium: Browser) -> Iterator[Callable[..., Pilot]]:
    """Open a browser of one's own; keyword arguments are those of Playwright's `new_context`.

    A test ends badly if its console said anything that it did not take out of `problems`.
    """
    pilots: list[Pilot] = []

    def sit_down(**options: Any) -> Pilot:
        context = chromium.new_context(**{"color_scheme": "dark", **options})
        pilots.append(Pilot.sit_down(context, system.web_url))
        return pilots[-1]

    yield sit_down
    problems = [problem for pilot in pilots for problem in pilot.problems]
    for pilot in pilots:
        with suppress(Exception):
            pilot.context.close()
    assert problems == []


@pytest.fixture
def pilot(sit_down: Callable[..., Pilot]) -> Pilot:
    return sit_down()


@pytest.fixture(scope="package")
def _numbers() -> Iterator[int]:
    return count()


@pytest.fixture
def new_pilot(system: Cluster, _numbers: Iterator[int]) -> Callable[..., tuple[int, str]]:
    """A character nobody has logged in with yet: its id and name."""

    def make(killmails: int = 0, name: str | None = None) -> tuple[int, str]:
        wish = {"killmails": killmails, "name": name or f"Aeryn Test-{next(_numbers)}"}
        made = system.simulated.post("characters", wish)
        return int(made["character_id"]), str(made["name"])

    return make
