"""B7: the scheduler's look for due users among a million of them, beside the same 2,000 due users alone.

Both looks are the actor itself, messages to RabbitMQ included; beside it, its statements alone, where there is nothing
else to hide behind. Who is due is spread evenly among the others, and everybody has been synced before.
"""

from __future__ import annotations

from statistics import median

from benchmarks.harness import child, system
from benchmarks.report import FULL_RUNS, Report, median_of, run

DUE = 2_000


def measure(quick: bool) -> Report:
    everybody, runs = (100_000, 3) if quick else (1_000_000, FULL_RUNS)
    alone, crowded = looks(DUE, runs), looks(everybody, runs)
    return Report(
        [
            median_of("tick ÷ tick with none but the due", ratios(crowded["tick"], alone["tick"]), 1.5),
            median_of("its statements ÷ the same", ratios(crowded["statements"], alone["statements"]), 1.5),
            median_of("tick", crowded["tick"], unit="s"),
            median_of("its statements", crowded["statements"], unit="s"),
        ],
        {
            "users": everybody,
            "due": DUE,
            "alone_s": {what: round(median(runs_of), 4) for what, runs_of in alone.items()},
        },
    )


def ratios(large: list[float], small: list[float]) -> list[float]:
    return [one / other for one, other in zip(large, small, strict=True)]


def looks(users: int, runs: int) -> dict[str, list[float]]:
    """Wall seconds of the looks, on a system of their own."""
    with system() as made:
        found: dict[str, list[float]] = child(made, "benchmarks.tick_looks", users, DUE, runs, seconds=900)
    return found


if __name__ == "__main__":
    run("B7", "the scheduler's tick over a million users", measure)
