"""`python -m benchmarks.where [KILLMAILS]`: where the processor time of B3 goes, by process and within the workers.

One sync with the ceiling lifted for the processes; another one for the workers' functions, because py-spy costs some
itself. It looks 200 times a second at the threads that hold the interpreter, and may look into other processes as root
or with kernel.yama.ptrace_scope=0. Shares are inclusive: a function's own time and that of all it calls.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.first_sync import FirstSync, first_sync
from benchmarks.harness import (
    LIFTED,
    OPEN_BUCKETS,
    PROBE_DIRECTORY,
    Cluster,
    Process,
    address_of,
    children_of,
    cpu_seconds_by,
    new_pilot,
    start_all,
    system,
)
from tests.acceptance.processes import BIN

#: What is in a process's command line, and who that is; the first that fits.
KINDS = {"dramatiq": "workers", "postgres": "PostgreSQL", "beam.smp": "RabbitMQ", "simulator": "simulator"}
#: Functions shown: those that account for most.
SHOWN = 45


def main() -> None:
    killmails = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    with system("--pilots", "0", *OPEN_BUCKETS, **LIFTED) as made:
        workers = start_all(made)
        first_sync(made, workers, new_pilot(made, 200), address_of(0))
        pilot = new_pilot(made, killmails)
        before = cpu_seconds_by(KINDS)
        sync = first_sync(made, workers, pilot, address_of(1))
        spent = {kind: seconds - before[kind] for kind, seconds in cpu_seconds_by(KINDS).items()}
        samples = watched(made, workers, killmails)
    show(sync, spent, samples)


def watched(made: Cluster, workers: Process, killmails: int) -> list[str]:
    """A sync under py-spy: `frame;frame;… count` lines of all worker processes."""
    pilot = new_pilot(made, killmails)
    directory = Path(made.processes.environment[PROBE_DIRECTORY])
    spies = {directory / f"spy.{pid}": pid for pid in children_of(workers.child.pid)}
    options = ["--gil", "--rate", "200", "--format", "raw", "--nolineno"]
    running = [
        subprocess.Popen([str(BIN / "py-spy"), "record", "--pid", str(pid), *options, "--output", str(path)])
        for path, pid in spies.items()
    ]
    first_sync(made, workers, pilot, address_of(2))
    for spy in running:
        spy.send_signal(signal.SIGINT)
        spy.wait(30)
    return [line for path in spies for line in path.read_text().splitlines()]


def show(sync: FirstSync, spent: dict[str, float], samples: list[str]) -> None:
    print(f"{sync.killmails} killmails, {sync.killmails_per_second:.0f}/s; ms of processor time a killmail:")
    for kind, seconds in spent.items():
        print(f"  {seconds / sync.killmails * 1000:5.2f}  {kind}")
    within: Counter[str] = Counter()
    total = 0
    for line in samples:
        stack, _, count = line.rpartition(" ")
        total += int(count)
        within.update(dict.fromkeys(set(stack.split(";")), int(count)))
    print(f"of the workers' {total} samples, %:")
    for function, times in within.most_common(SHOWN):
        print(f"  {100 * times / total:5.1f}  {function}")


if __name__ == "__main__":
    main()
