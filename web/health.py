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
        """`ok` or `unreachable`, by part."""
        with self._lock:
            if self._stale_at is None or time.monotonic() >= self._stale_at:
                self._parts = {"database": _database(), "broker": _broker(self._system)}
                self._stale_at = time.monotonic() + FRESH_SECONDS
            return self._parts


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 as long as this process answers at all."""
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 names the failing part, never an address."""
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
        return "unreachable"
    return "ok"


def _broker(of: System) -> str:
    try:
        of.check_broker()
    except (RuntimeError, OSError) as error:
        log.warning("not ready: broker: %s", error)
        return "unreachable"
    return "ok"
