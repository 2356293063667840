"""B9: a page of a million stored killmails, ten thousand pages deep, beside the first: the dashboard's own query."""

from __future__ import annotations

from statistics import median

from benchmarks.harness import child, system
from benchmarks.report import Figure, Report, percentile, run


def measure(quick: bool) -> Report:
    stored, depth, repeats = (100_000, 1_000, 200) if quick else (1_000_000, 10_000, 300)
    with system() as made:
        found = child(made, "benchmarks.page_asks", stored, depth, repeats, seconds=900)
    first, deep, statements = found["first_ms"], found["deep_ms"], found["statements"]
    return Report(
        [
            Figure("p95, deep ÷ first", percentile(deep, 0.95) / percentile(first, 0.95), 1.2),
            Figure("statements a page", max(statements), 8),
            Figure("different counts of statements", len(statements), 1),
            Figure("p95 of the first page", percentile(first, 0.95), unit="ms"),
            Figure("p95 of a deep page", percentile(deep, 0.95), unit="ms"),
        ],
        {
            "stored": stored, "pages_deep": depth, "pages_of_each_kind": repeats,
            "medians_ms": [round(median(first), 2), round(median(deep), 2)],
        },
    )  # fmt: skip


if __name__ == "__main__":
    run("B9", "a page ten thousand deep", measure)
