"""ESI and SSO at their worst: mixed faults, downtime, a tenth of the real bucket, SSO down past every token's life.

The windows are short because the simulator advertises them so; the system's clock is the real one.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import wait_until

LONG = os.environ.get("CHAOS_LONG") == "1"
#: Seconds without ESI in the middle; five minutes in the long form.
DOWNTIME = 300 if LONG else 20
#: Seconds for which the SSO is down: longer than any access token lives here.
SSO_DOWN, TOKEN_LIFE = 25, 75
#: A tenth of ESI's allowance, and a window a fifteenth as long: 180 requests a minute.
KILLMAIL_LIMIT, WINDOW = "360/1m", 60.0
SIMULATOR = (
    "--pilots", "6", "--killmails-count", "500", "--latency-ms", "5-40", "--cache-seconds", "0",
    "--token-seconds", str(TOKEN_LIFE), "--limit", f"killmail={KILLMAIL_LIMIT}", "--limit", "char-killmail=300/1m",
)  # fmt: skip
#: Twenty in a hundred answers are one of these.
FAULTS = ("status:500", "status:502", "html", "reset", "hang", "truncated", "invalid_json", "429", "429_bare", "420")


def test_esi_at_its_worst(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        system.start_web()
        system.start_workers(processes=2, threads=6)
        scheduler = system.start_scheduler()
        pilots = sorted(system.simulated.truth())
        revoked, sold = pilots[-1], pilots[-2]
        for character_id in pilots:
            system.browser().log_in(character_id)
        misbehave(system)

        time.sleep(5)
        system.simulated.post("downtime", {"seconds": DOWNTIME})
        system.simulated.post("jwks/rotate", {"keep_old": True})
        system.simulated.post("sso_downtime", {"seconds": SSO_DOWN})
        wait_until(system.is_quiet, "everything is stored in spite of it all", DOWNTIME + 420, 0.5)
        system.simulated.clear_faults()

        system.simulated.post(f"characters/{revoked}/revoke", {})
        system.simulated.post(f"characters/{sold}/transfer", {})
        time.sleep(max(0.0, TOKEN_LIFE - 60))  # every access token is too old to be used as it is
        for character_id in pilots[:-2]:
            system.simulated.post(f"characters/{character_id}/killmails", {"count": 2, "bust_cache": True})
        system.script("queue_users", "--force")
        wait_until(lambda: needing_login(system) == {revoked, sold}, "the revoked and the sold need a login", 120)
        wait_until(lambda: system.is_quiet() and not system.differences(), "the others go on", 240, 1.0)
        scheduler.stop()

        report(system)
        assert needing_login(system) == {revoked, sold}
        assert system.scalar("SELECT COUNT(*) FROM ledger WHERE state = 'rejected'") == 0
        assert by_status(system, 420) == injected(system, "420")
        assert most_429_a_window(system) <= 1


def misbehave(system: Cluster) -> None:
    for kind in FAULTS:
        one_off = {"count": 1} if kind == "420" else {"rate": 0.2 / (len(FAULTS) - 1)}
        system.simulated.fault(route="killmail", kind=kind, seconds=2, **one_off)
    system.simulated.fault(route="recent", kind="status:503", rate=0.1)


def needing_login(system: Cluster) -> set[int]:
    rows = system.rows("SELECT character_id FROM users WHERE needs_login_reason IS NOT NULL")
    return {character_id for (character_id,) in rows}


def entries(system: Cluster) -> list[dict[str, Any]]:
    return system.simulated.requests()


def by_status(system: Cluster, status: int) -> int:
    return sum(1 for entry in entries(system) if entry["status"] == status)


def injected(system: Cluster, kind: str) -> int:
    return sum(1 for entry in entries(system) if entry["fault"] == kind)


def most_429_a_window(system: Cluster) -> int:
    """The most refusals by a bucket itself (not by a fault) that one bucket gave within one window."""
    refused = [
        (entry["route"], entry["character_id"] if entry["route"] == "recent" else 0, entry["at"])
        for entry in entries(system)
        if entry["status"] == 429 and not entry["fault"]
    ]
    refused.sort()
    most = 0
    for _, times in groupby(refused, key=lambda entry: entry[:2]):
        at = [entry[2] for entry in times]
        most = max(most, *(sum(1 for other in at if first <= other < first + WINDOW) for first in at))
    return most


def report(system: Cluster) -> None:
    faults = Counter(entry["fault"] for entry in entries(system) if entry["fault"])
    print(f"\nfaults met: {dict(faults)}")
    print(f"statuses: {dict(Counter(entry['status'] for entry in entries(system)))}")
    print(f"429 from a bucket itself in one window, at most: {most_429_a_window(system)}")
