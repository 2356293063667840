"""B12: how much of ESI's allowance is used when it is the bottleneck, without ever being refused.

The detail bucket advertises 240 tokens a minute, floating, as ESI's 3,600 in 15 minutes float: 120 requests at once,
and then each as its tokens return. The share is what was spent between the first request of the first window and the
first of the last one, against what that time allows; a bucket reopens, at the door, when the tokens of the request 120
before come back.

What was spent returns a slice of the window late (`esi/rate_limit.py`), half a second of this minute. Of ESI's own 15
minutes a slice is 7 s, so that there the first request comes up to 7 s after the bucket has reopened, and nothing of
the allowance is lost by it but those 7 s in 900. This is a login's sync; the scheduler's leave a quarter to logins.
"""

from __future__ import annotations

import time
from itertools import pairwise

from benchmarks.harness import LATENCY, Cluster, browser, new_pilot, start_all, system, wait_until
from benchmarks.report import Figure, Report, median_of, run, worst_of

REQUESTS, WINDOW = 120, 60.0
LIMITS = ("--limit", f"killmail={2 * REQUESTS}/1m", "--limit", "char-killmail=1000/1m")
#: Seconds without a request that mean: the bucket was empty.
GAP = 10.0
#: Seconds that a slice of the bucket lasts before the short window is known: 15 minutes in 128.
OLD_SLICE = 900 / 128 + 1


def measure(quick: bool) -> Report:
    windows = 2 if quick else 6
    with system("--pilots", "0", *LIMITS, *LATENCY) as made:
        start_all(made)
        # The rule is learned from an answer, whose tokens, kept in the old rule's coarser slices, return first.
        browser(made, "10.0.0.1").log_in(new_pilot(made, 1))
        wait_until(made.is_quiet, "the rule is learned")
        time.sleep(WINDOW + OLD_SLICE)
        pilot = new_pilot(made, REQUESTS * (windows + 1))
        browser(made, "10.0.0.2").log_in(pilot)
        wait_until(lambda: bursts(arrivals(made)[1:])[windows:], "the windows pass", (windows + 2) * (WINDOW + 5), 0.5)
        wait_until(made.is_quiet, "the rest is fetched", 2 * WINDOW, 0.5)
        at = arrivals(made)[1:]
        refused = made.simulated.stats()["count_429"]
        wrong = made.differences(pilot)
    if wrong:
        raise RuntimeError(f"void: {wrong[0]}")
    starts = bursts(at)[: windows + 1]
    shares = [(late - early) / REQUESTS * WINDOW / (at[late] - at[early]) for early, late in pairwise(starts)]
    used = starts[-1] / REQUESTS * WINDOW / (at[starts[-1]] - at[0])
    lags = [at[start] - (at[start - REQUESTS] + WINDOW) for start in starts[1:] if start >= REQUESTS]
    return Report(
        [
            Figure("allowance used", used * 100, 97.0, "%", at_least=True, runs=tuple(share * 100 for share in shares)),
            Figure("429s", refused, 0),
            worst_of("reopening to next request, worst", lags, 2.0, "s"),
            median_of("reopening to next request, median", lags, unit="s"),
        ],
        {"windows": windows, "requests_in_each": [late - early for early, late in pairwise(starts)]},
    )


def arrivals(made: Cluster) -> list[float]:
    """When detail requests came to the door (seconds since the epoch)."""
    return sorted(entry["at"] for entry in made.simulated.requests(route="killmail"))


def bursts(at: list[float]) -> list[int]:
    """Where requests begin again after a gap; the first request begins the first."""
    return [n for n in range(len(at)) if n == 0 or at[n] - at[n - 1] > GAP]


if __name__ == "__main__":
    run("B12", "ESI's allowance as the bottleneck", measure)
