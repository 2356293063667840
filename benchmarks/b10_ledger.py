"""B10: a dispatch and a settle with a million killmails pending, beside the same with a thousand.

Timed inside the running workers, while they fetch at the ceiling: what they fetch is newer than what waits. Workers
write every statement down (`probed.py`), the same in both halves.
"""

from __future__ import annotations

import time
from statistics import median

from benchmarks import backlog, bulk
from benchmarks.harness import LATENCY, OPEN_BUCKETS, Cluster, start_all, system
from benchmarks.probes import Probes
from benchmarks.report import FULL_RUNS, Figure, Report, median_of, run
from database import execute

#: Seconds of fetching at the ceiling in each half.
SPAN = 12.0
#: Real killmails listed for each half: they last for the span at 50/s, and a good while longer.
LIVE = 900
FEW = 1_000


def measure(quick: bool) -> Report:
    many, runs = (100_000, 1) if quick else (1_000_000, FULL_RUNS)
    calls: dict[int, dict[str, list[float]]] = {FEW: {}, many: {}}
    rates: list[float] = []
    with system("--pilots", "0", *OPEN_BUCKETS, *LATENCY) as made:
        start_all(made, module="benchmarks.probed")
        probes = Probes(made)
        pilot = backlog.build(made, LIVE)
        bulk.users(1, 0)
        for _ in range(runs):
            for waiting in (FEW, many):
                made.wait_for_syncs()
                refill(waiting)
                backlog.add(made, pilot, LIVE)
                since = made.simulated.last_seq()
                probes.since_last()
                time.sleep(SPAN)
                for name, seconds in probes.since_last().calls.items():
                    calls[waiting].setdefault(name, []).append(median(seconds))
                rates.append(backlog.rate(made, since))
                check(made, waiting)
    ratios = {
        name: [large / small for small, large in zip(calls[FEW][name], calls[many][name], strict=True)]
        for name in ("dispatch", "settle")
    }
    return Report(
        [
            median_of("dispatch ÷ dispatch with few", ratios["dispatch"], 1.5),
            median_of("settle ÷ settle with few", ratios["settle"], 1.5),
            Figure("fetching meanwhile, slowest", min(rates), 47.0, "/s", at_least=True, runs=tuple(rates)),
            median_of("dispatch", [seconds * 1000 for seconds in calls[many]["dispatch"]], unit="ms"),
            median_of("settle", [seconds * 1000 for seconds in calls[many]["settle"]], unit="ms"),
        ],
        {"pending": many, "few": FEW, "seconds_each": SPAN},
    )


def refill(waiting: int) -> None:
    """Exactly so many made-up killmails wait, besides the real ones."""
    made_up = "killmail_id < 100000000"
    execute(f"DELETE FROM ledger WHERE {made_up}")
    execute(f"DELETE FROM sync_items WHERE {made_up}")
    user_id = execute("SELECT id FROM users WHERE character_id > ?", (bulk.FIRST_CHARACTER,)).fetchone()[0]
    execute("DELETE FROM syncs WHERE user_id = ?", (user_id,))
    bulk.pending(waiting, user_id)
    bulk.settle()


def check(made: Cluster, waiting: int) -> None:
    untouched = made.scalar("SELECT COUNT(*) FROM ledger WHERE killmail_id < 100000000 AND state = 'pending'")
    if untouched != waiting:
        raise RuntimeError(f"void: the real killmails ran out, {waiting - untouched} made-up ones were asked for")


if __name__ == "__main__":
    run("B10", "a dispatch and a settle with a million pending", measure)
