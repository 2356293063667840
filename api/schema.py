"""`schema.graphql` bound to its resolvers. Fields without one are attributes, in snake case."""

from __future__ import annotations

from typing import Any

from ariadne import ObjectType, load_schema_from_path, make_executable_schema
from graphql import GraphQLSchema

from api.mutations import mutation
from api.resolvers import item_type, killmail_type, query, user_type
from api.scalars import big_int, date_time
from settings import ROOT

SCHEMA_FILE = ROOT / "schema.graphql"

subscription = ObjectType("Subscription")


@subscription.field("newKillmail")
@subscription.field("syncProgress")
@subscription.field("workerStatusUpdates")
@subscription.field("names")
@subscription.field("securityStatuses")
def resolve_event(payload: Any, _info: Any, **_arguments: Any) -> Any:
    """What a subscription delivers is the root its document is executed on (`api/subscriptions.py`)."""
    return payload


def _bind() -> GraphQLSchema:
    return make_executable_schema(
        load_schema_from_path(str(SCHEMA_FILE)),
        [query, mutation, subscription, user_type, item_type, killmail_type, date_time, big_int],
        convert_names_case=True,
    )


schema = _bind()
