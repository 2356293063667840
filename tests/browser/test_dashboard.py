"""The dashboard in a real browser: a first sync as a pilot sees it, a lost connection, and the buttons."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from database import utcnow
from models import User
from tests.acceptance.cluster import Cluster
from tests.acceptance.processes import wait_until
from tests.browser.pilot import PATIENCE_MS, Pilot

NewPilot = Callable[..., tuple[int, str]]


#: For so long announcements are gathered, and a little more.
GATHER_MS = 2_500


def end_cool_down(character_id: int) -> None:
    """As if the last sync had been an hour ago."""
    User.update(last_killmail_sync_at=utcnow() - timedelta(hours=1)).where(User.character_id == character_id).execute()


def bring(system: Cluster, character_id: int, count: int) -> list[int]:
    """So many killmails happen, and a sync is queued as an operator would; their ids."""
    wish = {"count": count, "bust_cache": True}
    added = system.simulated.post(f"characters/{character_id}/killmails", wish)["added"]
    assert system.script("queue_users", "--force", "--character", str(character_id)).returncode == 0
    return [killmail_id for killmail_id, _ in added]


def test_a_first_login_shows_killmails_as_they_come(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot with killmails, and an ESI that takes its time
    _, name = new_pilot(killmails=60)
    system.simulated.post("settings", {"latency_ms": "300"})
    # When they log in
    pilot.log_in(name)
    pilot.marks_the_page()
    # Then the bar moves, counts rise and rows appear, while nobody reloads anything
    summary, bar = pilot.page.locator("#sync-summary"), pilot.page.locator("#sync-bar")
    expect(summary).to_have_text(re.compile(r"Fetching \d+ of 60"), timeout=PATIENCE_MS)
    expect(pilot.rows.first).to_be_visible()
    assert pilot.page.locator("[aria-current=step]").inner_text() == "Fetching"
    positions = {float(bar.get_attribute("value") or 0)}

    def moved() -> bool:
        positions.add(float(bar.get_attribute("value") or 0))
        return len(positions) >= 3

    wait_until(moved, "the bar moves")
    system.simulated.post("settings", {"latency_ms": "0"})
    pilot.wait_for_sync()
    expect(summary).to_have_text("Done: 60 new")
    assert max(positions) <= 1.0
    # And the page ends as the server would make it, names and security included
    expect(pilot.page.locator("[data-name-of], [data-security-of]")).to_have_count(0, timeout=PATIENCE_MS)
    live = [text.split() for text in pilot.rows.all_inner_texts()]
    assert pilot.was_not_reloaded()
    pilot.open()
    assert [text.split() for text in pilot.rows.all_inner_texts()] == live
    assert len(live) == 25


def test_new_killmails_appear_on_top_by_themselves(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a dashboard with a finished sync
    character_id, name = new_pilot(killmails=3)
    pilot.log_in(name)
    pilot.wait_for_sync()
    expect(pilot.rows).to_have_count(3, timeout=PATIENCE_MS)
    pilot.marks_the_page()
    # When two more killmails happen
    new = bring(system, character_id, 2)
    # Then they stand on top, newest first, and the record of syncs has one more line
    expect(pilot.rows).to_have_count(5, timeout=PATIENCE_MS)
    assert pilot.shown_ids()[:2] == sorted(new, reverse=True)
    expect(pilot.page.locator("#history tbody tr")).to_have_count(2, timeout=PATIENCE_MS)
    assert pilot.was_not_reloaded()


def test_what_is_new_is_said_once(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot who listens to a dashboard with a finished sync, and a clock that goes on only when told to
    character_id, name = new_pilot(killmails=3)
    pilot.log_in(name)
    pilot.wait_for_sync()
    pilot.listens()
    clock = pilot.page.clock
    clock.install()
    pilot.open()
    expect(pilot.page.locator("#live")).to_have_attribute("data-state", "live")
    clock.pause_at(datetime.now(UTC) + timedelta(seconds=2))
    clock.run_for(GATHER_MS)
    assert pilot.heard() == [], "nothing is new"
    # When killmails come, twice as many as one
    for times in (1, 2):
        bring(system, character_id, 2)
        expect(pilot.page.locator("#history tbody tr")).to_have_count(1 + times, timeout=PATIENCE_MS)
        expect(pilot.rows).to_have_count(3 + 2 * times, timeout=PATIENCE_MS)
        # Then what came and what came of it is said in one breath, into a silence: same words would be no change
        assert pilot.page.locator("#announce").inner_text() == ""
        clock.run_for(GATHER_MS)
        assert pilot.heard() == ["2 new killmails. Done: 2 new"] * times
    # And nothing is said of it when the page is loaded again
    pilot.open()
    expect(pilot.page.locator("#live")).to_have_attribute("data-state", "live")
    clock.run_for(GATHER_MS)
    assert pilot.heard() == []


def test_the_buttons_answer_is_said_once(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    end_cool_down(character_id)
    pilot.listens()
    pilot.page.clock.install()
    pilot.open()
    expect(pilot.page.locator("#live")).to_have_attribute("data-state", "live")
    pilot.page.clock.pause_at(datetime.now(UTC) + timedelta(seconds=2))
    pilot.page.get_by_role("button", name="Sync now").click()
    expect(pilot.page.locator("#history tbody tr")).to_have_count(2, timeout=PATIENCE_MS)
    pilot.page.clock.run_for(GATHER_MS)
    assert sorted(pilot.heard()) == ["Done: nothing new", "Sync queued."]
    # And what was said of a sync does not outlive it
    expect(pilot.page.locator("#message")).to_have_text("", timeout=PATIENCE_MS)


def test_an_alert_is_not_told_again_by_a_page_that_catches_up(
    system: Cluster, pilot: Pilot, new_pilot: NewPilot
) -> None:
    # Given a pilot whose login is no good any more, and whose connection is lost
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    User.update(needs_login_reason="EVE SSO refused it", next_sync_at=None).where(
        User.character_id == character_id
    ).execute()
    pilot.listens()
    pilot.open()
    live = pilot.page.locator("#live")
    expect(live).to_have_attribute("data-state", "live")
    assert system.web is not None
    system.web.kill()
    expect(live).to_have_attribute("data-state", "reconnecting", timeout=PATIENCE_MS)
    # When it is back, and its parts have been made anew
    system.start_web()
    with pilot.page.expect_response(pilot.url + "/"):
        expect(live).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    # Then the alert is still there, and was not told again
    expect(pilot.page.get_by_role("alert")).to_have_count(1)
    assert pilot.heard() == []
    pilot.was_cut_off()


def test_a_lost_connection_is_told_and_made_up_for(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a live dashboard
    character_id, name = new_pilot(killmails=4)
    pilot.log_in(name)
    pilot.wait_for_sync()
    live = pilot.page.locator("#live")
    pilot.listens()
    pilot.open()
    expect(live).to_have_attribute("data-state", "live")
    pilot.marks_the_page()
    states = pilot.page.evaluate_handle(WATCH_STATE)
    # When the server dies, killmails happen, and it comes back
    assert system.web is not None
    system.web.kill()
    expect(live).to_have_text(re.compile("Connection lost"), timeout=PATIENCE_MS)
    new = bring(system, character_id, 3)
    system.start_web()
    # Then the page says that it catches up, and has everything
    expect(live).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    expect(pilot.rows).to_have_count(7, timeout=PATIENCE_MS)
    assert set(new) <= set(pilot.shown_ids())
    assert states.json_value() == ["reconnecting", "catching up", "live"]
    # And each is told once, whichever of replay and look brought it
    pilot.expects(lambda: "Done: 3 new" in " ".join(pilot.heard()), "the end of the sync is told")
    told = ". ".join(pilot.heard()).split(". ")
    assert sum(int(text.split()[0]) for text in told if "new killmail" in text) == 3
    assert [text for text in told if "new killmail" not in text] == ["Done: 3 new"]
    assert pilot.was_not_reloaded()
    pilot.was_cut_off()


def test_a_session_that_ended_meanwhile_is_told(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a dashboard whose connection is lost, and its pilot logs out elsewhere
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    live = pilot.page.locator("#live")
    expect(live).to_have_attribute("data-state", "live")
    assert system.web is not None
    system.web.kill()
    expect(live).to_have_text(re.compile("Connection lost"), timeout=PATIENCE_MS)
    User.update(session_epoch=User.session_epoch + 1).where(User.character_id == character_id).execute()
    # When the connection is back
    system.start_web()
    # Then the page says so, and goes on saying so
    expect(live).to_have_text(re.compile("You are signed out"), timeout=PATIENCE_MS)
    pilot.page.wait_for_timeout(1_500)
    expect(live).to_have_attribute("data-state", "signed out")
    pilot.was_cut_off()


def test_the_buttons_work_without_leaving_the_page(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    # Given a pilot in cool-down: the buttons are disabled, and it is said until when
    character_id, name = new_pilot(killmails=2)
    pilot.log_in(name)
    pilot.wait_for_sync()
    button = pilot.page.get_by_role("button", name="Sync now")
    expect(button).to_be_disabled()
    expect(pilot.page.locator("#actions")).to_contain_text(re.compile(r"Possible again at \d\d:\d\d"))
    # When the cool-down is over and the button is pressed
    end_cool_down(character_id)
    pilot.listens()
    pilot.open()
    pilot.marks_the_page()
    button.click()
    # Then a sync runs and the button is disabled again
    pilot.expects(lambda: "Sync queued." in pilot.heard(), "the answer is shown")
    expect(pilot.page.locator("#history tbody tr")).to_have_count(2, timeout=PATIENCE_MS)
    expect(button).to_be_disabled()
    assert pilot.was_not_reloaded()


def test_without_scripts_everything_but_the_live_is_there(
    system: Cluster, sit_down: Callable[..., Pilot], new_pilot: NewPilot
) -> None:
    pilot = sit_down(java_script_enabled=False)
    character_id, name = new_pilot(killmails=2)
    pilot.log_in(name)
    system.wait_for_syncs()
    end_cool_down(character_id)
    pilot.open()
    assert pilot.rows.count() == 2
    pilot.page.get_by_role("button", name="Full sync").click()
    expect(pilot.page.locator(".notice[role=status]").first).to_have_text("Full sync queued.")


#: Collects the connection's states from now on.
WATCH_STATE = """() => {
  const seen = [];
  const place = document.getElementById("live");
  new MutationObserver(() => seen.at(-1) === place.dataset.state || seen.push(place.dataset.state))
    .observe(place, { attributes: true });
  return seen;
}"""
