"""B8: a thousand live subscribers on one web process, with and without one among them that has stopped reading.

Two of them get fifty killmails a second each, and twice a second something is stored that concerns everybody. Time
from a killmail's commit to its frame at the client, which is a process of its own on the same cores.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import bulk, crowd_rows
from benchmarks.asks import NEW_KILLMAIL
from benchmarks.harness import (
    PROBE_DIRECTORY,
    Cluster,
    Process,
    child,
    group_pids,
    memory_bytes,
    start_web,
    system,
    wait_until,
)
from benchmarks.report import Figure, Report, percentile, run
from benchmarks.sockets import LiveSocket
from database import execute

FIRST_STORM, SECOND_STORM = 10_000_000, 20_000_000
#: A longer killmail: what the client that does not read has asked for, so that its socket is full within seconds.
LONGER = NEW_KILLMAIL.replace("attackerCount", "attackerCount attackers { character { id name } damageDone }")


def measure(quick: bool) -> Report:
    sockets, seconds = (200, 6) if quick else (1_000, 30)
    with system() as made:
        web = start_web(made)
        bulk.users(sockets, 0)
        users = [row[0] for row in execute("SELECT id FROM users ORDER BY id").fetchall()]
        for first_id in (FIRST_STORM, SECOND_STORM):
            crowd_rows.link(first_id, seconds, users)
        bulk.settle()
        worker = max(group_pids(web.child.pid))
        cookies = crowd_rows.cookies(made, users)
        LiveSocket(made.web_url, cookies[0]).close()  # whatever the first socket of a process costs
        empty = memory_bytes(worker)
        crowd = start_crowd(made, cookies[:-1])
        each = (memory_bytes(worker) - empty) / (sockets - 1)
        calm = storm(made, crowd, FIRST_STORM, seconds, sockets - 1)
        each_after = (memory_bytes(worker) - empty) / (sockets - 1)
        stuck = stick(made, cookies[0])
        troubled = storm(made, crowd, SECOND_STORM, seconds, sockets - 1)
        each_troubled = (memory_bytes(worker) - empty) / (sockets - 1)
        stuck.close()
        crowd.kill()
    return Report(
        [
            Figure("commit to frame, p99", percentile(calm, 0.99) * 1000, 250, "ms"),
            Figure("the same with a stuck client", percentile(troubled, 0.99) * 1000, 250, "ms"),
            Figure("memory a subscriber", max(each, each_after) / 1024, 100, "KiB"),
            Figure("the same with a stuck client, memory", each_troubled / 1024, 100, "KiB"),
            Figure("commit to frame, median", percentile(calm, 0.5) * 1000, unit="ms"),
            Figure("commit to frame, worst", max(calm) * 1000, unit="ms"),
        ],
        {"subscribers": sockets, "seconds": seconds, "frames": len(calm), "memory_kib_at_rest": round(each / 1024)},
    )


def start_crowd(made: Cluster, cookies: list[str]) -> Process:
    """Readers, subscribed."""
    path = Path(made.processes.environment[PROBE_DIRECTORY]) / "cookies.json"
    path.write_text(json.dumps(cookies))
    command = [sys.executable, "-m", "benchmarks.socket_crowd", str(frames_file(made)), made.web_url, str(path)]
    crowd = made.processes.start("crowd", command)
    crowd.wait_for_output("READY", 120)
    time.sleep(1.0)  # what their arrival has stirred up
    return crowd


def stick(made: Cluster, cookie: str) -> LiveSocket:
    """A client of the busiest user, with a small buffer, that subscribes and never reads again."""
    stuck = LiveSocket(made.web_url, cookie, sockopt=((socket.SOL_SOCKET, socket.SO_RCVBUF, 4096),))
    stuck.subscribe(LONGER)
    return stuck


def storm(made: Cluster, crowd: Process, first_id: int, seconds: int, readers: int) -> list[float]:
    """Seconds from commit to frame, for every frame of a storm. Raises unless each reader got each of theirs once."""
    found: dict[str, Any] = child(made, "benchmarks.storm", seconds, first_id, seconds=seconds * 5 + 60)
    committed = {int(killmail_id): at for killmail_id, at in found["committed"].items()}
    expected = crowd_rows.expected_frames(first_id, seconds, readers)

    def frames() -> list[tuple[int, float]]:
        lines = frames_file(made).read_text().splitlines()
        parsed = [line.split() for line in lines if line.count(" ") == 1]
        return [(int(each), float(at)) for each, at in parsed if int(each) in committed]

    def all_here() -> bool:
        if crowd.child.poll() is not None:
            raise RuntimeError(f"void: {crowd.output().strip().rpartition(chr(10))[2]}; {len(frames())} frames came")
        return len(frames()) >= expected

    wait_until(all_here, f"{expected} frames have come", 60, pause=1.0)
    if found["seconds_late"] > 0.1 * seconds:
        print(f"the storm took {found['seconds_late']:.1f} s longer than it should", file=sys.stderr)
    seen = frames()
    if len(seen) != expected:
        raise RuntimeError(f"void: {len(seen)} frames where {expected} were expected")
    return [at - committed[killmail_id] for killmail_id, at in seen]


def frames_file(made: Cluster) -> Path:
    return Path(made.processes.environment[PROBE_DIRECTORY]) / "frames.txt"


if __name__ == "__main__":
    run("B8", "live subscribers on one web process", measure)
