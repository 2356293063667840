"""B16: twelve hours of 110 % and of 150 % of the killmails that ESI allows: who waits, how long, and whether for ever.

In simulated time, with the project's own ledger, dispatcher and limiter (`overload.py`); both loads run at once. At
100 % there are 15 logins an hour, three of four with 480 killmails and one with 50 to 100, and background syncs with
three new killmails each for the rest.

Under such loads waits grow with the time simulated, and say nothing of a row that is overtaken for ever. What the
ledger promises is that the oldest list of each class is served all the time. So the killmails are counted that are
fetched in a row while that list waits and gets none: a hundred with the ledger as it is, thousands without its floors,
and as many as there is time for once a row that is never sent belongs to the oldest list that waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import Figure, Report, percentile, run
from tests.acceptance.cluster import system_settings
from tests.acceptance.processes import clean_environment

LOADS = (1.1, 1.5)
#: Seconds that a login with up to 100 killmails may take.
SMALL_LOGIN = 600.0
#: Killmails of logins that may be fetched in a row while a background one waits. Background has one of ten; within a
#: window of 96 messages the broker may hand out its share first or last.
OVERTAKEN = 192
#: Killmails of any list that may be fetched in a row while the oldest list of a class waits: it has one of ten, too.
PASSED_OVER = 192


def measure(quick: bool) -> Report:
    hours = 1.0 if quick else 12.0
    with tempfile.TemporaryDirectory(prefix="killmail-bench-") as directory:
        started = [(load, start(load, hours, Path(directory))) for load in LOADS]
        answers = {load: answer(process) for load, process in started}
    figures = [figure for load, found in answers.items() for figure in figures_of(f"{load:.0%}", found)]
    details = {
        f"{load:.0%}": {
            name: found[name] for name in ("interactive_fetched", "background_fetched", "left")
        } for load, found in answers.items()
    }  # fmt: skip
    return Report(figures, {"hours": hours, **details})


def figures_of(load: str, found: dict[str, Any]) -> list[Figure]:
    """The figures of one load. The largest waits include what still waits at the end."""
    return [
        Figure(f"{load}: login with up to 100, slowest", max(found["small"]), SMALL_LOGIN, "s"),
        Figure(f"{load}: killmails of logins in a row, most", found["most_overtaken"], OVERTAKEN),
        Figure(f"{load}: killmails in a row, none of the oldest list", found["most_passed_over"], PASSED_OVER),
        Figure(f"{load}: longest time without background", found["longest_pause"] / 60, unit="min"),
        Figure(f"{load}: largest wait, background", found["longest_background"] / 60, unit="min"),
        Figure(f"{load}: largest wait, logins", found["longest_interactive"] / 60, unit="min"),
        Figure(f"{load}: login with 480, median", percentile(found["large"], 0.5) / 60, unit="min"),
    ]


def start(load: float, hours: float, directory: Path, *options: str) -> subprocess.Popen[str]:
    """A process that simulates one load. A broker's address makes the window a cluster's; nothing connects to it."""
    database_url = f"sqlite:///{directory / f'load{load}.db'}"
    environment = system_settings("http://127.0.0.1:1", database_url, "amqp://127.0.0.1:1/")
    command = [sys.executable, "-m", "benchmarks.overload", str(load), str(hours), *options]
    return subprocess.Popen(command, env=clean_environment() | environment, stdout=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it says after RESULT. Raises RuntimeError where it failed."""
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the simulation ended with {process.returncode}")
    said: dict[str, Any] = json.loads(output.rpartition("RESULT ")[2])
    return said


if __name__ == "__main__":
    run("B16", "twelve hours of more than ESI allows", measure)
