"""ESI's ceiling, measured at its door: two worker processes together, with work for a while."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services

#: Buckets wide open: only the ceiling of 50 requests in any one second is left to hold.
SIMULATOR = (
    "--pilots", "2", "--killmails-count", "700", "--latency-ms", "40-120",
    "--limit", "killmail=100000/1m", "--limit", "char-killmail=1000/1m",
)  # fmt: skip


def test_two_worker_processes_stay_at_the_ceiling_and_under_it(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        system.start_web()
        system.start_workers(processes=2, threads=8)

        for character_id in system.simulated.truth():
            system.browser().log_in(character_id)
        system.wait_for_syncs()

        arrivals = detail_arrivals(system)
        assert system.differences() == []
        assert len(arrivals) == 700
        assert system.simulated.stats()["max_in_one_second"] <= 50
        assert (len(arrivals) - 1) / (arrivals[-1] - arrivals[0]) >= 47.5, "requests a second, from first to last"


def detail_arrivals(system: Cluster) -> list[float]:
    """Seconds at which detail requests came to the door."""
    return sorted(entry["at"] for entry in system.simulated.requests(route="killmail"))
