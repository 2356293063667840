"""What axe says, and whether it fits, in every state a page gets into: dark and light, 1280 and 360 pixels wide."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from database import execute
from models import Name
from simulator.names import HOSTILE_NAMES
from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot
from tests.browser.test_dashboard import bring

NewPilot = Callable[..., tuple[int, str]]
Rename = Callable[[str | None], None]

#: Addresses of this pilot's own, for what is limited by address.
ELSEWHERE = "203.0.113.9"


@pytest.fixture
def slow_esi(system: Cluster) -> Iterator[None]:
    """Answers take their time."""
    system.simulated.post("settings", {"latency_ms": "1000"})
    yield
    system.simulated.post("settings", {"latency_ms": "0"})


@pytest.fixture
def rename(system: Cluster) -> Iterator[Callable[[str | None], None]]:
    """Call everything the same, or nothing by any name, until the end of the test."""
    before: dict[int, str] = {}

    def rename(name: str | None) -> None:
        before.update(system.rows("SELECT id, name FROM names WHERE name IS NOT NULL"))
        system.simulated.fault(route="names", kind="status:500")
        Name.update(name=name, retry_at=None).execute()

    yield rename
    system.simulated.clear_faults()
    Name.update(name=None, retry_at=None).execute()
    for entity_id, name in before.items():
        Name.update(name=name).where(Name.id == entity_id).execute()


def test_signed_out_and_errors(sit_down: Callable[..., Pilot]) -> None:
    pilot = sit_down(extra_http_headers={"X-Forwarded-For": ELSEWHERE})
    for path in ("/", "/status", "/nowhere", "/auth/callback?error=access_denied", "/auth/callback?code=x&state=y"):
        pilot.open(path)
        assert pilot.demands_everywhere() == [], path
    for _ in range(30):
        pilot.context.request.get(f"{pilot.url}/login", max_redirects=0)
    pilot.open("/login")
    expect(pilot.page.get_by_role("heading", level=1)).to_have_text("Slow down")
    assert pilot.demands_everywhere() == []
    assert {re.sub(r".*status of (\d+).*", r"\1", each) for each in pilot.problems} == {"400", "404", "429"}
    pilot.problems.clear()


def test_nothing_there_yet(pilot: Pilot, new_pilot: NewPilot) -> None:
    _, name = new_pilot(killmails=0)
    pilot.log_in(name)
    pilot.wait_for_sync()
    expect(pilot.page.locator("#none")).to_be_visible()
    for path in ("/", "/killmails", "/pictures", "/unlink"):
        pilot.open(path)
        assert pilot.demands_everywhere() == [], path


@pytest.mark.usefixtures("slow_esi")
def test_a_sync_under_way(pilot: Pilot, new_pilot: NewPilot) -> None:
    _, name = new_pilot(killmails=150)
    pilot.log_in(name)
    expect(pilot.page.locator("#sync-summary")).to_have_text(re.compile("Fetching"), timeout=PATIENCE_MS)
    assert pilot.demands_everywhere() == []
    assert pilot.sync.get_attribute("data-phase") == "FETCHING", "it was still under way"


def test_names_that_are_not_known(pilot: Pilot, new_pilot: NewPilot, rename: Rename) -> None:
    _, name = new_pilot(killmails=3)
    pilot.log_in(name)
    pilot.wait_for_sync()
    rename(None)
    for path in ("/", "/killmails", f"/killmails/{pilot.shown_ids()[0]}", "/pictures"):
        pilot.open(path)
        expect(pilot.page.locator("[data-name-of]").first).to_be_visible()
        assert pilot.demands_everywhere() == [], path


def test_hostile_names(system: Cluster, pilot: Pilot, new_pilot: NewPilot, rename: Rename) -> None:
    # Given fights of a pilot with others, one name worse than the other, and his own the worst
    longest = max(HOSTILE_NAMES, key=len)
    victim_id, _ = new_pilot(name=longest, killmails=1)
    for hostile in HOSTILE_NAMES:
        other_id, _ = new_pilot(name=hostile)
        system.simulated.post(f"characters/{victim_id}/killmails", {"count": 2, "shared_with": other_id})
    pilot.open()
    pilot.page.get_by_role("link", name="Log in with EVE Online").click()
    pilot.page.locator(f"a[href*='character_id={victim_id}']").click()
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    # When everything, ships and systems too, is called so
    live = pilot.rows.all_inner_texts()
    pilot.open()
    assert pilot.rows.all_inner_texts() == live, "a name is cut live where the server cuts it"
    rename(longest)
    # Then every page holds it
    for path in ("/", "/killmails", f"/killmails/{pilot.shown_ids()[0]}", "/pictures", "/unlink"):
        pilot.open(path)
        assert pilot.demands_everywhere() == [], path


def test_filters(pilot: Pilot, new_pilot: NewPilot) -> None:
    _, name = new_pilot(killmails=60)
    pilot.log_in(name)
    pilot.wait_for_sync()
    expect(pilot.page.locator("[data-name-of]")).to_have_count(0, timeout=PATIENCE_MS)
    for query in (
        "side=loss&solo=0&npc=0&from=2020-01-01&to=2099-12-31",
        "ship=nothing+like+it&from=then",
        "system=Jita",
    ):
        pilot.open(f"/killmails?{query}")
        assert pilot.demands_everywhere() == [], query


def test_a_refused_login(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    system.simulated.post(f"characters/{character_id}/revoke", {})
    execute("UPDATE users SET expires_at = created_at WHERE character_id = ?", (character_id,))
    system.script("queue_users", "--force", "--character", str(character_id))
    expect(pilot.page.locator("#sync-error")).to_be_visible(timeout=PATIENCE_MS)
    expect(pilot.page.get_by_role("alert")).to_be_visible()
    assert pilot.demands_everywhere() == []
    for path in ("/", "/status", "/nowhere"):
        pilot.open(path)
        expect(pilot.page.get_by_role("alert")).to_be_visible()
        assert pilot.demands_everywhere() == [], path
    pilot.problems[:] = [each for each in pilot.problems if "404 (NOT FOUND)" not in each]  # /nowhere


def test_a_lost_connection_and_a_service_that_is_away(system: Cluster, pilot: Pilot, new_pilot: NewPilot) -> None:
    character_id, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    live = pilot.page.locator("#live")
    expect(live).to_have_attribute("data-state", "live")
    assert system.web is not None
    system.web.kill()
    expect(live).to_have_text(re.compile("Connection lost"), timeout=PATIENCE_MS)
    assert pilot.demands_everywhere() == []
    bring(system, character_id, 1)
    system.start_web()
    expect(live).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    pilot.was_cut_off()


def test_a_closed_road(system: Cluster, pilot: Pilot) -> None:
    gates = "INSERT INTO gates (name, closed_until, reason, failures) VALUES ('downtime', ?, 'ESI does not answer', 3)"
    execute("DELETE FROM gates")
    execute(gates, (2_000_000_000.0,))
    pilot.open("/status")
    assert pilot.demands_everywhere() == []
    execute("DELETE FROM gates")
