"""B8: a thousand live subscribers on one web process, with and without one among them that has stopped reading.

Each is a dashboard that is open: subscribed to the pilot's killmails and to the sync, over one socket. Two of them get
fifty killmails a second each, and twice a second something is stored that concerns everybody. Time from a killmail's
commit to its frame at the client, which is a process of its own on the same cores. The one that has stopped reading
holds its thread of the server for ten seconds, until it is given up: half a storm.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import bulk, crowd_rows
from benchmarks.harness import (
    PROBE_DIRECTORY,
    Cluster,
    Process,
    child,
    children_of,
    memory_bytes,
    start_web,
    system,
    wait_until,
)
from benchmarks.report import FULL_RUNS, Report, median_of, percentile, run, worst_of
from benchmarks.sockets import LiveSocket
from database import execute

#: First ids of the storms, so far apart that none meets another.
FIRST_STORM, APART = 10_000_000, 1_000_000
#: The share of its time by which a storm may take longer. A slower one would prove less.
LATE = 0.1
#: A client far away, behind small packets and with a small buffer: what this machine keeps for it is full at once. By
#: its defaults the loopback would hold back 2.6 MB, more than comes in a storm.
FAR_AWAY = ((socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536), (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096))


@dataclass(frozen=True, slots=True)
class Storm:
    """Seconds from commit to frame of every frame, bytes a subscriber when the storm was over, and by how many seconds
    it took longer than it should."""

    waits: list[float]
    memory: float
    late: float

    @property
    def p99_ms(self) -> float:
        return percentile(self.waits, 0.99) * 1000


def measure(quick: bool) -> Report:
    sockets, seconds, runs = (200, 14, 1) if quick else (1_000, 20, FULL_RUNS)
    calm, troubled = [], []
    with system() as made:
        web = start_web(made)
        bulk.users(sockets, 0)
        bulk.ended_syncs()
        users = [row[0] for row in execute("SELECT id FROM users ORDER BY id").fetchall()]
        storms = [FIRST_STORM + number * APART for number in range(2 * runs)]
        for first_id in storms:
            crowd_rows.link(first_id, seconds, users)
        bulk.settle()
        (worker,) = children_of(web.child.pid)
        cookies = crowd_rows.cookies(made, users)
        LiveSocket(made.web_url, cookies[0]).close()  # whatever the first socket of a process costs
        empty = memory_bytes(worker)
        crowd = start_crowd(made, cookies[:-1])

        def blow(first_id: int) -> Storm:
            waits, late = storm(made, crowd, first_id, seconds, sockets - 1)
            return Storm(waits, (memory_bytes(worker) - empty) / (sockets - 1), late)

        for calm_id, troubled_id in zip(storms[::2], storms[1::2], strict=True):
            calm.append(blow(calm_id))
            stuck = stick(made, cookies[0])
            troubled.append(blow(troubled_id))
            check_it_was_stuck(stuck, seconds)
        crowd.kill()
    return Report(
        [
            median_of("commit to frame, p99", [each.p99_ms for each in calm], 250, "ms"),
            median_of("the same with a stuck client", [each.p99_ms for each in troubled], 250, "ms"),
            median_of("memory a subscriber", [each.memory / 1024 for each in calm], 100, "KiB"),
            median_of("the same with a stuck client, memory", [each.memory / 1024 for each in troubled], 100, "KiB"),
            median_of("commit to frame, median", [median(each.waits) * 1000 for each in calm], unit="ms"),
            worst_of("commit to frame, worst", [max(each.waits) * 1000 for each in calm], unit="ms"),
            median_of(
                "p99, with a stuck client ÷ without",
                [stuck.p99_ms / none.p99_ms for stuck, none in zip(troubled, calm, strict=True)],
            ),
        ],
        {
            "reading": sockets - 1, "stuck": 1, "seconds": seconds, "frames_a_storm": len(calm[0].waits),
            "worst_seconds_late": round(max(each.late for each in calm + troubled), 2),
        },
    )  # fmt: skip


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
    """A client of the busiest user that subscribes and never reads again."""
    stuck = LiveSocket(made.web_url, cookie, sockopt=FAR_AWAY)
    stuck.follow()
    return stuck


def check_it_was_stuck(stuck: LiveSocket, seconds: int) -> None:
    """Raise unless the server had given it up before the storm was over: else it sends on now that it is read."""
    due, unread = (crowd_rows.EACH + crowd_rows.FOR_ALL) * seconds, stuck.unread()
    stuck.close()
    if unread > due / 2:
        raise RuntimeError(f"void: {unread} of {due} frames had been sent to the client that was to be stuck")


def storm(made: Cluster, crowd: Process, first_id: int, seconds: int, readers: int) -> tuple[list[float], float]:
    """Seconds from commit to frame, for every frame of a storm, and how late it was. Raises unless each reader got each
    of theirs once."""
    found: dict[str, Any] = child(made, "benchmarks.storm", seconds, first_id, seconds=seconds * 5 + 60)
    if found["seconds_late"] > LATE * seconds:
        raise RuntimeError(f"void: the storm took {found['seconds_late']:.1f} s longer than it should")
    committed = {int(killmail_id): at for killmail_id, at in found["committed"].items()}
    expected = crowd_rows.expected_frames(first_id, seconds, readers)

    def frames() -> list[tuple[str, int, float]]:
        lines = frames_file(made).read_text().splitlines()
        parsed = [line.split() for line in lines if line.count(" ") == 2]
        return [(reader, int(each), float(at)) for reader, each, at in parsed if int(each) in committed]

    def all_here() -> bool:
        if crowd.child.poll() is not None:
            raise RuntimeError(f"void: {crowd.output().strip().rpartition(chr(10))[2]}; {len(frames())} frames came")
        return len(frames()) >= expected

    wait_until(all_here, f"{expected} frames have come", 60, pause=1.0)
    seen = frames()
    if not len(seen) == len({frame[:2] for frame in seen}) == expected:
        raise RuntimeError(f"void: {len(seen)} frames where each reader was to get each of {expected} once")
    return [at - committed[killmail_id] for _, killmail_id, at in seen], found["seconds_late"]


def frames_file(made: Cluster) -> Path:
    return Path(made.processes.environment[PROBE_DIRECTORY]) / "frames.txt"


if __name__ == "__main__":
    run("B8", "live subscribers on one web process", measure)
