"""POST /graphql: JSON in, JSON out.

Only `application/json` is taken, which no form of a foreign page can send, and only from our own origin, so that the
session cookie is enough. A body is one operation of at most 64 KiB; lists of operations are refused.
"""

from __future__ import annotations

from typing import Any

from ariadne.explorer import ExplorerGraphiQL
from flask import Blueprint, Response, abort, jsonify, request
from graphql import OperationType

from api import system
from api.callers import GRAPHQL_LIMIT, count_mutation, is_own_origin, limiter, user_or_address
from api.context import Context
from api.errors import BadUserInput, RateLimited
from api.execution import InvalidDocumentError, prepare, run
from api.session import current_user

#: Bytes of a body, of a WebSocket message too. The largest document in common use has 2 KiB.
MAX_BODY = 64 * 1024

blueprint = Blueprint("graphql", __name__)


@blueprint.before_request
def refuse_foreign_origins() -> None:
    """Answer 403 to another site's page: the browser would send our cookie along."""
    if not is_own_origin(request, system.current().settings):
        abort(403)


@blueprint.post("/graphql")
@limiter.limit(GRAPHQL_LIMIT, key_func=user_or_address)
def execute() -> tuple[Response, int]:
    """200 for whatever was executed, 400 for what could not be."""
    if request.mimetype != "application/json":
        abort(415, "Content-Type must be application/json.")
    try:
        return jsonify(_execute(_body())), 200
    except InvalidDocumentError as error:
        return jsonify(error.response()), 400


@blueprint.get("/graphql")
def explore() -> Response:
    """With GRAPHQL_EXPLORER=1, a page to try queries on."""
    if not system.current().settings.graphql_explorer:
        abort(405, valid_methods=["POST"])
    response = Response(ExplorerGraphiQL(title="Killmail sync").html(None), mimetype="text/html")
    response.headers["Content-Security-Policy"] = (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' https:; style-src 'self' 'unsafe-inline' "
        "https:; img-src 'self' data: https:; font-src 'self' data: https:; connect-src 'self' https:; "
        "worker-src blob:; frame-ancestors 'none'; base-uri 'none'"
    )
    return response


def _body() -> Any:
    """The decoded body; None where it is no JSON, or nested so deeply that it is an attack."""
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def _execute(body: Any) -> dict[str, Any]:
    query, variables, operation_name = read_request(body)
    prepared = prepare(query)
    operation = prepared.operation(operation_name)
    if operation.operation is OperationType.SUBSCRIPTION:
        raise InvalidDocumentError([BadUserInput("Subscriptions are served over WebSocket at this address.")])
    if operation.operation is OperationType.MUTATION:
        try:
            count_mutation()
        except RateLimited as error:
            raise InvalidDocumentError([error]) from None
    context = Context(system.current(), current_user(), prepared.named_fields)
    return run(prepared, context, variables, operation_name)


def read_request(body: Any) -> tuple[str, dict[str, Any], str | None]:
    """The query, its variables and the operation's name. Raises InvalidDocumentError."""
    if not isinstance(body, dict):
        raise InvalidDocumentError([BadUserInput("One operation is expected: a JSON object with a query.")])
    query, variables, name = body.get("query"), body.get("variables"), body.get("operationName")
    if not isinstance(query, str):
        raise InvalidDocumentError([BadUserInput("query must be text.")])
    if variables is not None and not isinstance(variables, dict):
        raise InvalidDocumentError([BadUserInput("variables must be an object.")])
    if name is not None and not isinstance(name, str):
        raise InvalidDocumentError([BadUserInput("operationName must be text.")])
    return query, variables or {}, name or None
