"""`/metrics`: the state of the whole system in Prometheus' text format, read from the database when it is asked for.

Any process's answer is everybody's, because nothing is counted in memory. No id and no name is a label. Counts are
remembered for a few seconds: the address is open, and counting costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from accounts import TOKEN_STATE_SQL
from api import system
from api.system import System
from database import execute

#: Seconds between two countings.
FRESH_SECONDS = 5.0
EXTENSION = "killmail-sync.metrics"

blueprint = Blueprint("metrics", __name__)

#: Name, help, label (or none), and the statement whose rows are (label,) value.
GAUGES = (
    ("killmails_stored", "Killmails stored.", None, "SELECT COUNT(*) FROM killmails"),
    ("ledger_rows", "Killmails still to be fetched.", "state", "SELECT state, COUNT(*) FROM ledger GROUP BY state"),
    (
        "syncs_active",
        "Syncs under way.",
        "state",
        "SELECT state, COUNT(*) FROM syncs WHERE finished_at IS NULL GROUP BY state",
    ),
    (
        "users",
        "Users by what they have to do.",
        "token_state",
        f"SELECT LOWER({TOKEN_STATE_SQL}), COUNT(*) FROM users GROUP BY 1",
    ),
    ("names_unknown", "Ids that have no name yet.", None, "SELECT COUNT(*) FROM names WHERE name IS NULL"),
)


class _Collector:
    def __init__(self, of: System) -> None:
        self._system = of

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, text, label, statement in GAUGES:
            gauge = GaugeMetricFamily(f"killmail_sync_{name}", text, labels=[label] if label else [])
            for *labels, value in execute(statement).fetchall():
                gauge.add_metric([str(each) for each in labels], value)
            yield gauge
        yield from self._queues()

    def _queues(self) -> Iterator[GaugeMetricFamily]:
        """Nothing while the broker does not answer: a missing series says so."""
        labels = ["queue", "kind"]
        messages = GaugeMetricFamily("killmail_sync_queue_messages", "Messages in the queues.", labels=labels)
        consumers = GaugeMetricFamily("killmail_sync_queue_consumers", "Consumers of the queues.", labels=["queue"])
        try:
            counts = self._system.queue_counts()
        except (RuntimeError, OSError):
            return
        for count in counts:
            messages.add_metric([count.queue_name, "ready"], count.message_count)
            messages.add_metric([count.queue_name, "delayed"], count.delayed_count)
            messages.add_metric([count.queue_name, "dead"], count.dead_count)
            consumers.add_metric([count.queue_name], count.consumer_count)
        yield messages
        yield consumers


class Metrics:
    """The last counting of one app."""

    def __init__(self, of: System) -> None:
        # Not registered by the default registry: it would collect at once, and so at start.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(of))
        self._lock = threading.Lock()
        self._text = b""
        self._stale_at: float | None = None

    def text(self) -> bytes:
        with self._lock:
            if self._stale_at is None or time.monotonic() >= self._stale_at:
                self._text = generate_latest(self._registry)
                self._stale_at = time.monotonic() + FRESH_SECONDS
            return self._text


@blueprint.get("/metrics")
def metrics() -> Response:
    """Prometheus' text format."""
    counted = current_app.extensions.setdefault(EXTENSION, Metrics(system.current()))
    return Response(counted.text(), content_type=CONTENT_TYPE_LATEST)
