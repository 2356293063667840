"""The list, one killmail and the files in a real browser."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from database import execute, utcnow
from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot

#: Of the simulator's first pilots.
KATJA = "Katja Solace"
HOSTILE = '=<img src=x onerror="document.title=1"><script>document.title = 1</script>'


@pytest.fixture
def katja(pilot: Pilot) -> Pilot:
    """With eighty killmails and more, and all their names."""
    pilot.log_in(KATJA)
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    return pilot


def truth_of(system: Cluster, name: str) -> dict[int, dict[str, Any]]:
    """Killmail id to what the simulator knows of it."""
    pilots = system.simulated.truth().items()
    character_id = next(each for each, character in pilots if character["name"] == name)
    return {each: {} for each in system.simulated.killmail_ids(character_id)}


def saved(pilot: Pilot, link: str) -> Path:
    with pilot.page.expect_download() as download:
        pilot.page.get_by_role("link", name=link, exact=True).click()
    return Path(download.value.path())


def test_filters_stand_in_the_address(system: Cluster, katja: Pilot) -> None:
    # Given the list
    katja.page.get_by_role("link", name="Killmails", exact=True).click()
    all_ids = set(truth_of(system, KATJA))
    expect(katja.page.locator("#list-title")).to_have_text(f"{len(all_ids)} killmails")
    # When losses of one ship are asked for
    ship = katja.rows.filter(has_text="Loss").first.locator(".what a").inner_text()
    katja.page.get_by_label("Result").select_option("Losses")
    katja.page.get_by_label("Ship lost").fill(ship.lower())
    katja.page.get_by_role("button", name="Show").click()
    # Then only they are there, and the address is worth a bookmark
    expect(katja.page.get_by_label("Ship lost")).to_have_value(ship)
    assert f"side=loss&ship={ship.lower().replace(' ', '+')}" in katja.page.url
    assert katja.rows.count() > 0
    for row in katja.rows.all():
        assert row.locator(".side").inner_text().lower() == "loss"  # capitals are the style sheet's
        assert row.locator(".what a").inner_text() == ship
    # And clearing brings all back
    katja.page.get_by_role("link", name="Clear").click()
    expect(katja.page.locator("#list-title")).to_have_text(f"{len(all_ids)} killmails")


def test_pages_lead_there_and_back(system: Cluster, katja: Pilot) -> None:
    katja.open("/killmails")
    first = katja.shown_ids()
    katja.page.get_by_role("link", name="Older").click()
    expect(katja.page.get_by_role("link", name="Newer")).to_be_visible()
    second = katja.shown_ids()
    assert set(first) | set(second) == set(truth_of(system, KATJA))
    assert max(second) < min(first)
    katja.page.get_by_role("link", name="Newer").click()
    expect(katja.page.get_by_role("link", name="Newer")).to_have_count(0)
    assert katja.shown_ids() == first


def test_export_holds_everything(system: Cluster, katja: Pilot) -> None:
    katja.open("/killmails")
    everything = set(truth_of(system, KATJA))
    with saved(katja, "CSV").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["killmail_id"]) for row in rows] == sorted(everything, reverse=True)
    assert all(row["ship"] and row["system"] for row in rows)
    exported = json.loads(saved(katja, "JSON").read_text())
    assert {killmail["killmail_id"] for killmail in exported} == everything


def test_one_killmail(katja: Pilot) -> None:
    # Given a killmail of many attackers
    katja.open("/killmails?side=loss")
    katja.rows.filter(has_text="attackers").first.locator(".what a").click()
    page = katja.page
    # Then there is who lost what where, and who did how much of it
    expect(page.get_by_role("heading", level=1)).to_contain_text("Loss")
    damage = [each.inner_text() for each in page.locator(".damage").all()]
    numbers = [int(text.split()[0].replace(",", "")) for text in damage]
    assert numbers == sorted(numbers, reverse=True)
    assert page.locator(".tag.final").count() == 1
    # And its value, as soon as there are prices
    expect(page.locator("#value")).to_contain_text("ISK", timeout=PATIENCE_MS)
    # And the killmail as ESI has it
    body = json.loads(saved(katja, "Raw JSON").read_text())
    assert page.url.endswith(str(body["killmail_id"]))
    assert len(body["attackers"]) == len(numbers)


@pytest.mark.parametrize("kind", ["dashboard", "list", "killmail"])
def test_security_is_filled_in_when_it_is_known(katja: Pilot, kind: str) -> None:
    # Given a page of systems of which ESI has not told anything yet
    unknown = katja.page.locator("[data-security-of]")
    expect(unknown).to_have_count(0, timeout=PATIENCE_MS)
    path = {"dashboard": "/", "list": "/killmails", "killmail": f"/killmails/{katja.shown_ids()[0]}"}[kind]
    execute("UPDATE solar_systems SET security_status = NULL, retry_at = ?", (utcnow() + timedelta(hours=1),))
    katja.open(path)
    assert unknown.count() > 0
    katja.marks_the_page()
    # When it does
    execute("UPDATE solar_systems SET retry_at = NULL")
    # Then the page shows it, as the server would have
    expect(unknown).to_have_count(0, timeout=PATIENCE_MS)
    assert katja.was_not_reloaded()
    live = [each.evaluate("it => it.outerHTML") for each in katja.page.locator(".security").all()]
    assert katja.inaccessible() == []
    katja.open(path)
    assert [each.evaluate("it => it.outerHTML") for each in katja.page.locator(".security").all()] == live


def test_hostile_names_are_text(
    system: Cluster, sit_down: Callable[..., Pilot], new_pilot: Callable[..., tuple[int, str]]
) -> None:
    # Given a pilot whose name is markup, script and formula, met in a fight
    victim_id, victim = new_pilot(killmails=1)
    hostile_id, _ = new_pilot(name=HOSTILE)
    system.simulated.post(f"characters/{victim_id}/killmails", {"count": 3, "shared_with": hostile_id})
    pilot = sit_down()
    # When either looks at every page
    pilot.log_in(victim)
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    title = pilot.page.title()
    assert HOSTILE in pilot.page.locator("#killmails").inner_text()
    assert pilot.page.title() == title
    pilot.rows.first.locator(".what a").click()
    expect(pilot.page.locator("#attackers, .wreck").filter(has_text=HOSTILE).first).to_be_visible()
    assert pilot.page.title() != "1"
    # Then a spreadsheet gets no formula either
    pilot.open("/killmails")
    with saved(pilot, "CSV").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row if HOSTILE in cell]
    assert cells
    assert set(cells) == {f"'{HOSTILE}"}
