"""An allowance that is used up, as a pilot sees it: said for what and until when, and over by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.acceptance.cluster import Cluster, cluster
from tests.browser.pilot import PATIENCE_MS, Pilot

KILLMAILS = 20
#: ESI bears twelve killmails in forty seconds.
SIMULATOR = ("--pilots", "1", "--killmails-count", str(KILLMAILS), "--limit", "killmail=24/40s", "--seed", "7")
WAITING = re.compile(r"^ESI's allowance is used up, goes on at (\d\d:\d\d) EVE time$")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, chromium: Browser) -> Iterator[Cluster]:
    """In place of the package's: a system of its own, on an ESI that bears little."""
    directory = tmp_path_factory.mktemp("waiting")
    with cluster(directory, f"sqlite:///{directory}/killmails.db", "", *SIMULATOR) as made:
        made.start_web()
        yield made


def test_a_sync_waits_for_its_allowance_and_goes_on(system: Cluster, pilot: Pilot) -> None:
    # Given a pilot with more killmails than ESI gives out at once
    (character_id, character), *_ = system.simulated.truth().items()
    pilot.log_in(character["name"])
    pilot.marks_the_page()
    # When the allowance is used up
    page, bar = pilot.page, pilot.page.locator("#sync-bar")
    waiting = page.locator("#sync-waiting")
    expect(waiting).to_have_text(WAITING, timeout=PATIENCE_MS)
    # Then it is said until when, as it stands in the database; the bar stands where it got to, and no button lies
    (until,) = system.rows("SELECT until FROM waits WHERE name = 'interactive'")[0]
    told = WAITING.match(waiting.inner_text())
    assert told is not None and told[1] == str(until)[11:16]
    expect(page.locator("#sync-summary")).to_have_text(re.compile(rf"Fetching \d+ of {KILLMAILS}"))
    # and the rest of the page says the same
    expect(page.locator("#pilot")).to_contain_text("A sync is under way.")
    expect(page.locator("#history tbody tr").first).to_contain_text(re.compile("Fetching|Waiting"))
    stood = float(bar.get_attribute("value") or 0)
    assert 0.1 < stood < 1.0
    assert 0 < pilot.rows.count() < KILLMAILS
    # And it is told the operator
    operator = page.context.new_page()
    operator.goto(f"{pilot.url}/status")
    expect(operator.get_by_text("an allowance is used up")).to_be_visible()
    expect(operator.get_by_role("row", name=re.compile("^killmail "))).to_contain_text(
        re.compile(r"closed until \d\d:\d\d")
    )
    operator.close()
    assert pilot.demands_everywhere() == []
    # And the page says the same when it is loaded again
    response = page.reload()
    assert response is not None
    assert re.search(r"allowance is used up, goes on at \d\d:\d\d EVE time</p>", response.text())
    expect(waiting).to_have_text(WAITING)
    assert float(bar.get_attribute("value") or 0) >= stood - 0.001, "the server writes three digits"
    # When so much time has passed, then it goes on by itself, to the end
    pilot.marks_the_page()
    pilot.wait_for_sync()
    expect(waiting).to_be_hidden()
    expect(page.locator("#sync-summary")).to_have_text(f"Done: {KILLMAILS} new")
    assert float(bar.get_attribute("value") or 0) == 1.0
    assert system.scalar("SELECT COUNT(*) FROM killmails") == KILLMAILS
    assert system.simulated.killmail_ids(character_id) == {
        row[0] for row in system.rows("SELECT killmail_id FROM killmails")
    }
    assert pilot.was_not_reloaded()
