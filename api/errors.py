"""Errors as clients see them: a text that helps and `extensions.code`; what is our own fault is masked and logged.

Codes: UNAUTHENTICATED, FORBIDDEN (of `web/errors.py`), BAD_USER_INPUT, RATE_LIMITED, UNAVAILABLE, INTERNAL.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from graphql import GraphQLError

from database import UNAVAILABLE_ERRORS

log = logging.getLogger(__name__)


class ApiError(GraphQLError):
    """What a resolver raises for the client to read."""

    code = "INTERNAL"

    def __init__(self, message: str) -> None:
        super().__init__(message, extensions={"code": self.code})


class Unauthenticated(ApiError):
    """Nobody is signed in, or the session has ended."""

    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("Please log in.")


class BadUserInput(ApiError):
    """An argument is not what the field takes; the text names it and says what is expected."""

    code = "BAD_USER_INPUT"


class RateLimited(ApiError):
    """Too much was asked for, in one request or in a minute."""

    code = "RATE_LIMITED"


class Unavailable(ApiError):
    """A part of the system is away; trying again later helps."""

    code = "UNAVAILABLE"


def format_error(error: GraphQLError) -> dict[str, Any]:
    """An error in the response's form. What is not the client's business becomes INTERNAL with a reference."""
    cause = error.original_error
    while isinstance(cause, GraphQLError) and cause.original_error is not None:
        cause = cause.original_error
    if isinstance(cause, ApiError) or isinstance(error, ApiError):
        return {**error.formatted}
    if isinstance(cause, UNAVAILABLE_ERRORS):
        log.error("the database cannot be used: %s", cause)
        return _masked(error, "The database does not answer right now. Please try again.", "UNAVAILABLE")
    if cause is not None and not isinstance(cause, GraphQLError):
        reference = secrets.token_hex(4)
        log.error("a resolver failed, reference %s", reference, exc_info=cause)
        return _masked(error, f"Something went wrong. It has been written down as {reference}.", "INTERNAL")
    # Syntax, validation, and values that do not fit their types: graphql-core's own words about the client's own text.
    return {**error.formatted, "extensions": {"code": BadUserInput.code}}


def _masked(error: GraphQLError, message: str, code: str) -> dict[str, Any]:
    return {**error.formatted, "message": message, "extensions": {"code": code}}
