"""Every page, for everybody: on a narrow screen, for axe, in both colour schemes, and not too heavy."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from settings import ROOT
from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot

#: Of the simulator's first pilots.
RENN = "Renn Marrec"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
PATHS = ("/", "/killmails", "/killmails?ship=nothing+like+that", "/pictures", "/status", "/unlink", "/nowhere")


@pytest.mark.parametrize(("scheme", "screen"), [("dark", WIDE), ("light", NARROW)], ids=["dark wide", "light narrow"])
def test_every_page_is_light_fits_and_passes_axe(
    system: Cluster, sit_down: Callable[..., Pilot], scheme: str, screen: dict[str, int]
) -> None:
    pilot = sit_down(color_scheme=scheme, viewport=screen)
    wrong: dict[str, list[str]] = {}
    for path in ("/", "/status"):
        pilot.open(path)
        wrong[f"{path} signed out"] = pilot.demands_of_any_page()
    pilot.log_in(RENN)
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    losses = [f"/killmails/{killmail_id}" for killmail_id in pilot.shown_ids()[:2]]
    for path in (*PATHS, *losses):
        pilot.open(path)
        for details in pilot.page.locator("details").all():
            details.locator("summary").click()
        wrong[path] = pilot.demands_of_any_page()
    pilot.problems[:] = [each for each in pilot.problems if "404 (NOT FOUND)" not in each]  # /nowhere
    assert {path: problems for path, problems in wrong.items() if problems} == {}


def test_a_thousand_attackers_fit_on_pages(system: Cluster, pilot: Pilot, new_pilot: Callable[..., Any]) -> None:
    # Given a loss to a thousand attackers: the simulator's killmail number 60
    _, name = new_pilot(killmails=61)
    pilot.log_in(name)
    pilot.wait_for_sync()
    pilot.open("/killmails")
    pilot.rows.filter(has_text="1,000 attackers").locator(".what a").click()
    expect(pilot.page.locator("#attackers-title")).to_have_text("1,000 attackers")
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    # Then a page holds some of them, is no heavier than any other, and leads on
    assert pilot.page.locator(".damage").count() == 50
    assert pilot.demands_of_any_page() == []
    pilot.page.get_by_role("link", name="Less damage").click()
    expect(pilot.page.locator("#attackers")).to_contain_text("Page 2 of 20")


@pytest.mark.screenshots
@pytest.mark.skipif(os.environ.get("SCREENSHOTS") != "1", reason="SCREENSHOTS=1 takes the README's pictures anew")
def test_pictures_for_the_readme(system: Cluster, sit_down: Callable[..., Pilot]) -> None:
    # Given a pilot with killmails, and more of them on their way
    pilot = sit_down(viewport={"width": 1100, "height": 860})
    pilot.log_in(RENN)
    pilot.wait_for_sync()
    pilot.open()  # without what was said about the login
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    character_id = next(each for each, one in system.simulated.truth().items() if one["name"] == RENN)
    system.simulated.post("settings", {"latency_ms": "300"})
    system.simulated.post(f"characters/{character_id}/killmails", {"count": 120, "bust_cache": True})
    system.script("queue_users", "--force", "--character", str(character_id))
    # Then this is what they see
    expect(pilot.page.locator("#sync-summary")).to_have_text(
        re.compile(r"Fetching [6-9]\d of 120"), timeout=PATIENCE_MS
    )
    take(pilot, ROOT / "docs" / "dashboard.png")
    system.simulated.post("settings", {"latency_ms": "0"})
    pilot.wait_for_sync()
    pilot.open("/killmails?side=loss&to=2099-01-01")
    pilot.rows.filter(has_text=re.compile(r"\b[5-9] attackers")).first.locator(".what a").click()
    expect(pilot.page.locator("#value")).to_contain_text("ISK", timeout=PATIENCE_MS)
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    take(pilot, ROOT / "docs" / "killmail.png")


def take(pilot: Pilot, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    pilot.page.evaluate("() => scrollTo(0, 0)")
    pilot.page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < 250_000
