"""B3: what the system adds to the bare work, in processor time, and how fast it is beside Celery 5 doing the same.

Ours also lists, counts, limits, tells events and survives a kill; Celery's run and the bare loop get the references
for nothing. Each of the runs has a database of its own and the same killmails from the same simulator.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pika
import psycopg2

from benchmarks.first_sync import FirstSync, first_sync
from benchmarks.harness import (
    LIFTED,
    OPEN_BUCKETS,
    PROBE_DIRECTORY,
    Cluster,
    Process,
    child,
    new_pilot,
    start_all,
    system,
    wait_until,
)
from benchmarks.report import FULL_RUNS, Figure, Report, median_of, run
from tests import rabbitmq
from tests.acceptance.processes import BIN
from tests.postgres import scratch_database

#: Celery's pools as a machine of two cores runs them, (workers, options of each): a process a core, more of them to
#: cover the waits, threads in one process, and threads in a process a core, which is how ours are started.
POOLS = {
    "prefork 2": (1, ("--pool", "prefork", "--concurrency", "2")),
    "prefork 8": (1, ("--pool", "prefork", "--concurrency", "8")),
    "threads 16": (1, ("--pool", "threads", "--concurrency", "16")),
    "2 × threads 8": (2, ("--pool", "threads", "--concurrency", "8")),
}


def measure(quick: bool) -> Report:
    killmails, runs = (600, 1) if quick else (2500, FULL_RUNS)
    bare, ours = [], []
    celery: dict[str, list[float]] = {pool: [] for pool in POOLS}
    with system("--pilots", "0", *OPEN_BUCKETS, **LIFTED) as made:
        workers = start_all(made)
        first_sync(made, workers, new_pilot(made, 200))
        for _ in range(runs):
            pilot = new_pilot(made, killmails)
            references = made.simulated.truth()[pilot]["killmails"]
            ours.append(first_sync(made, workers, pilot))
            bare.append(bare_loop(made, references))
            for pool, (workers_of_it, options) in POOLS.items():
                celery[pool].append(celery_rate(made, references, workers_of_it, options))
    return _report(killmails, ours, bare, celery)


def _report(
    killmails: int, ours: list[FirstSync], bare: list[dict[str, Any]], celery: dict[str, list[float]]
) -> Report:
    bare_ms = [each["cpu_seconds"] / each["stored"] * 1000 for each in bare]
    best = max(celery, key=lambda pool: median(celery[pool]))
    ratios = [sync.cpu_ms_per_killmail / loop for sync, loop in zip(ours, bare_ms, strict=True)]
    rates = [sync.killmails_per_second for sync in ours]
    faster = [rate / theirs for rate, theirs in zip(rates, celery[best], strict=True)]
    return Report(
        [
            median_of("CPU ÷ bare loop's", ratios, 1.6),
            median_of("rate ÷ Celery's", faster, 1.0, at_least=True),
            median_of("CPU", [sync.cpu_ms_per_killmail for sync in ours], unit="ms/killmail"),
            Figure("bare loop", median(bare_ms), unit="ms/killmail"),
            median_of("ours", rates, unit="killmails/s"),
        ],
        {
            "killmails": killmails,
            "bare_loop_killmails_per_second": [round(each["stored"] / each["seconds"]) for each in bare],
            "celery_killmails_per_second": {pool: [round(rate) for rate in rates] for pool, rates in celery.items()},
            "celery_best": best,
        },
    )


def bare_loop(made: Cluster, references: list[Any]) -> dict[str, Any]:
    """Processor and wall seconds of the bare loop over these, in a database of its own."""
    path = Path(made.processes.environment[PROBE_DIRECTORY]) / "references.json"
    path.write_text(json.dumps(references))
    with _empty_database(made) as database_url:
        found: dict[str, Any] = child(made, "benchmarks.bare_loop", path, seconds=300, DATABASE_URL=database_url)
    return found


def celery_rate(made: Cluster, references: list[Any], workers: int, options: tuple[str, ...]) -> float:
    """Killmails a second, from the moment the first of the list is stored until the last one is."""
    with _empty_database(made) as database_url:
        started = [_celery_worker(made, number, options, database_url) for number in range(workers)]
        try:
            for worker in started:
                worker.wait_for_output(r"ready\.")
            return _drain(made, references, database_url)
        finally:
            for worker in started:
                worker.stop()
                made.processes.running.remove(worker)
            _delete_celery_queue()


def _celery_worker(made: Cluster, number: int, options: tuple[str, ...], database_url: str) -> Process:
    command = [str(BIN / "celery"), "--app", "benchmarks.celery_app", "worker", "--loglevel", "INFO", *options]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--hostname", f"celery{number}@%h"]
    return made.processes.start("celery", [*command, *quiet], DATABASE_URL=database_url)


def _drain(made: Cluster, references: list[Any], database_url: str) -> float:
    warm, rest = references[:50], references[50:]
    counting = psycopg2.connect(database_url)
    counting.autocommit = True

    def stored() -> int:
        with counting.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM killmails")
            (count,) = cursor.fetchone() or (0,)
        return int(count)

    try:
        _hand_over(made, warm)
        wait_until(lambda: stored() == len(warm), "Celery is warm", pause=0.05)
        _hand_over(made, rest)
        wait_until(lambda: stored() > len(warm), "Celery has begun", pause=0.005)
        began = time.perf_counter()
        wait_until(lambda: stored() == len(references), "Celery has stored everything", 300, pause=0.05)
        return len(rest) / (time.perf_counter() - began)
    finally:
        counting.close()


def _hand_over(made: Cluster, references: list[Any]) -> None:
    path = Path(made.processes.environment[PROBE_DIRECTORY]) / "handed_over.json"
    path.write_text(json.dumps(references))  # more than a command line holds
    code = f"import json; from benchmarks.celery_app import fetch_all; fetch_all.delay(json.load(open({str(path)!r})))"
    sent = made.processes.run([sys.executable, "-c", code])
    if sent.returncode:
        raise RuntimeError(sent.stderr)


@contextmanager
def _empty_database(made: Cluster) -> Iterator[str]:
    with scratch_database() as database_url:
        migrated = made.processes.run([sys.executable, "scripts/migrate.py"], DATABASE_URL=database_url)
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        yield database_url


def _delete_celery_queue() -> None:
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.address()))
    connection.channel().queue_delete("benchmark_celery")
    connection.close()


if __name__ == "__main__":
    run("B3", "processor time beside the bare loop, and speed beside Celery 5", measure)
