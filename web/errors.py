"""Error pages: what happened and what to do, in words; JSON with the API's codes under /graphql."""

from __future__ import annotations

import logging
import secrets

from flask import Flask, jsonify, make_response, render_template, request
from werkzeug.exceptions import BadHost, HTTPException
from werkzeug.wrappers import Response

from api.session import current_user
from database import UNAVAILABLE_ERRORS
from models import User

log = logging.getLogger(__name__)

GRAPHQL_PATH = "/graphql"

_CODES = {401: "UNAUTHENTICATED", 403: "FORBIDDEN", 429: "RATE_LIMITED", 503: "UNAVAILABLE"}
_TEXTS = {
    403: ("Not allowed", "This request came from another site, or asks for something that is not yours."),
    404: ("Not found", "There is no such page."),
    405: ("Not that way", "This address does not take that kind of request."),
    429: ("Slow down", "Too many requests from your address. Please wait a minute."),
}


def message_page(status: int, title: str, text: str) -> Response:
    """A page that says one thing, and leads on to the others where somebody is signed in."""
    return make_response(render_template("message.html", title=title, text=text, user=_reader()), status)


def register(app: Flask) -> None:
    """Answer every error in the form that the caller can read."""
    app.register_error_handler(HTTPException, _http_error)
    for error in UNAVAILABLE_ERRORS:
        app.register_error_handler(error, _database_away)
    app.register_error_handler(Exception, _internal_error)


def _reader() -> User | None:
    """Who is signed in; nobody where that cannot be found out: it may be what went wrong."""
    try:
        return current_user()
    except Exception:  # noqa: BLE001 - there is no page for an error on the error's page
        return None


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, BadHost):  # no page can be made: its links would need a host
        return make_response("This is no name of a host.", 400, {"Content-Type": "text/plain"})
    status = error.code or 500
    title, text = _TEXTS.get(status, (error.name, error.description or error.name))
    response = _answer(status, title, text)
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    if status == 429:  # every limit of ours is one a minute
        response.headers.setdefault("Retry-After", "60")
    return response


def _database_away(error: Exception) -> Response:
    log.error("the database cannot be used: %s", error)
    return _answer(503, "Not available", "The database does not answer right now. Nothing is lost; please try again.")


def _internal_error(error: Exception) -> Response:
    reference = secrets.token_hex(4)
    log.error("request failed, reference %s", reference, exc_info=error)
    return _answer(500, "Something went wrong", f"It has been written down as {reference}.")


def _answer(status: int, title: str, text: str) -> Response:
    if request.path != GRAPHQL_PATH:
        return message_page(status, title, text)
    code = _CODES.get(status, "INTERNAL" if status >= 500 else "BAD_USER_INPUT")
    body = {"errors": [{"message": text, "extensions": {"code": code}}]}
    return make_response(jsonify(body), status)
