"""What a script found, in the two forms it is told in: one JSON line for programs, one line for people.

The invariant: a figure's verdict follows from its value and its target alone, and whatever was measured on a machine
that was not idle before, or not given its processors meanwhile, says so. What else ran meanwhile nobody can tell from
what was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.machine import ProcessorTime, calm_down

#: Runs of which the median is taken.
FULL_RUNS = 5
#: Share of the processors that others may use before a script, and that other machines on the same host may take away
#: while it runs, before its figures count as noisy.
NOISE, STOLEN = 0.10, 0.02


@dataclass(frozen=True, slots=True)
class Figure:
    """One number against its target. `runs`: the values it was taken from. `target` None: for information."""

    what: str
    value: float
    target: float | None = None
    unit: str = ""
    at_least: bool = False
    runs: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    @property
    def bound(self) -> str:
        if self.target is None:
            return ""
        return f"{'≥' if self.at_least else '≤'} {number(self.target)}{unit(self.unit)}"

    def __str__(self) -> str:
        verdict = {None: "", True: f" ({self.bound}: met)", False: f" ({self.bound}: MISSED)"}[self.met]
        return f"{self.what} {number(self.value)}{unit(self.unit)}{verdict}"

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what, "value": rounded(self.value), "unit": self.unit, "bound": self.bound, "met": self.met,
            "runs": [rounded(value) for value in self.runs],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """All that one script found. `details`: what a reader needs to believe the figures."""

    figures: Sequence[Figure]
    details: dict[str, Any] = field(default_factory=dict)


def number(value: float) -> str:
    """Three significant digits, and no exponent: 1.05, 0.0123, 1234."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def unit(text: str) -> str:
    return f" {text}" if text else ""


def rounded(value: float) -> float:
    """Six digits after the point are more than any of these clocks has."""
    return round(value, 6)


def median_of(what: str, runs: Sequence[float], target: float | None = None, unit: str = "", **kind: Any) -> Figure:
    """The median of the runs, against its target."""
    return Figure(what, median(runs), target, unit, runs=tuple(runs), **kind)


def worst_of(what: str, runs: Sequence[float], target: float | None = None, unit: str = "") -> Figure:
    """The largest of the runs, against its target: for what must never be passed."""
    return Figure(what, max(runs), target, unit, runs=tuple(runs))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(key: str, title: str, measure: Callable[[bool], Report]) -> None:
    """The main program of every script: measure, and print both lines. `--quick` or QUICK=1: few and small runs."""
    parser = argparse.ArgumentParser(description=f"{key}: {title}")
    parser.add_argument("--quick", action="store_true", default=os.environ.get("QUICK") == "1")
    quick: bool = parser.parse_args().quick
    busy, before = calm_down(), ProcessorTime.now()
    try:
        report = measure(quick)
    except KeyboardInterrupt:  # what was started has been ended
        sys.exit(130)
    stolen = ProcessorTime.now().since(before).stolen
    noisy = busy > NOISE or stolen > STOLEN
    print(
        json.dumps(
            {
                "key": key, "title": title, "quick": quick, "noisy": noisy, "busy_before": round(busy, 3),
                "stolen": round(stolen, 3),
                "figures": [figure.as_json() for figure in report.figures], "details": report.details,
            },
            ensure_ascii=False,
        )
    )  # fmt: skip
    words = "; ".join(str(figure) for figure in report.figures)
    print(f"{key} {title}: {words}{' [machine not idle]' if noisy else ''}", file=sys.stderr)
