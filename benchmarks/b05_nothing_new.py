"""B5: what an incremental sync costs that finds nothing new, with a live access token and with an expired one.

Messages are those that make an actor run. Beside them go events, hints for whoever looks on: without confirms, kept by
nobody, and without a target.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta
from typing import Any

import events
from benchmarks.harness import OPEN_BUCKETS, Cluster, address_of, browser, send, start_web, system, wait_until
from benchmarks.probes import Probed, Probes
from benchmarks.report import Figure, Report, run
from database import utcnow
from simulator.request_log import ESI_ROUTES, SSO_ROUTES

#: The actors that a sync's own statements run in; opening it is one statement of the scheduler for all due users.
OF_A_SYNC = ("sync_user", "finalize_sync", "dispatch", "resolve_names")
EXPIRED = "access_token = NULL, expires_at = NULL,"
QUEUE_DUE_USERS = "from actors.schedule import queue_due_users; queue_due_users.send()"


def measure(quick: bool) -> Report:
    pilots = 4 if quick else 20
    with system("--pilots", str(pilots), "--killmails-count", str(pilots * 10), *OPEN_BUCKETS) as made:
        start_web(made)
        made.start_workers(processes=1, threads=4, module="benchmarks.probed")
        for number, character_id in enumerate(made.simulated.truth()):
            browser(made, address_of(number)).log_in(character_id)
        made.wait_for_syncs()
        probes = Probes(made)
        told = told_events(made)
        sync_all(made, probes, told, EXPIRED)  # so that clients and keys are there
        live = sync_all(made, probes, told)
        expired = sync_all(made, probes, told, EXPIRED)
        events.close()
    return Report(
        [
            Figure("ESI requests", live.esi_requests / pilots, 1),
            Figure("tokens", live.tokens / pilots, 1),
            Figure("statements", live.probed.statements_of(*OF_A_SYNC) / pilots, 8),
            Figure("messages", live.probed.messages_to(*OF_A_SYNC) / pilots, 2),
            Figure("events", live.events / pilots),
            Figure("SSO calls, expired token", expired.sso_calls / pilots, 1),
            Figure(
                "statements more, expired token",
                (expired.probed.statements_of(*OF_A_SYNC) - live.probed.statements_of(*OF_A_SYNC)) / pilots,
                4,
            ),
        ],
        {
            "syncs": pilots,
            "answers": dict(Counter(str(status) for status in live.statuses)),
            "statements_to_open_all": live.probed.statements_of("queue_due_users"),
            "statements_by_kind": {
                f"{actor}: {sql}": round(count / pilots, 2)
                for (actor, sql), count in sorted(live.probed.statements.items())
                if actor in OF_A_SYNC
            },
        },
    )


class Round:
    """One sync of everybody: what ESI and SSO saw, and what was written down meanwhile."""

    def __init__(self, probed: Probed, events: int, entries: list[dict[str, Any]]) -> None:
        self.probed = probed
        self.events = events
        self.door = Counter(entry["route"] for entry in entries)
        self.esi_requests = sum(count for route, count in self.door.items() if route in ESI_ROUTES)
        self.sso_calls = sum(count for route, count in self.door.items() if route in SSO_ROUTES)
        self.tokens = sum(entry["cost"] for entry in entries)
        self.statuses = [entry["status"] for entry in entries if entry["route"] == "recent"]


def told_events(made: Cluster) -> list[events.Notice]:
    """A list to which all that is told from now on is added."""
    told: list[events.Notice] = []
    events.configure(made.processes.environment["RABBITMQ_URL"])
    events.subscribe(told.append)
    wait_until(lambda: told, "this process listens")
    return told


def sync_all(made: Cluster, probes: Probes, told: list[events.Notice], changes: str = "") -> Round:
    """Make every user due, with `changes` to their rows, and wait until each has been synced once more."""
    probes.since_last()
    told.clear()
    seen = made.simulated.last_seq()
    before = made.scalar("SELECT COUNT(*) FROM syncs WHERE state = 'FINISHED'")
    users = made.scalar("SELECT COUNT(*) FROM users")
    past = utcnow() - timedelta(minutes=1)
    made.rows(f"UPDATE users SET {changes} next_sync_at = ? RETURNING id", past)
    send(made, QUEUE_DUE_USERS)
    wait_until(
        lambda: made.scalar("SELECT COUNT(*) FROM syncs WHERE state = 'FINISHED'") == before + users,
        "everybody is synced",
    )
    time.sleep(1.0)  # events come by themselves
    return Round(probes.since_last(), len(told), made.simulated.requests(seen))


if __name__ == "__main__":
    run("B5", "an incremental sync with nothing new", measure)
