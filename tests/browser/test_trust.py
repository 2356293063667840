"""Whose data it is: two pilots in two browsers, a login that must be mended, and leaving."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import expect

from database import execute
from models import User
from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot

NewPilot = Callable[..., tuple[int, str]]


def test_two_pilots_see_only_their_own(system: Cluster, sit_down: Callable[..., Pilot], new_pilot: NewPilot) -> None:
    # Given two pilots in two browsers, both on their dashboards
    (one_id, one_name), (two_id, two_name) = new_pilot(killmails=3), new_pilot(killmails=3)
    one, two = sit_down(), sit_down()
    for pilot, name in ((one, one_name), (two, two_name)):
        pilot.log_in(name)
        pilot.wait_for_sync()
    expect(two.rows).to_have_count(3, timeout=PATIENCE_MS)
    # When killmails of one of them come
    before = two.shown_ids()
    system.simulated.post(f"characters/{one_id}/killmails", {"count": 2, "bust_cache": True})
    system.script("queue_users", "--force", "--character", str(one_id))
    expect(one.rows).to_have_count(5, timeout=PATIENCE_MS)
    # Then the other sees nothing of them, also once one of their own has come, and by no address
    assert two.shown_ids() == before
    system.simulated.post(f"characters/{two_id}/killmails", {"count": 1, "bust_cache": True})
    system.script("queue_users", "--force", "--character", str(two_id))
    expect(two.rows).to_have_count(4, timeout=PATIENCE_MS)
    assert set(two.shown_ids()) == system.simulated.killmail_ids(two_id)
    for killmail_id in one.shown_ids():
        for path in (f"/killmails/{killmail_id}", f"/killmails/{killmail_id}.json"):
            assert two.context.request.get(two.url + path).status == 404
    assert one_name not in two.page.content()


def test_a_refused_access_is_told_and_mended_with_one_click(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot whose access EVE takes back
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    system.simulated.post(f"characters/{character_id}/revoke", {})
    execute("UPDATE users SET expires_at = created_at WHERE character_id = ?", (character_id,))
    system.script("queue_users", "--force", "--character", str(character_id))
    expect(pilot.sync).to_have_attribute("data-phase", "FAILED", timeout=PATIENCE_MS)
    # When they look
    pilot.open()
    banner = pilot.page.get_by_role("alert")
    expect(banner).to_contain_text("Your killmails are not synced any more")
    expect(pilot.page.get_by_role("button", name="Sync now")).to_be_disabled()
    # Then one click and EVE's own page mend it
    banner.get_by_role("link", name="Log in with EVE Online").click()
    pilot.page.get_by_role("link", name=name).click()
    expect(pilot.page.get_by_role("heading", level=1)).to_have_text(name)
    expect(banner).to_have_count(0)


def test_leaving_says_what_goes_and_then_it_is_gone(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot with killmails
    character_id, name = new_pilot(killmails=4)
    pilot.log_in(name)
    pilot.wait_for_sync()
    held = system.simulated.killmail_ids(character_id)
    # When they leave
    pilot.page.get_by_role("link", name="Unlink and delete my data").click()
    expect(pilot.page.locator("main")).to_contain_text("4 killmails in nobody else's list are deleted")
    pilot.page.get_by_role("button", name="Unlink and delete my data").click()
    expect(pilot.page.get_by_role("heading", level=1)).to_have_text("Done")
    # Then nothing of theirs is left, and they are signed out
    assert User.get_or_none(User.character_id == character_id) is None
    marks = ", ".join("?" * len(held))
    assert system.scalar(f"SELECT COUNT(*) FROM killmails WHERE killmail_id IN ({marks})", *held) == 0
    pilot.open()
    expect(pilot.page.get_by_role("link", name="Log in with EVE Online")).to_be_visible()
