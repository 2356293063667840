"""The main path with nothing but Python: web, workers and scheduler in one process, on SQLite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.processes import wait_until

SIMULATOR = ("--pilots", "3", "--killmails-count", "150", "--cache-seconds", "0", "--limit", "char-killmail=300/1m")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Cluster]:
    """A system that is not started yet."""
    with cluster(tmp_path, f"sqlite:///{tmp_path}/killmails.db", "", *SIMULATOR) as made:
        yield made


def test_login_to_stored_killmails_in_one_process(system: Cluster) -> None:
    system.start_web()

    browsers = {character_id: system.browser() for character_id in system.simulated.truth()}
    for character_id, browser in browsers.items():
        assert browser.log_in(character_id).status_code == 200
    system.wait_for_syncs()

    assert system.differences() == []
    for character_id, browser in browsers.items():
        assert browser.me()["characterId"] == str(character_id)
        sync = browser.last_sync()
        assert sync is not None
        assert (sync["state"], sync["priority"], sync["failed"]) == ("FINISHED", 8, 0)
    fetched = [entry["killmail_id"] for entry in system.simulated.requests(route="killmail") if entry["status"] == 200]
    assert len(fetched) == len(set(fetched)) == 150


def test_a_restart_takes_up_what_was_in_hand(system: Cluster) -> None:
    """Given `kill -9` of everything in the middle, When it starts again, Then it goes on at once and by itself."""
    web = system.start_web()
    for character_id in system.simulated.truth():
        system.browser().log_in(character_id)
    wait_until(lambda: system.scalar("SELECT COUNT(*) FROM killmails") >= 30, "a part is stored", pause=0.02)

    web.kill()
    assert system.scalar("SELECT COUNT(*) FROM ledger") > 0
    system.start_web()

    system.wait_for_syncs()
    assert system.differences() == []


def test_queue_users_beside_the_running_process(system: Cluster) -> None:
    """Given a running system, When a script in a second terminal queues a user, Then it is synced within seconds."""
    system.start_web()
    pilot = min(system.simulated.truth())
    system.browser().log_in(pilot)
    system.wait_for_syncs()
    system.simulated.post(f"characters/{pilot}/killmails", {"count": 2, "bust_cache": True})

    queued = system.script("queue_users", "--force", "--character", str(pilot))

    assert "INCREMENTAL" in queued.stdout
    wait_until(lambda: not system.differences(pilot), "the new killmails are stored", 20)
    assert "embedded" in system.script("check_queue").stdout


def test_a_second_process_on_the_same_database_is_refused(system: Cluster) -> None:
    system.start_web()

    second = system.processes.run([sys.executable, "app.py"], PORT="0")

    assert second.returncode == 1
    assert "another `python app.py` is running" in second.stderr


def test_no_active_users_says_what_to_do(system: Cluster) -> None:
    assert system.script("migrate").returncode == 0

    nobody = system.script("queue_users")

    assert (nobody.returncode, "No active users found" in nobody.stdout) == (0, True)
    assert "log in" in nobody.stdout


def test_workers_without_a_broker_say_what_to_set(system: Cluster) -> None:
    for program in ("dramatiq", "periodiq"):
        ended = system.processes.run([str(Path(sys.executable).parent / program), "actors"])

        assert ended.returncode != 0
        assert "RABBITMQ_URL is not set" in ended.stderr
