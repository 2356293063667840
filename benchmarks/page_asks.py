"""`python -m benchmarks.page_asks STORED DEPTH REPEATS`: time pages of killmails in the web application itself.

Asked of it within its process: a network in between could only hide a difference. Prints milliseconds of first and of
deep pages, and the numbers of statements that were seen.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import database
import events
import settings
from api.callers import limiter
from api.killmails import CURSOR
from api.pages import encode_cursor
from app import create_app
from benchmarks import asks, bulk
from database import db, execute

PAGE = 25

Ask = Callable[[int | None], tuple[float, int]]


def asker() -> Ask:
    """A signed-in client: gives milliseconds and statements of the page below an id, or of the first."""
    client = create_app(settings.current()).test_client()
    user_id, epoch = execute("SELECT id, session_epoch FROM users ORDER BY id LIMIT 1").fetchone()
    with client.session_transaction() as session:
        session.update(user_id=user_id, epoch=epoch)
    statements: list[Any] = []
    db.obj.query_hooks.append(statements.append)

    def ask(below: int | None) -> tuple[float, int]:
        limiter.reset()
        statements.clear()
        after = None if below is None else encode_cursor(CURSOR, below)
        began = time.perf_counter()
        answer = client.post("/graphql", json={"query": asks.PAGE, "variables": {"first": PAGE, "after": after}})
        milliseconds = (time.perf_counter() - began) * 1000
        body = answer.get_json()
        if "errors" in body or len(body["data"]["killmails"]["nodes"]) != PAGE:
            raise RuntimeError(f"void: {body}")
        return milliseconds, len(statements)

    return ask


def main() -> None:
    stored, depth, repeats = map(int, sys.argv[1:])
    database.connect(settings.current().database_url).connect()
    events.configure(None)
    bulk.users(2, 0)
    bulk.killmails(stored, execute("SELECT MIN(id) FROM users").fetchone()[0])
    bulk.names()
    bulk.settle()
    ask = asker()
    below = bulk.FIRST_ID + stored - depth * PAGE
    for _ in range(20):  # plans and connections
        ask(None)
        ask(below)
    first, deep = [], []
    for number in range(repeats):
        first.append(ask(None))
        deep.append(ask(below - number % 100 * PAGE))
    found = {
        "first_ms": [milliseconds for milliseconds, _ in first],
        "deep_ms": [milliseconds for milliseconds, _ in deep],
        "statements": sorted({count for _, count in first + deep}),
    }
    print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
