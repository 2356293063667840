"""What the original did, on real processes: each of its scenarios from the pilot's login to the database."""

from __future__ import annotations

import json
import re
import sys
from datetime import timedelta
from typing import Any

import pytest

from database import utcnow
from tests.acceptance.cluster import Cluster
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import wait_until

SIMULATOR = ("--pilots", "4", "--killmails-count", "120", "--cache-seconds", "0", "--limit", "char-killmail=300/1m")

#: The contract's own checks, as they stand there.
LAST_SYNCS = """SELECT character_name, last_killmail_sync_at, last_killmail_id, expires_at FROM users
                ORDER BY last_killmail_sync_at DESC NULLS LAST"""
STORED_TODAY = "SELECT COUNT(*) FROM killmails WHERE created_at > CURRENT_DATE"


@pytest.fixture(scope="module")
def pilot(system: Cluster) -> int:
    """The first pilot, logged in and synced."""
    character_id = sorted(system.simulated.truth())[0]
    browser = system.browser()
    assert browser.log_in(character_id).status_code == 200
    system.wait_for_syncs()
    return character_id


def test_a_first_login_fetches_everything_at_priority_8(system: Cluster, pilot: int) -> None:
    (sync,) = syncs_of(system, pilot)
    listed = len(system.simulated.killmail_ids(pilot))

    assert (sync["trigger"], sync["priority"], sync["state"], sync["full"]) == ("LOGIN", 8, "FINISHED", True)
    assert (sync["found"], sync["saved"], sync["skipped"], sync["failed"]) == (listed, listed, 0, 0)
    assert system.differences(pilot) == []


def test_the_contracts_own_sql_runs_as_it_is(system: Cluster, pilot: int) -> None:
    name, synced_at, last_id, expires_at = next(row for row in system.rows(LAST_SYNCS) if row[1] is not None)

    assert name in {character["name"] for character in system.simulated.truth().values()}
    assert utcnow() - synced_at < timedelta(minutes=10)
    assert last_id == max(system.simulated.killmail_ids(pilot))
    assert expires_at > utcnow()
    assert system.scalar(STORED_TODAY) == system.scalar("SELECT COUNT(*) FROM killmails")


def test_a_second_login_within_the_cooldown_queues_nothing_and_says_how_long_ago(system: Cluster, pilot: int) -> None:
    browser = system.browser()
    before = len(syncs_of(system, pilot))

    page = browser.log_in(pilot)
    asked = browser.sync_now()

    assert page.status_code == 200
    assert re.search(r"Last synced \d+ minutes? ago", page.text), "the page after the login says it"
    assert asked["queued"] is False
    assert re.search(r"Last synced \d+ minutes? ago", asked["message"])
    assert len(syncs_of(system, pilot)) == before


def test_the_scheduler_syncs_who_is_due_at_priority_3_with_one_conditional_request(system: Cluster, pilot: int) -> None:
    make_due(system, pilot)
    seen = system.simulated.last_seq()

    send_queue_due_users(system)
    sync = wait_for_new_sync(system, pilot, "SCHEDULE")

    asked = [entry for entry in system.simulated.requests(seen) if entry["route"] in ("recent", "killmail")]
    assert (sync["priority"], sync["full"], sync["found"]) == (3, False, 0)
    assert [(entry["route"], entry["status"], entry["conditional"]) for entry in asked] == [("recent", 304, True)]


def test_new_killmails_arrive_in_the_background(system: Cluster, pilot: int) -> None:
    added = system.simulated.post(f"characters/{pilot}/killmails", {"count": 3, "bust_cache": True})["added"]
    make_due(system, pilot)

    send_queue_due_users(system)
    sync = wait_for_new_sync(system, pilot, "SCHEDULE")

    assert sync["saved"] == 3
    assert system.scalar("SELECT MAX(killmail_id) FROM killmails") == max(killmail_id for killmail_id, _ in added)
    assert system.differences(pilot) == []


def test_a_killmail_that_is_stored_already_is_skipped(system: Cluster, pilot: int) -> None:
    """The second pilot shares killmails with the first: none of them is asked for again."""
    second = max(system.simulated.truth(), key=lambda each: len(shared(system, pilot, each)) if each != pilot else -1)
    both = shared(system, pilot, second)
    assert both
    seen = system.simulated.last_seq()

    system.browser().log_in(second)
    system.wait_for_syncs()

    sync = syncs_of(system, second)[-1]
    asked = {entry["killmail_id"] for entry in system.simulated.requests(seen, "killmail")}
    assert sync["skipped"] == len(both)
    assert asked.isdisjoint(both)
    assert system.differences(pilot, second) == []


def test_force_full_by_hand_reads_every_page_without_an_etag(system: Cluster, pilot: int) -> None:
    idle = system.script("queue_users", "--character", str(pilot))
    assert (idle.returncode, "--force" in idle.stdout) == (0, True)
    seen = system.simulated.last_seq()

    queued = system.script("queue_users", "--force", "--full", "--character", str(pilot))
    sync = wait_for_new_sync(system, pilot, "MANUAL")

    assert "FULL SYNC" in queued.stdout
    lists = system.simulated.requests(seen, "recent")
    assert (sync["priority"], sync["full"]) == (5, True)
    assert sync["found"] == sync["skipped"] == len(system.simulated.killmail_ids(pilot))
    assert [(entry["status"], entry["conditional"]) for entry in lists] == [(200, False)]


def test_an_expired_access_token_is_refreshed(system: Cluster, pilot: int) -> None:
    before = system.scalar("SELECT access_token FROM users WHERE character_id = ?", pilot)
    system.rows(
        "UPDATE users SET expires_at = ? WHERE character_id = ? RETURNING id", utcnow() - timedelta(hours=9), pilot
    )
    make_due(system, pilot)
    seen = system.simulated.last_seq()

    send_queue_due_users(system)
    sync = wait_for_new_sync(system, pilot, "SCHEDULE")

    refreshes = [entry["grant_type"] for entry in system.simulated.requests(seen, "token")]
    assert sync["state"] == "FINISHED"
    assert refreshes == ["refresh_token"]
    assert system.scalar("SELECT access_token FROM users WHERE character_id = ?", pilot) != before
    assert system.scalar("SELECT expires_at FROM users WHERE character_id = ?", pilot) > utcnow()


def test_a_403_costs_another_access_token_and_disables_nobody(system: Cluster, pilot: int) -> None:
    seen = system.simulated.last_seq()
    system.simulated.fault(route="recent", kind="status:403", count=1)
    system.rows("UPDATE users SET list_etag = NULL WHERE character_id = ? RETURNING id", pilot)

    system.script("queue_users", "--force", "--character", str(pilot))
    sync = wait_for_new_sync(system, pilot, "MANUAL")

    assert (sync["state"], sync["error"]) == ("FINISHED", None)
    assert [entry["grant_type"] for entry in system.simulated.requests(seen, "token")] == ["refresh_token"]
    state, next_sync_at = system.rows(
        "SELECT needs_login_reason, next_sync_at FROM users WHERE character_id = ?", pilot
    )[0]
    assert state is None
    assert next_sync_at > utcnow()


def test_a_user_without_the_scope_is_not_queued_and_is_told(system: Cluster, pilot: int) -> None:
    third = sorted(system.simulated.truth())[2]
    browser = system.browser()
    to_sso = browser.session.get(f"{system.web_url}/login", allow_redirects=False, timeout=30).headers["Location"]
    without_scope = re.sub(r"scope=[^&]*", "scope=", to_sso)

    page = browser.session.get(f"{without_scope}&character_id={third}", timeout=30)

    assert page.status_code == 200
    assert browser.me()["tokenState"] == "MISSING_SCOPE"
    assert syncs_of(system, third) == []


def test_worker_status_needs_no_session_and_counts_the_consumers(system: Cluster, pilot: int) -> None:
    status = Browser(system.web_url).graphql("{ workerStatus { queueName messageCount consumerCount } }")[
        "workerStatus"
    ]

    by_name = {queue["queueName"]: queue for queue in status}
    assert set(by_name) == {
        "esi_user_killmails_queue", "esi_killmail_details_queue", "esi_names_queue", "maintenance_queue",
    }  # fmt: skip
    assert {queue["consumerCount"] for queue in status} == {2}
    assert by_name["esi_killmail_details_queue"]["messageCount"] == 0


def test_check_queue_shows_the_same_as_json(system: Cluster, pilot: int) -> None:
    report = json.loads(system.script("check_queue", "--json").stdout)

    assert report["mode"] == "services"
    assert {queue["consumer_count"] for queue in report["queues"]} == {2}
    assert report["killmails"] == system.scalar("SELECT COUNT(*) FROM killmails")


def test_the_scheduler_process_runs_by_the_clock(system: Cluster, pilot: int) -> None:
    """periodiq itself: the tick finds a sync whose message was lost, within the minute."""
    user_id = system.scalar("SELECT id FROM users WHERE character_id = ?", pilot)
    long_ago = utcnow() - timedelta(minutes=30)
    system.rows(
        """INSERT INTO syncs (user_id, trigger, priority, "full", state, queued_at, sent_at, next_page, found, skipped,
                              saved, failed, attempts)
           VALUES (?, 'WEB', 8, FALSE, 'QUEUED', ?, ?, 1, 0, 0, 0, 0, 0) RETURNING id""",
        user_id, long_ago, long_ago,
    )  # fmt: skip

    scheduler = system.start_scheduler()
    try:
        wait_until(lambda: syncs_of(system, pilot)[-1]["state"] == "FINISHED", "the lost sync runs", 90)
    finally:
        scheduler.stop()


def syncs_of(system: Cluster, character_id: int) -> list[dict[str, Any]]:
    columns = ("trigger", "priority", "state", "full", "found", "saved", "skipped", "failed", "error")
    quoted = ", ".join(f's."{column}"' for column in columns)
    rows = system.rows(
        f"SELECT {quoted} FROM syncs s JOIN users u ON u.id = s.user_id WHERE u.character_id = ? ORDER BY s.id",
        character_id,
    )
    return [dict(zip(columns, row, strict=True)) for row in rows]


def wait_for_new_sync(system: Cluster, character_id: int, trigger: str) -> dict[str, Any]:
    """The newest sync, once it is of this trigger and has ended."""

    def ended() -> dict[str, Any] | None:
        newest = syncs_of(system, character_id)[-1]
        return newest if newest["trigger"] == trigger and newest["state"] in ("FINISHED", "FAILED") else None

    sync = wait_until(ended, f"a {trigger} sync of {character_id} ends", 60)
    assert isinstance(sync, dict)
    return sync


def make_due(system: Cluster, character_id: int) -> None:
    """As if the last sync were hours ago."""
    past = utcnow() - timedelta(hours=2)
    system.rows(
        "UPDATE users SET next_sync_at = ?, last_killmail_sync_at = ? WHERE character_id = ? RETURNING id",
        past, past, character_id,
    )  # fmt: skip
    # Syncs of the same trigger that ended earlier must not be taken for the one to come.
    system.rows(
        """DELETE FROM syncs WHERE finished_at IS NOT NULL AND trigger = 'SCHEDULE'
           AND user_id = (SELECT id FROM users WHERE character_id = ?) RETURNING id""",
        character_id,
    )


def send_queue_due_users(system: Cluster) -> None:
    """What periodiq does every ten minutes, now."""
    code = "from actors.schedule import queue_due_users; queue_due_users.send()"
    sent = system.processes.run([sys.executable, "-c", code])
    assert sent.returncode == 0, sent.stderr


def shared(system: Cluster, one: int, other: int) -> set[int]:
    return system.simulated.killmail_ids(one) & system.simulated.killmail_ids(other)
