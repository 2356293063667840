"""No mouse: a pilot does everything with the keyboard, and the focus stays where it is while the page moves."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from models import User
from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot
from tests.browser.test_dashboard import bring, end_cool_down

NewPilot = Callable[..., tuple[int, str]]

#: Of the simulator's first pilots.
ELARA = "Elara Vantor"


def test_logging_in_looking_around_and_logging_out(pilot: Pilot) -> None:
    # When a pilot logs in
    pilot.open()
    page, keyboard = pilot.page, pilot.page.keyboard
    pilot.press_tab_until(lambda text: text == "Log in with EVE Online")
    keyboard.press("Enter")
    expect(page.get_by_role("link", name=ELARA)).to_be_visible()
    while ELARA not in page.evaluate("() => document.activeElement.textContent ?? ''")[:100]:
        keyboard.press("Tab")
    keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(ELARA)
    pilot.wait_for_sync()
    # Then the first thing skips the navigation
    page.reload()
    assert pilot.press_tab_until(lambda text: True) == "Skip to the content"
    keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    assert pilot.press_tab_until(lambda text: True) != "Dashboard"
    # And the list is filtered, a killmail opened and the way out found
    page.reload()
    pilot.press_tab_until(lambda text: text == "Killmails")
    keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("My killmails")
    pilot.press_tab_until(lambda text: text.startswith("Result"))
    keyboard.press("ArrowDown")
    pilot.press_tab_until(lambda text: text.startswith("Ship"))
    keyboard.press("Enter")
    expect(page).to_have_url(re.compile("side=kill"))
    first = pilot.rows.first.locator(".what a").inner_text()
    pilot.press_tab_until(lambda text: text == first)
    keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(first)
    pilot.press_tab_until(lambda text: text == "Log out")
    keyboard.press("Enter")
    expect(page.get_by_role("link", name="Log in with EVE Online")).to_be_visible()


@pytest.mark.parametrize(("button", "answer"), [("Sync now", "Sync queued."), ("Full sync", "Full sync queued.")])
def test_the_sync_buttons(pilot: Pilot, new_pilot: NewPilot, button: str, answer: str) -> None:
    # Given a pilot who may ask for a sync
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    end_cool_down(character_id)
    pilot.listens()
    pilot.open()
    # When they press the button
    pilot.press_tab_until(lambda text: text == button)
    pilot.page.keyboard.press("Enter")
    pilot.expects(lambda: answer in pilot.heard(), "the answer is shown")
    # Then it runs; the button is disabled after it, and the focus is where it was, and seen
    expect(pilot.page.get_by_role("button", name=button)).to_be_disabled(timeout=PATIENCE_MS)
    expect(pilot.page.locator("#history tbody tr")).to_have_count(2, timeout=PATIENCE_MS)
    assert "Possible again at" in pilot.focused
    rows = pilot.page.locator("#history tbody tr").first
    expect(rows).to_contain_text("You, full" if button == "Full sync" else "You")


def test_filters_and_export(system: Cluster, pilot: Pilot) -> None:
    # Given a list
    pilot.log_in(ELARA)
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    pilot.open("/killmails?side=loss")
    ship = pilot.rows.first.locator(".what a").inner_text()
    pilot.open("/killmails")
    keyboard = pilot.page.keyboard
    # When it is filtered by a ship, a day and what is no matter of NPCs
    pilot.press_tab_until(lambda text: text.startswith("Ship lost"))
    keyboard.type(ship)
    pilot.press_tab_until(lambda text: text.startswith("By NPCs"))
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")
    pilot.press_tab_until(lambda text: text.startswith("From"))
    keyboard.type("01012020")
    pilot.press_tab_until(lambda text: text == "Show")
    keyboard.press("Enter")
    expect(pilot.page.get_by_label("Ship lost")).to_have_value(ship)
    expect(pilot.page).to_have_url(re.compile(r"npc=0&from=2020-01-01"))
    shown = pilot.shown_ids()
    assert shown
    # Then that is what a file holds
    pilot.press_tab_until(lambda text: text == "CSV")
    with pilot.page.expect_download() as download:
        keyboard.press("Enter")
    with Path(download.value.path()).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["killmail_id"]) for row in rows] == shown
    assert {row["ship"] for row in rows} == {ship}
    # And all come back
    pilot.press_tab_until(lambda text: text == "Clear")
    keyboard.press("Enter")
    expect(pilot.page.get_by_label("Ship lost")).to_have_value("")
    assert len(pilot.shown_ids()) > len(shown)


def test_leaving_is_asked_for_twice(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot at the question whether to go
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    leave = "Unlink and delete my data"
    for answer in ("Stay", leave):
        pilot.open()
        pilot.press_tab_until(lambda text: text == leave)
        pilot.page.keyboard.press("Enter")
        expect(pilot.page.get_by_role("heading", level=1)).to_have_text(f"{leave}?")
        assert User.get_or_none(User.character_id == character_id) is not None
        # When they answer
        pilot.press_tab_until(answer.__eq__)
        pilot.page.keyboard.press("Enter")
        expect(pilot.page.get_by_role("heading", level=1)).to_have_text("Done" if answer == leave else name)
    # Then they are gone
    assert User.get_or_none(User.character_id == character_id) is None
    expect(pilot.page.get_by_role("button", name="Log out")).to_have_count(0)


def test_the_focus_stays_while_killmails_come(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a full list, and a pilot at a link in the middle of it, then at its very end
    character_id, name = new_pilot(killmails=30)
    pilot.log_in(name)
    pilot.wait_for_sync()
    pilot.open()
    history = pilot.page.locator("#history tbody tr")
    for times, number in enumerate((11, 24)):
        row = pilot.rows.nth(number)
        killmail_id = row.get_attribute("data-id")
        row.locator("a").first.focus()
        # When killmails come, and with the end of their sync parts of the page are made anew
        new = bring(system, character_id, 2)
        expect(history).to_have_count(2 + times, timeout=PATIENCE_MS)
        expect(pilot.page.locator(f".killmail[data-id='{max(new)}']")).to_be_visible()
        # Then they stand there still, and the list is no longer than it was
        assert row_in_focus(pilot) == killmail_id
        expect(pilot.rows).to_have_count(25)
        assert pilot.shown_ids() == sorted(pilot.shown_ids(), reverse=True)
    # And Tab goes on from there
    pilot.page.keyboard.press("Tab")
    assert row_in_focus(pilot) == killmail_id
    assert pilot.focused.startswith("zKillboard")


def test_the_focus_stays_in_what_is_made_anew(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot at a place in a part that the end of a sync changes
    character_id, name = new_pilot(killmails=2)
    pilot.log_in(name)
    pilot.wait_for_sync()
    history = pilot.page.locator("#history tbody tr")
    places: tuple[Locator, ...] = (
        pilot.page.get_by_role("link", name="More pictures"),
        pilot.page.locator("#picture summary"),
        pilot.page.get_by_role("region", name="Table of syncs"),
    )
    for times, place in enumerate(places):
        place.focus()
        place.evaluate("(it) => { it.old = true }")
        # When it is made anew
        bring(system, character_id, 1)
        expect(history).to_have_count(2 + times, timeout=PATIENCE_MS)
        expect(history.first).to_contain_text("Finished", timeout=PATIENCE_MS)
        # Then they are at the same place of the new one, which may come a moment after the table of syncs
        pilot.expects(partial(place.evaluate, "(it) => it.old === undefined"), "it is made anew")
        expect(place).to_be_focused()


def row_in_focus(pilot: Pilot) -> str | None:
    """The killmail whose row has the focus."""
    killmail_id: str | None = pilot.page.evaluate(
        "() => document.activeElement.closest('.killmail')?.dataset.id ?? null"
    )
    return killmail_id
