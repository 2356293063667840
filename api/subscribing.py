"""From a subscription document to the subscription it asks for."""

from __future__ import annotations

from typing import Any

from graphql import FieldNode, GraphQLError, GraphQLField, OperationDefinitionNode
from graphql.execution.values import get_argument_values, get_variable_values

from api.errors import BadUserInput
from api.execution import InvalidDocumentError, Prepared
from api.scalars import parse_id
from api.schema import schema
from api.subscriptions import (
    Names,
    NewKillmails,
    Reader,
    SecurityStatuses,
    Subscription,
    SyncProgress,
    Unknown,
    WorkerStatusUpdates,
)
from api.system import System

_UNKNOWN: dict[str, type[Unknown]] = {"names": Names, "securityStatuses": SecurityStatuses}


def open_subscription(
    reader: Reader, system: System, prepared: Prepared, operation: OperationDefinitionNode, variables: dict[str, Any]
) -> Subscription:
    """Raises ApiError or InvalidDocumentError for arguments that will not do."""
    field, arguments = _root_field(operation, variables)
    if field == "newKillmail":
        after = arguments.get("after")
        known = None if after is None else 0 if after == "0" else parse_id(after, "after")
        return NewKillmails(reader, known, prepared.named_fields)
    if field == "syncProgress":
        sync_id = arguments.get("sync_id")
        return SyncProgress(reader, None if sync_id is None else parse_id(sync_id, "syncId"))
    if field in _UNKNOWN:
        return _UNKNOWN[field](reader, {parse_id(each, "ids") for each in arguments["ids"]})
    return WorkerStatusUpdates(reader, system, arguments.get("interval_seconds"))


def _root_field(operation: OperationDefinitionNode, variables: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The one field of a valid subscription, and its arguments as values, their names in snake case."""
    values = get_variable_values(schema, operation.variable_definitions or (), variables)
    if isinstance(values, list):
        raise InvalidDocumentError(values)
    node = operation.selection_set.selections[0]
    if not isinstance(node, FieldNode):
        raise BadUserInput("A subscription names its field directly, not in a fragment.")
    assert schema.subscription_type is not None
    definition: GraphQLField | None = schema.subscription_type.fields.get(node.name.value)
    if definition is None:
        raise BadUserInput("A subscription asks for something to subscribe to.")
    try:
        return node.name.value, get_argument_values(definition, node, values)
    except GraphQLError as error:
        raise InvalidDocumentError([error]) from None
