"""`/metrics`: the state of the whole system in Prometheus' text format, read from the database when it is asked for.

Every process answers the same, because nothing is counted in memory. No id and no name is a label. The address is
public: an answer is kept for a few seconds, and costs the same however many rows there are (`row_counts.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC

from flask import Blueprint, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

import row_counts
from api import system
from api.system import System

#: Seconds between two countings.
FRESH_SECONDS = 5.0
EXTENSION = "killmail-sync.metrics"

blueprint = Blueprint("metrics", __name__)

#: What is counted, its name, help, and label (or none). A table with more than 10,000 rows is counted by the tick.
GAUGES = (
    (row_counts.KILLMAILS, "killmails_stored", "Killmails stored.", None),
    (row_counts.LEDGER, "ledger_rows", "Killmails still to be fetched.", "state"),
    (row_counts.ACTIVE_SYNCS, "syncs_active", "Syncs under way.", "state"),
    (row_counts.USERS, "users", "Users by what they have to do.", "token_state"),
    (row_counts.UNKNOWN_NAMES, "names_unknown", "Ids that have no name yet.", None),
)


class _Collector:
    def __init__(self, of: System) -> None:
        self._system = of

    def collect(self) -> Iterator[GaugeMetricFamily]:
        counts = row_counts.read()
        counted_at = GaugeMetricFamily(
            "killmail_sync_counted_at_seconds",
            "When a table with more than 10,000 rows was last counted; smaller ones are counted for each answer.",
            labels=["table"],
        )
        for counted, name, text, label in GAUGES:
            count = counts[counted.name]
            if count.counted_at is not None:
                counted_at.add_metric([counted.name], count.counted_at.replace(tzinfo=UTC).timestamp())
            gauge = GaugeMetricFamily(f"killmail_sync_{name}", text, labels=[label] if label else [])
            if label is None:
                gauge.add_metric([], count.total)
            elif not count.more:  # not counted by label yet: no number is better than a wrong one
                for each in counted.labels:
                    gauge.add_metric([each.lower() if label == "token_state" else each], count.rows.get(each, 0))
            yield gauge
        yield counted_at
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
