"""`/healthz`: this process answers. `/readyz`: it can work, or which part keeps it from working.

Whoever asks may be anybody, and asking costs a connection to the broker and a line in the log: what was found out is
told again for a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from flask import Blueprint, current_app, jsonify
from peewee import PeeweeException
from werkzeug.wrappers import Response

from api import system
from api.system import System
from database import execute

log = logging.getLogger(__name__)

#: Seconds between two looks.
FRESH_SECONDS = 1.0
UNREACHABLE = "unreachable"
EXTENSION = "killmail-sync.readiness"

blueprint = Blueprint("health", __name__)


class Readiness:
    """The last look of one app: while one thread looks, the others wait for what it finds."""

    def __init__(self, of: System) -> None:
        self._system = of
        self._lock = threading.Lock()
        self._parts: Mapping[str, str] = {}
        self._stale_at: float | None = None

    def parts(self) -> Mapping[str, str]:
        """`ok`, or what is wrong in a word or two, by part; with `advice` where an operator has to do something."""
        with self._lock:
            if self._stale_at is None or time.monotonic() >= self._stale_at:
                self._parts = {"database": _database(), **_broker(self._system)}
                self._stale_at = time.monotonic() + FRESH_SECONDS
            return self._parts


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 as long as this process answers at all."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 names the failing part, and what to do, never an address."""
    readiness: Readiness = current_app.extensions.setdefault(EXTENSION, Readiness(system.current()))
    parts = readiness.parts()
    ready = all(state == "ok" for state in parts.values())
    response = jsonify({"status": "ok" if ready else "unavailable", **parts})
    response.status_code = 200 if ready else 503
    return response


def _database() -> str:
    try:
        execute("SELECT 1 FROM users LIMIT 1").fetchall()
    except (PeeweeException, ValueError) as error:  # ValueError: no connection left in the pool
        log.warning("not ready: database: %s", error)
        return UNREACHABLE
    return "ok"


def _broker(of: System) -> Mapping[str, str]:
    try:
        of.check_broker()
    except (RuntimeError, OSError) as error:
        log.warning("not ready: broker: %s", error)
        # One that answers and is of no use says what to do (`actors/counts.py`); why one does not answer is the log's.
        state = getattr(error, "state", UNREACHABLE)
        return {"broker": state} if state == UNREACHABLE else {"broker": state, "advice": str(error)}
    return {"broker": "ok"}
