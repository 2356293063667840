"""What the worker this system replaces loses, and this one keeps: one test each, on real processes."""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from typing import Any

import pytest

from database import utcnow
from tests.acceptance.cluster import Cluster
from tests.acceptance.processes import wait_until

SIMULATOR = ("--pilots", "2", "--killmails-count", "10", "--cache-seconds", "0", "--page-size", "50",
             "--limit", "char-killmail=6000/1m", "--latency-ms", "5-20")  # fmt: skip


def new_pilot(system: Cluster, killmails: int) -> int:
    return int(system.simulated.post("characters", {"killmails": killmails})["character_id"])


def by_hand(system: Cluster, character_id: int, *options: str) -> None:
    done = system.script("queue_users", "--force", "--character", str(character_id), *options)
    assert done.returncode == 0, done.stderr


def synced(system: Cluster, character_id: int, killmails: int) -> None:
    """Log in, and wait until the sync is over and everything compares."""
    system.browser().log_in(character_id)
    system.wait_for_syncs()
    assert system.differences(character_id) == []
    assert len(system.simulated.killmail_ids(character_id)) == killmails


def details(system: Cluster, since: int) -> list[int]:
    """The killmails whose details were served since, in order."""
    return [entry["killmail_id"] for entry in system.simulated.requests(since, "killmail") if entry["status"] == 200]


def test_background_sync_goes_on_hours_after_the_browser_closed(system: Cluster) -> None:
    """Given a pilot whose access token ran out hours ago and whose browser is gone, When new killmails appear, Then the
    scheduler alone fetches them."""
    pilot = new_pilot(system, 5)
    synced(system, pilot, 5)
    hours_ago = utcnow() - timedelta(hours=11)
    system.rows(
        """UPDATE users SET expires_at = ?, last_killmail_sync_at = ?, next_sync_at = ?
           WHERE character_id = ? RETURNING id""",
        hours_ago, hours_ago, hours_ago, pilot,
    )  # fmt: skip
    system.simulated.post(f"characters/{pilot}/killmails", {"count": 4, "bust_cache": True})

    queue_due_users(system)

    wait_until(lambda: stored(system, pilot) == 9, "the new killmails are stored")
    assert system.differences(pilot) == []


def test_one_failed_detail_among_hundreds(system: Cluster) -> None:
    """Given a detail that fails twice, Then the others are stored meanwhile, and it follows by itself."""
    pilot = new_pilot(system, 300)
    unlucky = sorted(system.simulated.killmail_ids(pilot))[-5]
    system.simulated.fault(route="killmail", kind="status:500", killmail_id=unlucky, count=2)

    synced(system, pilot, 300)

    assert system.scalar("SELECT COUNT(*) FROM killmails WHERE killmail_id = ?", unlucky) == 1


def test_a_detail_that_keeps_failing_does_not_hold_up_the_sync_and_is_not_given_up(system: Cluster) -> None:
    pilot = new_pilot(system, 20)
    unlucky = sorted(system.simulated.killmail_ids(pilot))[-3]
    system.simulated.fault(route="killmail", kind="status:500", killmail_id=unlucky, rate=1.0)
    system.browser().log_in(pilot)
    hurry = "UPDATE ledger SET not_before = ? WHERE killmail_id = ? AND state = 'deferred' RETURNING attempts"

    def failed_four_times() -> bool:
        past = utcnow() - timedelta(seconds=1)
        attempts = [row[0] for row in system.rows("SELECT attempts FROM ledger WHERE killmail_id = ?", unlucky)]
        if attempts and attempts[0] < 4:
            system.rows(hurry, past, unlucky)
            send(system, "from actors.dispatching import dispatch; dispatch.send()")
        return bool(attempts) and attempts[0] >= 4

    wait_until(failed_four_times, "four attempts are spent")
    sync = wait_until(lambda: ended_sync(system, pilot), "the sync ends without it")
    assert isinstance(sync, dict)
    assert (sync["state"], sync["found"], sync["saved"], sync["failed"]) == ("FINISHED", 20, 19, 1)

    system.simulated.clear_faults()
    system.rows(hurry, utcnow() - timedelta(seconds=1), unlucky)
    send(system, "from actors.dispatching import dispatch; dispatch.send()")
    wait_until(lambda: stored(system, pilot) == 20, "the ledger went on by itself")
    assert system.differences(pilot) == []


def test_a_late_killmail_with_a_lower_id(system: Cluster) -> None:
    pilot = new_pilot(system, 30)
    synced(system, pilot, 30)
    newest = max(system.simulated.killmail_ids(pilot))

    added = system.simulated.post(f"characters/{pilot}/killmails", {"count": 2, "late": True, "bust_cache": True})
    assert all(killmail_id < newest for killmail_id, _ in added["added"])
    by_hand(system, pilot)

    wait_until(lambda: stored(system, pilot) == 32, "the late killmails are stored")
    assert system.differences(pilot) == []


def test_an_out_of_order_list(system: Cluster) -> None:
    """New killmails stand anywhere in it, also behind a first page that is the same as before: the scheduler's daily
    walk over all pages finds them, without anyone asking."""
    pilot = new_pilot(system, 160)
    system.simulated.post(f"characters/{pilot}/list_order", {"shuffle": True})
    synced(system, pilot, 160)

    system.simulated.post(f"characters/{pilot}/killmails", {"count": 3, "bust_cache": True})
    by_hand(system, pilot)
    system.wait_for_syncs()
    assert stored(system, pilot) >= 160
    yesterday, past = utcnow() - timedelta(hours=25), utcnow() - timedelta(minutes=1)
    system.rows(
        "UPDATE users SET last_full_sync_at = ?, next_sync_at = ? WHERE character_id = ? RETURNING id",
        yesterday, past, pilot,
    )  # fmt: skip
    queue_due_users(system)

    wait_until(lambda: stored(system, pilot) == 163, "everything is stored, wherever it stood")
    assert system.differences(pilot) == []


def test_a_429_in_the_middle_of_paging(system: Cluster) -> None:
    """Given ESI refuses page 2 for a few seconds, Then the sync waits, says so, and goes on from page 2."""
    pilot = new_pilot(system, 140)
    system.simulated.fault(route="recent", kind="429", page=2, count=1, seconds=6)
    seen = system.simulated.last_seq()

    browser = system.browser()
    browser.log_in(pilot)
    wait_until(lambda: (browser.me()["currentSync"] or {}).get("state") == "WAITING", "it says that it waits", 20)
    system.wait_for_syncs()

    pages = [(entry["page"], entry["status"]) for entry in system.simulated.requests(seen, "recent")]
    assert pages == [(1, 200), (2, 429), (2, 200), (3, 200)]
    assert system.differences(pilot) == []


def test_two_overlapping_syncs_of_one_user(system: Cluster) -> None:
    """Given a background sync under way, When the pilot asks again, Then it is one sync, raised, and nothing twice."""
    pilot = new_pilot(system, 1)
    browser = system.browser()
    browser.log_in(pilot)
    system.wait_for_syncs()
    # Longer under way than all the asking takes
    system.simulated.post(f"characters/{pilot}/killmails", {"count": 600, "bust_cache": True})
    seen = system.simulated.last_seq()
    system.rows("UPDATE users SET next_sync_at = ? WHERE character_id = ? RETURNING id", utcnow(), pilot)
    queue_due_users(system)
    wait_until(lambda: stored(system, pilot) > 1, "the background sync is under way", pause=0.02)

    for _ in range(5):
        assert browser.sync_now()["queued"] is True
    by_hand(system, pilot)
    system.wait_for_syncs()

    fetched = details(system, seen)
    assert len(fetched) == len(set(fetched)) == 600
    syncs = system.rows(
        """SELECT s.trigger, s.priority FROM syncs s JOIN users u ON u.id = s.user_id
           WHERE u.character_id = ? ORDER BY s.id""",
        pilot,
    )
    assert syncs == [("LOGIN", 8), ("SCHEDULE", 8)]
    assert system.differences(pilot) == []


def test_a_worker_killed_half_way(system: Cluster) -> None:
    """Given `kill -9` of all workers in the middle, When new ones start, Then the rest follows."""
    pilot = new_pilot(system, 250)
    seen = system.simulated.last_seq()
    system.browser().log_in(pilot)
    wait_until(lambda: stored(system, pilot) >= 60, "a part is stored", pause=0.02)

    next(process for process in system.processes.running if process.name == "workers").send_signal(signal.SIGKILL)
    for process in [each for each in system.processes.running if each.name == "workers"]:
        process.kill()
        system.processes.running.remove(process)
    held = system.scalar("SELECT COUNT(*) FROM ledger WHERE state = 'fetching'")
    system.start_workers()
    hurry(system)

    wait_until(lambda: stored(system, pilot) == 250, "everything is stored")
    assert system.differences(pilot) == []
    fetched = details(system, seen)
    assert len(fetched) - len(set(fetched)) <= held


def test_a_message_delivered_twice(system: Cluster) -> None:
    pilot = new_pilot(system, 120)
    seen = system.simulated.last_seq()
    system.browser().log_in(pilot)
    wait_until(lambda: stored(system, pilot) >= 10, "fetching has begun", pause=0.02)
    ids = sorted(system.simulated.killmail_ids(pilot))

    send(system, f"from actors.killmails import fetch_killmail\nfor id in {ids}: fetch_killmail.send(id)")
    system.wait_for_syncs()

    fetched = details(system, seen)
    assert len(fetched) == len(set(fetched)) == 120
    assert system.differences(pilot) == []


@pytest.mark.parametrize(
    "change",
    [
        {"victim.items": [{"item_type_id": 34, "flag": 5, "singleton": 0, "quantity_destroyed": 2**53 + 1}]},
        {"victim.damage_taken": 2**53 + 1, "attackers.0.damage_done": 2**53 + 1},
        {"victim.corporation_id": None, "victim.alliance_id": None, "victim.character_id": None},
        {
            "victim.items": [
                {
                    "item_type_id": 3293, "flag": 5, "singleton": 0, "quantity_dropped": 1,
                    "items": [
                        {"item_type_id": 34, "flag": 0, "singleton": 0, "quantity_destroyed": 5},
                        {"item_type_id": 34, "flag": 0, "singleton": 0, "quantity_dropped": 5},
                    ],
                }
            ]
        },
    ],
    ids=["64-bit quantity", "64-bit damage", "victim without corporation", "nested items"],
)  # fmt: skip
def test_a_killmail_that_is_hard_to_store(system: Cluster, change: dict[str, Any]) -> None:
    pilot = new_pilot(system, 1)
    (template,) = system.simulated.killmail_ids(pilot)
    body = system.simulated._get(f"killmails/{template}")
    body["killmail_id"] = template + 10_000_000
    body.pop("killmail_hash")
    for path, value in change.items():
        put(body, path.split("."), value)
    system.simulated.post(f"characters/{pilot}/killmails", {"body": body, "bust_cache": True})

    synced(system, pilot, 2)

    sent, kept = body["victim"].get("items", []), system.rows(
        "SELECT parent_ordinal, quantity_destroyed, quantity_dropped FROM killmail_items WHERE killmail_id = ?",
        body["killmail_id"],
    )  # fmt: skip
    assert len(kept) == sum(1 + len(item.get("items", [])) for item in sent)
    assert sum(row[1] or 0 for row in kept) == sum(destroyed(item) for item in sent)


def put(body: Any, path: list[str], value: Any) -> None:
    for step in path[:-1]:
        body = body[int(step)] if step.isdigit() else body[step]
    if value is None:
        body.pop(path[-1], None)
    else:
        body[path[-1]] = value


def destroyed(item: dict[str, Any]) -> int:
    inside = sum(destroyed(each) for each in item.get("items", []))
    return int(item.get("quantity_destroyed") or 0) + inside


def stored(system: Cluster, character_id: int) -> int:
    """How many of the pilot's listed killmails are stored."""
    count: int = system.scalar(
        """SELECT COUNT(*) FROM user_killmails l JOIN users u ON u.id = l.user_id
           JOIN killmails k ON k.killmail_id = l.killmail_id WHERE u.character_id = ?""",
        character_id,
    )
    return count


def ended_sync(system: Cluster, character_id: int) -> dict[str, Any] | None:
    rows = system.rows(
        """SELECT s.state, s.found, s.saved, s.failed FROM syncs s JOIN users u ON u.id = s.user_id
           WHERE u.character_id = ? AND s.finished_at IS NOT NULL ORDER BY s.id DESC""",
        character_id,
    )
    return dict(zip(("state", "found", "saved", "failed"), rows[0], strict=True)) if rows else None


def hurry(system: Cluster) -> None:
    """Leases run out now rather than in a minute, and the tick looks."""
    past = utcnow() - timedelta(seconds=1)
    system.rows("UPDATE ledger SET claimed_until = ? WHERE state IN ('sent', 'fetching') RETURNING killmail_id", past)
    system.rows("UPDATE syncs SET claimed_until = ? WHERE state = 'LISTING' RETURNING id", past)
    send(system, "from actors.schedule import tend_ledger; tend_ledger.send()")


def queue_due_users(system: Cluster) -> None:
    send(system, "from actors.schedule import queue_due_users; queue_due_users.send()")


def send(system: Cluster, code: str) -> None:
    """Send messages as another process of the system would."""
    sent = system.processes.run([sys.executable, "-c", code])
    assert sent.returncode == 0, sent.stderr


def test_connections_that_a_restart_of_postgresql_cut_lose_no_message(system: Cluster) -> None:
    """Given workers whose threads all hold a connection, When the server cuts every one, Then the next pilot is synced
    at once: there is no scheduler here that could repair anything."""
    synced(system, new_pilot(system, 60), 60)
    system.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )

    pilot = new_pilot(system, 60)
    system.browser().log_in(pilot)

    wait_until(lambda: stored(system, pilot) == 60, "everything is stored", 20)
    system.wait_for_syncs()
    assert system.differences(pilot) == []
