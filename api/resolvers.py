"""Queries: one function a field that is not simply an attribute of what it stands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ariadne import ObjectType
from graphql import GraphQLResolveInfo

import accounts
from api import killmails, syncs
from api.context import context_of, viewer_of
from api.errors import BadUserInput
from api.killmail_views import AttackerView, ItemView, KillmailView
from api.pages import Page, check_first, decode_cursor
from api.scalars import parse_id
from api.system import QueueCount
from api.worker_status import queue_status
from models import User

Info = GraphQLResolveInfo[Any]

query = ObjectType("Query")
user_type = ObjectType("User")
killmail_type = ObjectType("Killmail")
item_type = ObjectType("Item")


@query.field("me")
def resolve_me(_root: Any, info: Info) -> User | None:
    """The viewer, or None signed out."""
    return context_of(info).viewer


@query.field("workerStatus")
def resolve_worker_status(_root: Any, info: Info) -> Sequence[QueueCount]:
    """All queues. Raises Unavailable."""
    return queue_status(context_of(info).system)


@query.field("killmail")
def resolve_killmail(_root: Any, info: Info, id: str) -> KillmailView | None:
    """One of the viewer's killmails, or None. Raises BadUserInput, Unauthenticated."""
    context = context_of(info)
    return killmails.one_of(viewer_of(info), parse_id(id, "id"), context.named_fields, context.rows.spend)


@dataclass(frozen=True, slots=True)
class KillmailConnection:
    """A page, and the means to count what it is a page of."""

    page: Page[KillmailView]
    viewer: User
    chosen: killmails.Filter

    @property
    def edges(self) -> Any:
        return self.page.edges

    @property
    def nodes(self) -> Any:
        return self.page.nodes

    @property
    def page_info(self) -> Any:
        return self.page.page_info

    def total_count(self, _info: Info) -> int:
        """Called only where a document names the field."""
        return killmails.count_of(self.viewer, self.chosen)


@query.field("killmails")
def resolve_killmails(
    _root: Any, info: Info, first: int | None = None, after: str | None = None, filter: dict[str, Any] | None = None
) -> KillmailConnection:
    """A page of the viewer's killmails, newest first. Raises BadUserInput, Unauthenticated."""
    viewer = viewer_of(info)
    chosen = killmails.Filter.of_input(filter or {})
    before_id = None if after is None else decode_cursor(killmails.CURSOR, after)
    context = context_of(info)
    page = killmails.page_of(
        viewer, chosen, check_first(first), before_id, context.named_fields, after, context.rows.spend
    )
    return KillmailConnection(page, viewer, chosen)


@query.field("syncs")
def resolve_syncs(_root: Any, info: Info, first: int | None = None, after: str | None = None) -> Page[syncs.SyncView]:
    """A page of the viewer's syncs, newest first. Raises BadUserInput, Unauthenticated."""
    before_id = None if after is None else decode_cursor(syncs.CURSOR, after)
    return syncs.page_of(viewer_of(info), check_first(first), before_id, after)


@user_type.field("scopes")
def resolve_scopes(user: User, _info: Info) -> list[str]:
    """The scopes that the last login granted."""
    return list(user.scopes.split())


@user_type.field("tokenState")
def resolve_token_state(user: User, _info: Info) -> str:
    """The name of the user's token state."""
    return accounts.token_state(user).value


@user_type.field("coolDownEndsAt")
def resolve_cool_down_ends_at(user: User, info: Info) -> datetime | None:
    """When the next sync may be asked for (naive UTC); None where it may be now."""
    return syncs.cool_down_ends_at(user, context_of(info).system.settings.sync_cooldown_minutes)


@user_type.field("currentSync")
def resolve_current_sync(user: User, _info: Info) -> syncs.SyncView | None:
    """The active sync, or None."""
    return syncs.active_of([user.id]).get(user.id)


@killmail_type.field("isLoss")
def resolve_is_loss(killmail: KillmailView, info: Info) -> bool:
    """Whether the viewer is the victim."""
    return killmail.is_loss_of(viewer_of(info).character_id)


@killmail_type.field("attackers")
def resolve_attackers(killmail: KillmailView, info: Info, first: int | None = None) -> Sequence[AttackerView]:
    """The first attackers, in ESI's order. Raises BadUserInput, RateLimited."""
    if first is not None and first < 0:
        raise BadUserInput("first must not be negative.")
    attackers = killmail.attackers[:first]
    context_of(info).rows.spend(len(attackers))
    return attackers


@killmail_type.field("items")
@item_type.field("items")
def resolve_items(holder: KillmailView | ItemView, info: Info) -> Sequence[ItemView]:
    """What the victim carried, or what lay in a container."""
    context_of(info).rows.spend(len(holder.items))
    return holder.items
