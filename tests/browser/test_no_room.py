"""A server with no room for another socket, and one that asks to come back: the page keeps up, and asks rarely."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import WebSocketRoute, expect

from tests.acceptance.cluster import Cluster
from tests.browser.pilot import PATIENCE_MS, Pilot
from tests.browser.test_dashboard import bring

NewPilot = Callable[..., tuple[int, str]]

#: Handshakes of one page in an hour: at once, then after 1, 2, 4 and from then on 8 minutes, each half as much or half
#: as much again. 5,000 pages of which 4,000 find no room then make 10 a second, and not 130.
MOST_HANDSHAKES = 20
HOUR_MS = 3_600_000


def test_a_page_without_room_says_so_asks_rarely_and_still_shows_what_is_new(
    system: Cluster, pilot: Pilot, new_pilot: NewPilot
) -> None:
    # Given a server that has no room for this page's socket
    character_id, name = new_pilot(killmails=2)
    pilot.log_in(name)
    pilot.wait_for_sync()
    handshakes: list[WebSocketRoute] = []

    def refuse(socket: WebSocketRoute) -> None:
        handshakes.append(socket)
        socket.close(code=1013, reason="Too many sockets")

    pilot.page.route_web_socket("**/graphql", refuse)
    clock = pilot.page.clock
    clock.install()
    pilot.open()
    live = pilot.page.locator("#live")
    expect(live).to_have_attribute("data-state", "no room", timeout=PATIENCE_MS)
    expect(live).to_contain_text("Live updates are paused")
    assert pilot.demands_everywhere() == []
    pilot.marks_the_page()
    # When killmails come, and time goes by
    new = bring(system, character_id, 3)
    pilot.expects(lambda: _stored(system, new), "they are stored")
    for _ in range(5):
        clock.run_for(60_000)
    # Then the page has found them, and what the sync came to
    expect(pilot.rows).to_have_count(5, timeout=PATIENCE_MS)
    expect(pilot.page.locator("#sync-summary")).to_have_text("Done: 3 new")
    for _ in range(60):
        clock.run_for(HOUR_MS // 60)
    assert 3 <= len(handshakes) <= MOST_HANDSHAKES
    # And once there is room it is live again
    pilot.page.unroute_all()
    pilot.page.route_web_socket("**/graphql", lambda socket: socket.connect_to_server())
    clock.run_for(12 * 60_000)
    expect(live).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    assert pilot.was_not_reloaded()


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4008])
def test_a_page_connects_again_soon(pilot: Pilot, new_pilot: NewPilot, code: int) -> None:
    _, name = new_pilot(killmails=1)
    pilot.log_in(name)
    pilot.wait_for_sync()
    handshakes: list[WebSocketRoute] = []

    def cut_once(socket: WebSocketRoute) -> None:
        handshakes.append(socket)
        if len(handshakes) == 1:
            socket.close(code=code, reason="for the moment")
        else:
            socket.connect_to_server()

    pilot.page.route_web_socket("**/graphql", cut_once)
    pilot.open()
    expect(pilot.page.locator("#live")).to_have_attribute("data-state", "live", timeout=PATIENCE_MS)
    assert len(handshakes) == 2


def _stored(system: Cluster, killmail_ids: list[int]) -> bool:
    marks = ", ".join(str(each) for each in killmail_ids)
    return bool(system.scalar(f"SELECT COUNT(*) = {len(killmail_ids)} FROM killmails WHERE killmail_id IN ({marks})"))
