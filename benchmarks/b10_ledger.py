"""B10: a dispatch and a settle with a million killmails pending, beside the same with a thousand.

Timed inside the running workers, while they fetch at the ceiling: what they fetch is newer than what waits, and wanted
by the sync that wants all that waits, too. Workers write every statement down (`probed.py`), the same in both halves.
A half's time of a step is its median; a few that take long show in the mean, and in the rate.
"""

from __future__ import annotations

import time
from statistics import fmean, median

from benchmarks import backlog, bulk
from benchmarks.harness import LATENCY, OPEN_BUCKETS, Cluster, rate_at_the_door, send, start_all, system
from benchmarks.probes import Probes
from benchmarks.report import FULL_RUNS, Figure, Report, median_of, run
from database import execute
from esi.rate_headers import MAX_WAIT_SECONDS

#: Seconds of fetching at the ceiling in each half.
SPAN = 12.0
#: Real killmails listed for each half: they last for the span at 50/s, and some seconds longer.
LIVE = 900
#: Nobody fetches while rows are made: what waits would be asked for before there is anything newer.
CLOSE = """INSERT INTO gates (name, closed_until, reason, failures) VALUES ('killmail', ?, 'rows are being made', 0)
    ON CONFLICT (name) DO UPDATE SET closed_until = excluded.closed_until"""
OPEN = "UPDATE gates SET closed_until = 0 WHERE name = 'killmail'"
DISPATCH = "from actors.dispatching import dispatch; dispatch.send()"
FEW = 1_000
#: What the ledger does for one look of the dispatcher, and for one killmail that came.
STEPS = {"dispatch": ("upcoming", "dispatch", "next_due"), "settle": ("settle", "ready_to_finish")}
#: The sync that waits for all that was made up waits for what is being fetched as well.
ALSO_WANTED = """INSERT INTO sync_items (sync_id, killmail_id)
    SELECT ?, killmail_id FROM ledger WHERE killmail_id >= 100000000 ON CONFLICT DO NOTHING"""


def measure(quick: bool) -> Report:
    many, runs = (100_000, 1) if quick else (1_000_000, FULL_RUNS)
    calls: dict[int, dict[str, list[float]]] = {FEW: {}, many: {}}
    means: dict[int, dict[str, list[float]]] = {FEW: {}, many: {}}
    rates: list[float] = []
    details: list[float] = []
    with system("--pilots", "0", *OPEN_BUCKETS, *LATENCY) as made:
        start_all(made, module="benchmarks.probed")
        probes = Probes(made)
        pilot = backlog.build(made, LIVE)
        bulk.users(1, 0)
        for _ in range(runs):
            for waiting in (FEW, many):
                refill(made, pilot, waiting)
                since = made.simulated.last_seq()
                probes.since_last()
                time.sleep(SPAN)
                timed = probes.since_last().calls
                for step, names in STEPS.items():
                    calls[waiting].setdefault(step, []).append(sum(median(timed[name]) for name in names))
                    means[waiting].setdefault(step, []).append(sum(fmean(timed[name]) for name in names))
                rates.append(rate_at_the_door(made, since, *backlog.COUNTED))
                details.append(rate_at_the_door(made, since, "killmail"))
                check(made, waiting)
    ratios, mean_ratios = (
        {name: [large / small for small, large in zip(of[FEW][name], of[many][name], strict=True)] for name in STEPS}
        for of in (calls, means)
    )
    return Report(
        [
            median_of("dispatch ÷ dispatch with few", ratios["dispatch"], 1.5),
            median_of("settle ÷ settle with few", ratios["settle"], 1.5),
            median_of("dispatch ÷ dispatch with few, by means", mean_ratios["dispatch"]),
            median_of("settle ÷ settle with few, by means", mean_ratios["settle"]),
            Figure("fetching meanwhile, slowest", min(rates), 47.0, "/s", at_least=True, runs=tuple(rates)),
            Figure("killmails alone, slowest", min(details), unit="/s", runs=tuple(details)),
            median_of("dispatch", [seconds * 1000 for seconds in calls[many]["dispatch"]], unit="ms"),
            median_of("settle", [seconds * 1000 for seconds in calls[many]["settle"]], unit="ms"),
        ],
        {"pending": many, "few": FEW, "seconds_each": SPAN},
    )


def refill(made: Cluster, pilot: int, waiting: int) -> None:
    """Exactly so many made-up killmails wait, and LIVE newer ones are being fetched."""
    made_up = "killmail_id < 100000000"
    execute(f"DELETE FROM ledger WHERE {made_up}")
    execute(f"DELETE FROM sync_items WHERE {made_up}")
    user_id = execute("SELECT id FROM users WHERE character_id > ?", (bulk.FIRST_CHARACTER,)).fetchone()[0]
    execute("DELETE FROM syncs WHERE user_id = ?", (user_id,))
    made.wait_for_syncs()
    execute(CLOSE, (time.time() + MAX_WAIT_SECONDS,))
    sync_id = bulk.pending(waiting, user_id)
    bulk.settle()
    backlog.add(made, pilot, LIVE)
    execute(ALSO_WANTED, (sync_id,))
    execute(OPEN)
    send(made, DISPATCH)


def check(made: Cluster, waiting: int) -> None:
    untouched = made.scalar("SELECT COUNT(*) FROM ledger WHERE killmail_id < 100000000 AND state = 'pending'")
    if untouched != waiting:
        raise RuntimeError(f"void: the real killmails ran out, {waiting - untouched} made-up ones were asked for")


if __name__ == "__main__":
    run("B10", "a dispatch and a settle with a million pending", measure)
