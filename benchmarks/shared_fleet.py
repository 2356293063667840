"""`python -m benchmarks.shared_fleet PILOTS KILLMAILS`: a simulator in which every pilot lists every killmail.

On ESI a killmail stands in two lists at most; twenty is what the claim asks for, and makes the races worse.
"""

from __future__ import annotations

import sys
from threading import Event

from simulator import server
from simulator.config import Config
from simulator.state import Simulator


def share(state: Simulator) -> None:
    """Every pilot lists everything."""
    for pilot in state.world.pilots.values():
        pilot.killmail_ids.update(state.world.killmails)


def main() -> None:
    pilots, killmails = map(int, sys.argv[1:])
    limits = {"killmail": "5000000/1m", "char-killmail": "100000/1m"}
    config = Config(pilots=pilots, killmail_count=killmails, limits=limits, latency_ms=(40, 120))
    running = server.start(config)
    running.call(share)
    print(f"simulator listening on {running.url}", flush=True)
    Event().wait()


if __name__ == "__main__":
    main()
