"""`python -m benchmarks.bare_loop FILE`: the least that fetching and storing killmails can cost, in one process.

The same request, parsing and storing as the system's, one after another, with no queue, ledger, limiter or events.
FILE holds `[[killmail_id, killmail_hash], …]`. Prints processor and wall seconds of the loop as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import database
import runtime
import settings
from esi.transport import Unmetered
from killmails import parse_killmail
from ledger.storing import store


def fetch_and_store(killmail_id: int, killmail_hash: str) -> bool:
    """One killmail, on this thread's connection; False where it was stored already."""
    body = runtime.esi().killmail(killmail_id, killmail_hash, Unmetered())
    killmail = parse_killmail(body)
    with database.db.atomic():
        return store(killmail, killmail_hash)


def main() -> None:
    references = json.loads(Path(sys.argv[1]).read_text())
    database.connect(settings.current().database_url).connect()
    fetch_and_store(*references.pop())  # the connections are made
    cpu, began = time.process_time(), time.perf_counter()
    stored = sum(fetch_and_store(*reference) for reference in references)
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - began
    print("RESULT", json.dumps({"stored": stored, "cpu_seconds": cpu, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
