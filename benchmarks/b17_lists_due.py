"""B17: a pilot logs in while the lists of 700 other pilots are due, beside the same login on an idle system.

Measured as in B4, from the answer to the callback until the last of the pilot's 200 killmails is on the dashboard's
WebSocket. Each run is a login alone, and then one that begins when the 700 syncs have been opened. A run counts only if
some of the 700 lists had still to be read when the login ended.
"""

from __future__ import annotations

from datetime import timedelta
from statistics import median

from benchmarks import linked
from benchmarks.b04_login import log_in_and_watch
from benchmarks.b05_nothing_new import QUEUE_DUE_USERS
from benchmarks.b07_tick import ratios
from benchmarks.harness import OPEN_BUCKETS, Cluster, address_of, new_pilot, send, start_all, system, wait_until
from benchmarks.report import FULL_RUNS, Figure, Report, median_of, run
from database import utcnow

KILLMAILS, LISTS = 200, 700
#: Milliseconds that ESI takes to answer: `harness.LATENCY`, as a setting, because the users are made without it.
LATENCY_MS = "40-120"
#: Background syncs that have not ended.
ACTIVE = "SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL AND trigger = 'SCHEDULE'"
#: The made users, and not those who logged in meanwhile.
DUE = "UPDATE users SET next_sync_at = ? WHERE id <= ? RETURNING id"


def measure(quick: bool) -> Report:
    runs = 1 if quick else FULL_RUNS
    tokens = ("--token-seconds", str(linked.TOKEN_SECONDS))
    with system("--pilots", str(LISTS), "--killmails-count", "0", *tokens, *OPEN_BUCKETS) as made:
        last_id = prepare(made)
        log_in(made, 0)  # connections, keys and plans are made
        alone, beside, read, left = [], [], [], []
        for number in range(1, runs + 1):
            alone.append(log_in(made, 2 * number))
            made.wait_for_syncs()
            make_due(made, last_id)
            since = made.simulated.last_seq()
            beside.append(log_in(made, 2 * number + 1))
            read.append(len(made.simulated.requests(since, "recent")) - 1)
            left.append(made.scalar(ACTIVE))
            made.wait_for_syncs()
    if not all(left):
        raise RuntimeError(f"void: of {LISTS} lists {left} were left to be read when the logins ended")
    return Report(
        [
            median_of("login ÷ login alone", ratios(beside, alone), 1.3),
            median_of("login, lists due", beside, unit="s"),
            median_of("login alone", alone, unit="s"),
            Figure("lists read during a login", median(read), 1, at_least=True, runs=tuple(map(float, read))),
        ],
        {"killmails": KILLMAILS, "lists_due": LISTS, "lists_left_after_login": left},
    )


def prepare(made: Cluster) -> int:
    """Users who are not due, and the whole system running; returns the largest id of these users."""
    linked.users(made, utcnow() + timedelta(days=1))
    made.simulated.post("settings", {"latency_ms": LATENCY_MS})
    start_all(made)
    return int(made.scalar("SELECT MAX(id) FROM users"))


def log_in(made: Cluster, number: int) -> float:
    """Seconds until a new pilot has all killmails."""
    pilot = new_pilot(made, KILLMAILS)
    return log_in_and_watch(made, pilot, address_of(number), KILLMAILS)[1]


def make_due(made: Cluster, last_id: int) -> None:
    """Let the scheduler's own actor open a sync for each of these users."""
    made.rows(DUE, utcnow() - timedelta(minutes=1), last_id)
    send(made, QUEUE_DUE_USERS)
    wait_until(lambda: made.scalar(ACTIVE) > LISTS // 2, "the syncs of the lists are open", pause=0.02)


if __name__ == "__main__":
    run("B17", "a login while 700 background lists are due", measure)
