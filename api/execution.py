"""Documents become answers: parsed and checked once, executed as often as there is something to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    OperationDefinitionNode,
    execute_sync,
    get_operation_ast,
    parse,
    validate,
)

from api import limits
from api.context import Context
from api.errors import BadUserInput, format_error
from api.schema import schema

#: Errors a client gets to read about one document.
MAX_ERRORS = 20
#: Documents that are kept, and characters of the longest one: parsed, a document takes 60 to 100 times its length, and
#: anybody may send any. The longest of our own pages has about 600.
MAX_KEPT, MAX_KEPT_LENGTH = 64, 2_048


class InvalidDocumentError(Exception):
    """A document that cannot be executed; `errors` say why, for the client."""

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        super().__init__("invalid document")
        self.errors = errors

    def response(self) -> dict[str, Any]:
        return {"errors": self.formatted()}

    def formatted(self) -> list[dict[str, Any]]:
        return [format_error(error) for error in self.errors]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A valid document of bounded cost. `is_kept`: others that send the same get this very object."""

    document: DocumentNode
    named_fields: frozenset[str]
    is_kept: bool

    def operation(self, operation_name: str | None) -> OperationDefinitionNode:
        """The one to execute. Raises InvalidDocumentError when the name does not say which."""
        operation = get_operation_ast(self.document, operation_name)
        if operation is None:
            raise InvalidDocumentError([BadUserInput("operationName must name one of the document's operations.")])
        return operation


def prepare(query: str) -> Prepared:
    """Raises InvalidDocumentError. Clients send the same few documents again and again: short ones are kept."""
    return _prepare_and_keep(query) if len(query) <= MAX_KEPT_LENGTH else _prepare(query, is_kept=False)


@lru_cache(maxsize=MAX_KEPT)
def _prepare_and_keep(query: str) -> Prepared:
    return _prepare(query, is_kept=True)


def _prepare(query: str, *, is_kept: bool) -> Prepared:
    try:
        document = parse(query, max_tokens=limits.MAX_TOKENS)
        limits.check(document)
    except GraphQLError as error:
        raise InvalidDocumentError([error]) from None
    except RecursionError:
        raise InvalidDocumentError([BadUserInput("The query is nested too deeply.")]) from None
    errors = validate(schema, document, max_errors=MAX_ERRORS)
    if errors:
        raise InvalidDocumentError(errors)
    return Prepared(document, limits.field_names(document), is_kept)


def run(
    prepared: Prepared,
    context: Context,
    variables: dict[str, Any] | None = None,
    operation_name: str | None = None,
    root: Any = None,
) -> dict[str, Any]:
    """Execute; the response as it is sent. `root` is what a subscription delivers."""
    result = execute_sync(
        schema,
        prepared.document,
        root_value=root,
        context_value=context,
        variable_values=variables,
        operation_name=operation_name,
    )
    response: dict[str, Any] = {"data": result.data}
    if result.errors:
        response["errors"] = [format_error(error) for error in result.errors]
    return response
