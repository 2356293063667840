"""B1: how near a first sync comes to the time that the ceiling of 50 requests a second allows."""

from __future__ import annotations

from benchmarks.first_sync import first_sync
from benchmarks.harness import LATENCY, OPEN_BUCKETS, address_of, new_pilot, start_all, system
from benchmarks.report import FULL_RUNS, Report, median_of, run

CEILING = 50.0


def measure(quick: bool) -> Report:
    killmails, runs = (500, 1) if quick else (2500, FULL_RUNS)
    with system("--pilots", "0", *OPEN_BUCKETS, *LATENCY) as made:
        workers = start_all(made)
        first_sync(made, workers, new_pilot(made, 20))
        syncs = [first_sync(made, workers, new_pilot(made, killmails), address_of(n)) for n in range(runs)]
    floor = killmails / CEILING
    return Report(
        [
            median_of("wall ÷ floor", [sync.seconds / floor for sync in syncs], 1.06),
            median_of("wall", [sync.seconds for sync in syncs], unit="s"),
        ],
        {"killmails": killmails, "floor_s": floor, "most_in_one_second": [s.door["max_in_one_second"] for s in syncs]},
    )


if __name__ == "__main__":
    run("B1", "a first sync at the ceiling", measure)
