"""The system under measurement: production's processes on a scratch database, their processor time and memory.

Web is gunicorn and workers are `dramatiq`, started as supervisord.conf starts them. The invariant: what a script
started ends with it, databases and queues included; where it failed, the processes' output is kept and named.
Processes and the simulator's control address are the acceptance tests' own (`tests/acceptance`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import database
from tests import rabbitmq
from tests.acceptance.cluster import Cluster, system_settings
from tests.acceptance.pilots import Browser, Simulated
from tests.acceptance.processes import BIN, Process, Processes, wait_until
from tests.postgres import scratch_database

#: ESI's buckets out of the way, so that only the ceiling is left; whole lists of 1,000 a page, as ESI has them.
OPEN_BUCKETS = ("--limit", "killmail=5000000/1m", "--limit", "char-killmail=100000/1m", "--cache-seconds", "0")
#: Milliseconds that ESI takes to answer, as seen from Europe.
LATENCY = ("--latency-ms", "40-120")
#: The ceiling of 50 requests/s out of the way: settings allow no more.
LIFTED = {"ESI_REQUESTS_PER_SECOND": "10000"}
#: Where `benchmarks.probed` workers write.
PROBE_DIRECTORY = "BENCHMARK_PROBE_DIRECTORY"

_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def system(*simulator: str, module: str = "simulator", **settings: str) -> Iterator[Cluster]:
    """A simulator and a migrated, empty system on it of which nothing is started yet."""
    directory = Path(tempfile.mkdtemp(prefix="killmail-bench-"))
    try:
        with scratch_database() as database_url:
            rabbitmq.clear_queues()
            with _processes(directory, database_url, simulator, module, settings) as made:
                yield made
    except BaseException:
        print(f"the processes' output is kept in {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)


@contextmanager
def _processes(
    directory: Path, database_url: str, simulator: tuple[str, ...], module: str, settings: dict[str, str]
) -> Iterator[Cluster]:
    processes = Processes(directory, {})
    try:
        server = processes.start("simulator", [sys.executable, "-m", module, *simulator])
        url = server.wait_for_output(r"listening on (http://\S+)", seconds=300)[1]
        probes = {PROBE_DIRECTORY: str(directory)}
        processes.environment = system_settings(url, database_url, rabbitmq.address()) | probes | settings
        database.connect(database_url).connect()
        made = Cluster(processes, Simulated(url))
        migrated = made.script("migrate")
        if migrated.returncode:
            raise RuntimeError(migrated.stderr)
        yield made
    finally:
        processes.end_all()
        if not database.db.is_closed():
            database.db.close()
        database.db.close_all()


def start_web(system: Cluster) -> Process:
    """The web as supervisord.conf starts it; returns gunicorn's master."""
    command = [str(BIN / "gunicorn"), "--config", "web/gunicorn.py", "app:create_app()"]
    system.web = system.processes.start("web", command)
    system.web.wait_for_output("Booting worker")
    system.web_url = f"http://127.0.0.1:{system.processes.environment['PORT']}"
    return system.web


def start_all(system: Cluster, *, processes: int = 2, threads: int = 8, module: str = "actors") -> Process:
    """Web, scheduler and workers; returns the workers."""
    start_web(system)
    system.start_scheduler()
    return system.start_workers(processes=processes, threads=threads, module=module)


def send(system: Cluster, code: str) -> None:
    """Run a line of Python as another process of the system: for messages."""
    sent = system.processes.run([sys.executable, "-c", code])
    if sent.returncode:
        raise RuntimeError(sent.stderr)


def child(system: Cluster, module: str, *arguments: object, seconds: float = 120, **settings: str) -> Any:
    """What `python -m module` says after RESULT, as JSON: a process of the system that measures something inside."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = system.processes.start(module.rpartition(".")[2], command, **settings)
    found = process.wait_for_output(r"(?m)^RESULT (.+)$", seconds)
    process.stop()
    system.processes.running.remove(process)
    return json.loads(found[1])


def browser(system: Cluster, address: str) -> Browser:
    """A pilot's browser behind the proxy on this machine, which says whose `address` it is: limits count by it."""
    made = system.browser()
    made.session.headers["X-Forwarded-For"] = address
    return made


def address_of(number: int) -> str:
    """Some address for the so-many-th pilot."""
    return f"10.0.{number // 250}.{number % 250 + 1}"


def new_pilot(system: Cluster, killmails: int) -> int:
    """A character with so many killmails, all of them new; returns its id."""
    made: dict[str, Any] = system.simulated.post("characters", {"killmails": 0})
    character_id = int(made["character_id"])
    add_killmails(system, character_id, killmails)
    return character_id


def add_killmails(system: Cluster, character_id: int, count: int) -> None:
    """More of them in the character's list; at most 1,000 a request, so that the simulator keeps answering."""
    for start in range(0, count, 1000):
        wanted = {"count": min(1000, count - start), "bust_cache": True}
        system.simulated.post(f"characters/{character_id}/killmails", wanted)


def rate_at_the_door(system: Cluster, since: int, *routes: str) -> float:
    """Requests of these routes a second after that log entry, from the first to the last: while there was work."""
    arrivals: list[float] = sorted(
        entry["at"] for entry in system.simulated.requests(since) if entry["route"] in routes
    )
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])


def group_pids(leader: int) -> list[int]:
    """The processes of a process group that are alive."""
    return [pid for pid in _all_pids() if _stat(pid)[2:3] == [str(leader)]]


def children_of(parent: int) -> list[int]:
    """The processes that this one has started and that are alive."""
    return [pid for pid in _all_pids() if _stat(pid)[1:2] == [str(parent)]]


def cpu_seconds(process: Process) -> float:
    """Processor time, user and system, that a process and its children in its group have used until now."""
    stats = [_stat(pid) for pid in group_pids(process.child.pid)]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats if stat) / _TICKS


def cpu_seconds_by(kinds: Mapping[str, str]) -> dict[str, float]:
    """Processor time that the processes of this machine have used until now, by kind: the first text of `kinds` that
    stands in a command line says which."""
    spent = dict.fromkeys(kinds.values(), 0.0)
    for pid in _all_pids():
        stat, command = _stat(pid), _command(pid)
        kind = next((kind for text, kind in kinds.items() if text in command), None)
        if stat and kind is not None:
            spent[kind] += (int(stat[11]) + int(stat[12])) / _TICKS
    return spent


def memory_bytes(pid: int) -> int:
    """The memory a process has to itself and its part of what it shares (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the kernel tells no PSS of process {pid}")


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str]:
    """/proc/<pid>/stat from the third field on (state, ppid, pgrp, …); empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


__all__ = ["Cluster", "Process", "wait_until"]
