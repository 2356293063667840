"""The login's two addresses, and the way out. The flow itself is `api/login.py`."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, request, url_for
from werkzeug.wrappers import Response

from api import login, system
from api.callers import LOGIN_LIMIT, limiter
from api.session import sign_out
from web import sso_errors
from web.errors import message_page
from web.security import require_form_token

blueprint = Blueprint("auth", __name__)


@blueprint.get("/login")
@limiter.limit(LOGIN_LIMIT)
def begin() -> Response:
    """Send the browser to the SSO."""
    try:
        return redirect(login.begin(system.current()).url)
    except login.LoginUnavailableError as error:
        return message_page(503, "Logging in does not work now", str(error))


@blueprint.get("/auth/callback")
@limiter.limit(LOGIN_LIMIT)
def callback() -> Response:
    """Take the browser back from the SSO, and on to the dashboard."""
    if "error" in request.args:
        begun_here = login.was_begun_here(request.args.get("state", ""))
        description = request.args.get("error_description", "")
        error = sso_errors.look_up(request.args["error"], description, begun_here=begun_here)
        return message_page(error.status, error.title, error.text)
    try:
        logged_in = login.finish(system.current(), request.args.get("code", ""), request.args.get("state", ""))
    except login.LoginRefusedError as refusal:
        return message_page(400, "This login could not be finished", str(refusal))
    except login.LoginUnavailableError as failure:
        return message_page(503, "Logging in does not work now", str(failure))
    if not logged_in.sync.queued:
        flash(logged_in.message)
    return redirect(url_for("pages.index"))


@blueprint.post("/logout")
def logout() -> Response:
    """End every session of this pilot."""
    require_form_token()
    sign_out()
    return redirect(url_for("pages.index"))
