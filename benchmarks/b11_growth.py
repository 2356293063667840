"""B11: whether a killmail of a large sync costs more than one of a small sync: statements and processor time.

One pilot's first sync, ceiling lifted, from a thousand killmails to a hundred thousand. A sync's own statements (to
open and end it) are the larger a share the fewer killmails it has, and would hide growth: so what each killmail more
costs between the two larger sizes is set against the same between the two smaller ones as well.
Workers write every statement down (`probed.py`), the same at each size: processor time includes that. A page holds
1,000 killmails, and SYNC_MAX_PAGES is raised beyond its default, which would end the largest list at its fiftieth.
"""

from __future__ import annotations

from statistics import median

from benchmarks.first_sync import FirstSync, first_sync
from benchmarks.harness import LIFTED, OPEN_BUCKETS, new_pilot, start_all, system
from benchmarks.probes import Probed, Probes
from benchmarks.report import FULL_RUNS, Figure, Report, run

#: The actors whose work grows with the killmails. Names are asked for by the thousand ids, whatever they stand in.
ACTORS = ("sync_user", "fetch_killmail", "dispatch", "finalize_sync")
#: What "equal" allows: statements of pages, batches and ticks, which are not a killmail's.
EQUAL = 1.02


def measure(quick: bool) -> Report:
    sizes, runs = ((250, 1_000, 4_000), 1) if quick else ((1_000, 10_000, 100_000), FULL_RUNS)
    syncs: dict[int, list[tuple[FirstSync, Probed]]] = {size: [] for size in sizes}
    for _ in range(runs):
        for size in sizes:
            syncs[size].append(one_sync(size))
    cpu = {size: median(sync.cpu_ms_per_killmail for sync, _ in found) for size, found in syncs.items()}
    counts = {
        size: median(probed.statements_of(*ACTORS) / size for _, probed in found) for size, found in syncs.items()
    }
    small, large = sizes[0], sizes[-1]
    growth = counts[large] / counts[small]
    return Report(
        [
            Figure("statements, largest ÷ smallest", max(growth, 1 / growth), EQUAL),
            Figure("statements of each killmail more, larger ÷ smaller", marginal(counts), EQUAL),
            Figure("CPU, largest ÷ smallest", cpu[large] / cpu[small], 1.15),
            Figure("statements a killmail", counts[large]),
            Figure("CPU", cpu[large], unit="ms/killmail"),
        ],
        {
            "cpu_ms_per_killmail": {str(size): round(value, 3) for size, value in cpu.items()},
            "statements_per_killmail": {str(size): round(value, 3) for size, value in counts.items()},
            "most_frequent_statements": {
                f"{actor}: {sql}": round(count / large, 3)
                for (actor, sql), count in syncs[large][-1][1].statements.most_common(18)
            },
        },
    )


def marginal(per_killmail: dict[int, float]) -> float:
    """What one killmail more costs between the two larger of three sizes ÷ between the two smaller ones."""
    (small, least), (middle, some), (large, most) = sorted(per_killmail.items())
    upper = (most * large - some * middle) / (large - middle)
    return upper / ((some * middle - least * small) / (middle - small))


def one_sync(killmails: int) -> tuple[FirstSync, Probed]:
    """A first sync of so many on a fresh system that is warm: connections, plans and keys are there."""
    with system("--pilots", "0", *OPEN_BUCKETS, **LIFTED, SYNC_MAX_PAGES="1000") as made:
        workers = start_all(made, module="benchmarks.probed")
        first_sync(made, workers, new_pilot(made, 200))
        pilot = new_pilot(made, killmails)
        probes = Probes(made)
        probes.since_last()
        sync = first_sync(made, workers, pilot, "10.0.0.2")
        return sync, probes.since_last()


if __name__ == "__main__":
    run("B11", "cost growth up to 100,000 killmails", measure)
