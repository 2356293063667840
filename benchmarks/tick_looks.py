"""`python -m benchmarks.tick_looks USERS DUE RUNS`: time the scheduler's look for due users, inside the system.

Prints wall seconds of the actor (messages to RabbitMQ included), and of its statements alone.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import database
import settings
from actors.broker import broker
from actors.schedule import BATCH, queue_due_users
from benchmarks import bulk
from database import execute
from ledger import open_due_syncs


def statements() -> None:
    """What the actor does, without the messages."""
    while len(open_due_syncs(BATCH)) == BATCH:
        pass


def look(work: Callable[[], None], due: int) -> float:
    """Wall seconds of `work`, which has to open a sync for each of the `due` users."""
    broker.flush_all()
    execute("DELETE FROM syncs WHERE finished_at IS NULL")
    bulk.settle()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    opened = execute("SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL").fetchone()[0]
    if opened != due:
        raise RuntimeError(f"void: {opened} syncs opened for {due} due users")
    return seconds


def main() -> None:
    users, due, runs = map(int, sys.argv[1:])
    database.connect(settings.current().database_url).connect()
    bulk.users(users, due)
    bulk.ended_syncs()
    look(queue_due_users.fn, due)  # connections and plans
    found = {
        "tick": [look(queue_due_users.fn, due) for _ in range(runs)],
        "statements": [look(statements, due) for _ in range(runs)],
    }
    broker.flush_all()
    broker.close()
    print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
