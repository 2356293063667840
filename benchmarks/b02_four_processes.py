"""B2: four worker processes together at the ceiling: never over it in any second, and hardly under it."""

from __future__ import annotations

from benchmarks.first_sync import first_sync
from benchmarks.harness import LATENCY, OPEN_BUCKETS, address_of, new_pilot, rate_at_the_door, start_all, system
from benchmarks.report import FULL_RUNS, Report, median_of, run, worst_of


def measure(quick: bool) -> Report:
    killmails, runs = (500, 1) if quick else (2500, FULL_RUNS)
    most, rates = [], []
    with system("--pilots", "0", *OPEN_BUCKETS, *LATENCY) as made:
        workers = start_all(made, processes=4)
        first_sync(made, workers, new_pilot(made, 20))
        for number in range(runs):
            pilot, seen = new_pilot(made, killmails), made.simulated.last_seq()
            first_sync(made, workers, pilot, address_of(number))
            most.append(float(made.simulated.stats(seen)["max_in_one_second"]))
            rates.append(rate_at_the_door(made, seen, "killmail"))
    return Report(
        [
            worst_of("most requests in any second", most, 50),
            median_of("mean rate", rates, 47.5, "/s", at_least=True),
        ],
        {"killmails": killmails, "worker_processes": 4, "threads_each": 8},
    )


if __name__ == "__main__":
    run("B2", "four worker processes at the ceiling", measure)
