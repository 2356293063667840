"""A pilot's first sync from login to its end, measured: what B1, B2, B3 and B11 have in common."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.harness import Cluster, Process, browser, cpu_seconds, wait_until


@dataclass(frozen=True, slots=True)
class FirstSync:
    """`seconds` from the click on "log in" to the sync's end, `cpu_seconds` of the workers; `door` is what ESI saw."""

    killmails: int
    seconds: float
    cpu_seconds: float
    door: dict[str, Any]

    @property
    def killmails_per_second(self) -> float:
        return self.killmails / self.seconds

    @property
    def cpu_ms_per_killmail(self) -> float:
        return self.cpu_seconds / self.killmails * 1000


def first_sync(system: Cluster, workers: Process, character_id: int, address: str = "10.0.0.1") -> FirstSync:
    """Log the character in and wait for its sync's end. Raises RuntimeError unless all was saved, each asked once."""
    wanted = len(system.simulated.killmail_ids(character_id))
    seen = system.simulated.stats()["last_seq"]
    cpu, started = cpu_seconds(workers), time.time()
    browser(system, address).log_in(character_id)
    patience = 60 + wanted / 10
    wait_until(lambda: _ended(system, character_id), f"{wanted} killmails are synced", patience, pause=0.1)
    cpu = cpu_seconds(workers) - cpu
    state, saved, finished_at = _newest(system, character_id)
    door = system.simulated.stats(seen)
    if (state, saved) != ("FINISHED", wanted) or door["repeated_details"] or door["count_429"]:
        raise RuntimeError(f"void: {state}, {saved} of {wanted} saved, door {door}")
    return FirstSync(wanted, finished_at.replace(tzinfo=UTC).timestamp() - started, cpu, door)


def _ended(system: Cluster, character_id: int) -> bool:
    newest = _newest(system, character_id)
    return newest is not None and newest[2] is not None


def _newest(system: Cluster, character_id: int) -> Any:
    rows: list[tuple[str, int, datetime]] = system.rows(
        """SELECT s.state, s.saved, s.finished_at FROM syncs s JOIN users u ON u.id = s.user_id
           WHERE u.character_id = ? ORDER BY s.id DESC LIMIT 1""",
        character_id,
    )
    return rows[0] if rows else None
