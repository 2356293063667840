"""`dramatiq benchmarks.probed`: the system's own workers, with every statement, message and timed call written down.

A line each, appended to a file of the process in BENCHMARK_PROBE_DIRECTORY; `probes.py` reads them. Some microseconds
a line, which is why processor time is measured without this module wherever statements need not be counted.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import dramatiq

import actors
import database
import ledger
from benchmarks.harness import PROBE_DIRECTORY
from benchmarks.probes import CALL, MESSAGE, SQL_LENGTH, STATEMENT

#: Of the ledger, what is timed: all that a look of the dispatcher asks of it, and all that a stored killmail does.
TIMED = ("upcoming", "dispatch", "next_due", "settle", "ready_to_finish", "take_back_expired")

_working_on = threading.local()
_output: dict[int, int] = {}


class Probe(dramatiq.Middleware):
    """Knows which actor this thread runs; writes down what is sent."""

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        _working_on.actor = message.actor_name

    def after_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        write(MESSAGE, message.actor_name)


def write(kind: str, what: str) -> None:
    """One line: the kind, the actor at work, and what it did."""
    pid = os.getpid()
    if pid not in _output:  # a forked child has a file of its own
        path = Path(os.environ[PROBE_DIRECTORY]) / f"{pid}.probe"
        _output[pid] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(_output[pid], f"{kind}\t{getattr(_working_on, 'actor', '')}\t{what}\n".encode())


def note_statement(event: Any) -> None:
    """peewee calls this after every statement."""
    write(STATEMENT, " ".join(event.sql.split())[:SQL_LENGTH])


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, its wall time written down in microseconds."""

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            write(CALL, f"{name} {(time.perf_counter() - began) * 1e6:.0f}")

    return call


for _name in TIMED:
    setattr(ledger, _name, timed(_name, getattr(ledger, _name)))
database.db.obj.query_hooks.append(note_statement)
broker = actors.broker
# First of all: the claim and the slot are taken by a middleware, too.
broker.add_middleware(Probe(), before=type(broker.middleware[0]))
