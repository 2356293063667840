"""The same work on Celery 5, as its documentation recommends it: only the orchestration is Celery's.

Tasks are acknowledged late, so that a worker that stops hands back what it holds; results, which nobody reads, are
ignored; how many a worker reserves is tried both ways (`b03_cpu.py`); messages go out as one group.
There is no ledger: a killmail whose task fails or is lost is gone, and nobody knows when all are there.
https://docs.celeryq.dev/en/stable/userguide/optimizing.html
"""

from __future__ import annotations

import logging
import os

from celery import Celery, group

import database
import settings
from benchmarks.bare_loop import fetch_and_store

# A line for every task received and done is no part of the work; ours writes none either.
for _name in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(_name).setLevel(logging.WARNING)

app = Celery("benchmarks", broker=os.environ["RABBITMQ_URL"].replace("%2F", "/"))
app.conf.update(
    task_default_queue="benchmark_celery",
    task_acks_late=True,
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)


@app.task  # type: ignore[untyped-decorator]
def fetch(killmail_id: int, killmail_hash: str) -> None:
    """One killmail."""
    if database.db.obj is None:
        database.connect(settings.current().database_url)
    database.db.connect(reuse_if_open=True)
    fetch_and_store(killmail_id, killmail_hash)


@app.task  # type: ignore[untyped-decorator]
def fetch_all(references: list[tuple[int, str]]) -> None:
    """A whole list."""
    group(fetch.s(*reference) for reference in references).apply_async()
