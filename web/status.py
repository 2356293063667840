"""`/status`: the operator's page, which is everybody's. It holds no name, id or killmail of anyone."""

from __future__ import annotations

from flask import Blueprint, render_template

from api import operations, system
from api.session import current_user

blueprint = Blueprint("status", __name__)


@blueprint.get("/status")
def show() -> str:
    """The operator's page."""
    return render_template("status.html", user=current_user(), now=operations.of_this_app(system.current()))
