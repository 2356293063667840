"""B9: a page of a million stored killmails, ten thousand pages deep, beside the first: the dashboard's own query.

First and deep pages are asked for in turns, all over one database; a run is a fifth of them.
"""

from __future__ import annotations

from statistics import median

from benchmarks.harness import child, system
from benchmarks.report import FULL_RUNS, Figure, Report, median_of, percentile, run


def measure(quick: bool) -> Report:
    stored, depth, repeats = (100_000, 1_000, 200) if quick else (1_000_000, 10_000, 1_000)
    with system() as made:
        found = child(made, "benchmarks.page_asks", stored, depth, repeats, seconds=900)
    first, deep, statements = found["first_ms"], found["deep_ms"], found["statements"]
    runs = 1 if quick else FULL_RUNS
    first_p95, deep_p95 = (
        [percentile(times[number * repeats // runs :][: repeats // runs], 0.95) for number in range(runs)]
        for times in (first, deep)
    )
    return Report(
        [
            median_of("p95, deep ÷ first", [b / a for a, b in zip(first_p95, deep_p95, strict=True)], 1.2),
            Figure("statements a page", max(statements), 8),
            Figure("different counts of statements", len(statements), 1),
            median_of("p95 of the first page", first_p95, unit="ms"),
            median_of("p95 of a deep page", deep_p95, unit="ms"),
        ],
        {
            "stored": stored, "pages_deep": depth, "pages_of_each_kind": repeats,
            "medians_ms": [round(median(first), 2), round(median(deep), 2)],
        },
    )  # fmt: skip


if __name__ == "__main__":
    run("B9", "a page ten thousand deep", measure)
