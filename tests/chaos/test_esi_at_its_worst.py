"""ESI and SSO at their worst: mixed faults, downtime, a tenth of the real bucket, an error limit of ten, and no SSO.

The SSO goes away when no access token may be used any longer and syncs are queued. The short form runs with every
change; CHAOS_LONG=1 (`make chaos`) is the long one, in which the bucket is the bottleneck and the SSO is away for
longer than any access token lives. The windows are short because the simulator advertises them so; the system's clock
is the real one.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import dramatiq

from actors import queues
from actors.names import BATCH
from tests import rabbitmq
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import GaveUpWaitingError, wait_until

LONG = os.environ.get("CHAOS_LONG") == "1"
KILLMAILS = 500 if LONG else 150
#: Seconds without ESI in the middle.
DOWNTIME = 300 if LONG else 5
#: Seconds for which an access token lives. The system uses none with less than 60 left: each is good for one list.
TOKEN_LIFE = 61
#: Seconds without the SSO.
SSO_DOWN = TOKEN_LIFE + 30 if LONG else 10
#: Each kind's share of the answers about killmails, and how often it comes at most.
FAULT_RATE, FAULT_COUNT = (0.022, None) if LONG else (0.3, 2)
#: Seconds for which a hang holds; the client waits 15.
HANG = 20 if LONG else 2
#: A tenth of ESI's allowance, and a window a fifteenth as long: 180 requests a minute.
KILLMAIL_LIMIT, WINDOW = "360/1m", 60.0
#: Errors a minute after which ESI answers 420 on every route.
ERROR_LIMIT = 10
#: Names are wanted so often within seconds that, wherever a minute begins, one of them holds more than the limit.
NAME_RUNS = 2 * ERROR_LIMIT + 2
SIMULATOR = (
    "--pilots", "6", "--killmails-count", str(KILLMAILS), "--latency-ms", "5-40", "--cache-seconds", "0",
    "--token-seconds", str(TOKEN_LIFE), "--limit", f"killmail={KILLMAIL_LIMIT}", "--limit", "char-killmail=6/1m",
    "--error-limit", f"{ERROR_LIMIT}/1m",
)  # fmt: skip
FAULTS = ("status:500", "status:502", "html", "reset", "hang", "truncated", "invalid_json", "429", "429_bare")


def test_esi_at_its_worst(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        system.start_web()
        system.start_workers(processes=2, threads=6)
        scheduler = system.start_scheduler()
        pilots = sorted(system.simulated.truth())
        early, late = pilots[:3], pilots[3:]
        browsers = log_in(system, early)
        wait_until(system.is_quiet, "what the first have is stored while all is well", 420 if LONG else 60)

        misbehave(system)
        log_in(system, late)
        wait_until(lambda: all_lists_read(system), "the lists of the others are read", 120)
        lose_the_sso(system, browsers)
        system.simulated.post("downtime", {"seconds": DOWNTIME})
        wait_until(
            lambda: system.is_quiet() and not system.differences(),
            "everything is stored in spite of it all", DOWNTIME + SSO_DOWN + 420, 0.5,
        )  # fmt: skip
        assert needing_login(system) == set()
        want_names(system)
        system.simulated.clear_faults()

        revoked, sold = late[-2:]
        system.simulated.post(f"characters/{revoked}/revoke", {})
        system.simulated.post(f"characters/{sold}/transfer", {})
        fight_and_queue(system, pilots[:-2])
        wait_until(lambda: needing_login(system) == {revoked, sold}, "the revoked and the sold need a login", 120)
        wait_until(lambda: system.is_quiet() and not system.differences(), "the others go on", 240, 1.0)
        scheduler.stop()

        report(system)
        assert needing_login(system) == {revoked, sold}
        assert system.scalar("SELECT COUNT(*) FROM ledger WHERE state = 'rejected'") == 0
        assert errors_of_names(system) > 0
        assert [kind for kind in (*FAULTS, "420") if injected(system, kind) == 0] == [], "every kind has struck"
        assert by_status(system, 420) == injected(system, "420") == 1
        assert most_429_a_window(system) <= 1


def misbehave(system: Cluster) -> None:
    struck = {"rate": FAULT_RATE} | ({"count": FAULT_COUNT} if FAULT_COUNT else {})
    for kind in FAULTS:
        system.simulated.fault(route="killmail", kind=kind, seconds=HANG if kind == "hang" else 2, **struck)
    system.simulated.fault(route="killmail", kind="420", seconds=2, count=1)
    system.simulated.fault(route="recent", kind="status:503", **struck)
    system.simulated.fault(route="names", kind="status:500", rate=0.5)
    system.simulated.fault(route="names", kind="status:400")


def log_in(system: Cluster, pilots: list[int]) -> dict[int, Browser]:
    browsers = {character_id: system.browser() for character_id in pilots}
    for character_id, browser in browsers.items():
        browser.log_in(character_id)
    return browsers


def all_lists_read(system: Cluster) -> bool:
    return bool(system.scalar("SELECT COUNT(*) = 0 FROM syncs WHERE state IN ('QUEUED', 'LISTING')"))


def fight_and_queue(system: Cluster, pilots: list[int]) -> None:
    """New killmails for these, and a sync for everybody."""
    for character_id in pilots:
        system.simulated.post(f"characters/{character_id}/killmails", {"count": 2, "bust_cache": True})
    assert system.script("queue_users", "--force").returncode == 0


def lose_the_sso(system: Cluster, browsers: dict[int, Browser]) -> None:
    """These pilots' syncs need new tokens, and are refused them: they wait, and their pilots are told for what."""
    usable = "expires_at >= (now() AT TIME ZONE 'UTC') + interval '60 seconds'"
    no_token = f"SELECT COUNT(*) = 0 FROM users WHERE {usable}"
    wait_until(lambda: system.scalar(no_token), "no token may be used any longer", TOKEN_LIFE)
    before = system.simulated.last_seq()
    system.simulated.post("jwks/rotate", {"keep_old": False})
    system.simulated.post("sso_downtime", {"seconds": SSO_DOWN})
    fight_and_queue(system, list(browsers))
    for character_id, browser in browsers.items():
        wait_until(partial(waits_for_the_sso, browser), f"the sync of {character_id} waits", 30)
    refused = {entry["status"] for entry in system.simulated.requests(before, "token")}
    assert refused == {503}, "the SSO was asked for tokens while it was down"
    assert needing_login(system) == set()


def waits_for_the_sso(browser: Browser) -> bool:
    sync = browser.me()["currentSync"] or {}
    return sync.get("state") == "WAITING" and "login service" in sync["waitingFor"]


def want_names(system: Cluster) -> None:
    """Ask for the missing names again and again, as if two minutes passed each time; ESI answers with errors only."""
    message: dramatiq.Message[None] = dramatiq.Message(queues.NAMES, "resolve_names", (), {}, {})
    due = "SELECT COUNT(*) FROM names WHERE name IS NULL AND retry_at IS NULL"
    for _ in range(NAME_RUNS):
        wanted = system.rows("UPDATE names SET retry_at = NULL WHERE name IS NULL RETURNING id")
        for _ in range(0, len(wanted), BATCH):  # a run that ends in an error leaves the other batches to the tick
            rabbitmq.put(queues.NAMES, message.encode())
        try:
            wait_until(lambda: system.scalar(due) == 0, "names are asked for", 10, 0.02)
        except GaveUpWaitingError:  # as the tick would
            rabbitmq.put(queues.NAMES, message.encode())
            wait_until(lambda: system.scalar(due) == 0, "names are asked for", 30, 0.02)


def errors_of_names(system: Cluster) -> int:
    return sum(1 for entry in system.simulated.requests(route="names") if entry["status"] >= 400)


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
    print(f"errors about names: {errors_of_names(system)}")
    print(f"429 from a bucket itself in one window, at most: {most_429_a_window(system)}")
