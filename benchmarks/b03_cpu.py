"""B3: what the system adds to the bare work, in processor time, and how fast it is beside Celery 5 doing the same.

Ours also lists, counts, limits, tells events and survives a kill; Celery's run and the bare loop get the references
for nothing. Rates are taken alike, from the first killmail stored to the last, and processor time from login to the
sync's end; names, asked for after it, are in nobody's. One of the three runs at a time, the processes of the others
ended, and on the same killmails from the same simulator: Celery and the bare loop each time on an empty database.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
    address_of,
    child,
    new_pilot,
    start_all,
    system,
    wait_until,
)
from benchmarks.report import FULL_RUNS, Report, median_of, run
from tests import rabbitmq
from tests.acceptance.processes import BIN
from tests.postgres import scratch_database

#: As Celery's guide advises for many short tasks, and its default.
PREFETCH, DEFAULT_PREFETCH = ("--prefetch-multiplier", "64"), ("--prefetch-multiplier", "4")
#: Celery's pools as a machine of two cores runs them, (workers, options of each): a process a core, more of them to
#: cover the waits, threads in one process, and threads in a process a core, which is how ours are started.
POOLS = {
    "prefork 2": (1, ("--pool", "prefork", "--concurrency", "2", *PREFETCH)),
    "prefork 8": (1, ("--pool", "prefork", "--concurrency", "8", *PREFETCH)),
    "threads 16": (1, ("--pool", "threads", "--concurrency", "16", *PREFETCH)),
    "2 × threads 8": (2, ("--pool", "threads", "--concurrency", "8", *PREFETCH)),
    "2 × threads 8, prefetch 4": (2, ("--pool", "threads", "--concurrency", "8", *DEFAULT_PREFETCH)),
}
#: Killmails of these ids a second, from the first one stored to the last.
_RATE = """
    SELECT (COUNT(*) - 1) / extract(epoch FROM MAX(created_at) - MIN(created_at))::float8
    FROM killmails WHERE killmail_id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Ours:
    """A sync, and the rate at which its killmails were stored."""

    sync: FirstSync
    rate: float


def measure(quick: bool) -> Report:
    killmails, runs = (600, 1) if quick else (2500, FULL_RUNS)
    bare, ours = [], []
    celery: dict[str, list[float]] = {pool: [] for pool in POOLS}
    with system("--pilots", "0", *OPEN_BUCKETS, **LIFTED) as made:
        for number in range(runs):
            pilot = new_pilot(made, killmails)
            references = made.simulated.truth()[pilot]["killmails"]
            ours.append(our_turn(made, pilot, [each for each, _ in references], number))
            bare.append(bare_loop(made, references))
            for pool, (workers_of_it, options) in POOLS.items():
                celery[pool].append(celery_rate(made, references, workers_of_it, options))
    return _report(killmails, ours, bare, celery)


def our_turn(made: Cluster, pilot: int, killmail_ids: list[int], number: int) -> Ours:
    """The system started, warmed up, measured, and ended."""
    running = list(made.processes.running)
    workers = start_all(made)
    first_sync(made, workers, new_pilot(made, 200), address_of(2 * number))
    sync = first_sync(made, workers, pilot, address_of(2 * number + 1))
    for process in [each for each in made.processes.running if each not in running]:
        process.stop()
        made.processes.running.remove(process)
    return Ours(sync, stored_a_second(made.processes.environment["DATABASE_URL"], killmail_ids))


def stored_a_second(database_url: str, killmail_ids: list[int]) -> float:
    """The rate at which these were stored, of which all are."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute(_RATE, (killmail_ids,))
        (rate,) = cursor.fetchone() or (0.0,)
    return float(rate)


def _report(killmails: int, ours: list[Ours], bare: list[dict[str, Any]], celery: dict[str, list[float]]) -> Report:
    bare_ms = [each["cpu_seconds"] / each["stored"] * 1000 for each in bare]
    best = max(celery, key=lambda pool: median(celery[pool]))
    ours_ms = [each.sync.cpu_ms_per_killmail for each in ours]
    rates = [each.rate for each in ours]
    return Report(
        [
            median_of("CPU ÷ bare loop's", [mine / loop for mine, loop in zip(ours_ms, bare_ms, strict=True)], 1.6),
            median_of(
                "rate ÷ Celery's",
                [mine / theirs for mine, theirs in zip(rates, celery[best], strict=True)],
                1.0,
                at_least=True,
            ),
            median_of("CPU", ours_ms, unit="ms/killmail"),
            median_of("bare loop", bare_ms, unit="ms/killmail"),
            median_of("ours", rates, unit="killmails/s"),
            median_of("ours, from login to end", [each.sync.killmails_per_second for each in ours], unit="killmails/s"),
            median_of("Celery", celery[best], unit="killmails/s"),
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
    """Killmails a second, once this pool is warm."""
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
    with closing(psycopg2.connect(database_url)) as counting:
        counting.autocommit = True

        def stored() -> int:
            with counting.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM killmails")
                (count,) = cursor.fetchone() or (0,)
            return int(count)

        _hand_over(made, warm)
        wait_until(lambda: stored() == len(warm), "Celery is warm", pause=0.05)
        _hand_over(made, rest)
        wait_until(lambda: stored() == len(references), "Celery has stored everything", 300, pause=0.2)
    return stored_a_second(database_url, [each for each, _ in rest])


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
