"""`/healthz`: this process answers. `/readyz`: it can work, or which part keeps it from working."""

from __future__ import annotations

import logging

from flask import Blueprint, jsonify
from peewee import PeeweeException
from werkzeug.wrappers import Response

from api import system
from database import execute

log = logging.getLogger(__name__)

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    return jsonify({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """503 names the failing part, never an address: whoever asks may be anybody."""
    parts = {"database": _database(), "broker": _broker()}
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


def _broker() -> str:
    try:
        system.current().check_broker()
    except (RuntimeError, OSError) as error:
        log.warning("not ready: broker: %s", error)
        return "unreachable"
    return "ok"
