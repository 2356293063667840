"""What a resolver knows besides its arguments: the viewer, the system, and which fields the document names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graphql import GraphQLResolveInfo

from api.errors import Unauthenticated
from api.limits import RowBudget
from api.system import System
from models import User


@dataclass(frozen=True, slots=True)
class Context:
    """`named_fields`: every field the document names anywhere; what is not among them need not be read.

    `rows`: what one execution may read.
    """

    system: System
    viewer: User | None
    named_fields: frozenset[str]
    rows: RowBudget = field(default_factory=RowBudget)


def context_of(info: GraphQLResolveInfo[Any]) -> Context:
    """The request that a resolver works for."""
    context: Context = info.context
    return context


def viewer_of(info: GraphQLResolveInfo[Any]) -> User:
    """Who is signed in. Raises Unauthenticated."""
    viewer = context_of(info).viewer
    if viewer is None:
        raise Unauthenticated
    return viewer
