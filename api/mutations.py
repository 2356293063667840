"""Mutations: the same functions as the pages use, with errors a program can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ariadne import ObjectType
from graphql import GraphQLResolveInfo

import accounts
from api import login, syncs
from api.context import context_of, viewer_of
from api.errors import BadUserInput, Unavailable
from api.session import sign_out
from api.system import SyncRequest
from models import Trigger, User

Info = GraphQLResolveInfo[Any]

mutation = ObjectType("Mutation")


@dataclass(frozen=True, slots=True)
class AuthPayload:
    """What `authenticateWithCode` answers."""

    user: User
    sync: syncs.SyncView | None


@dataclass(frozen=True, slots=True)
class SyncPayload:
    """What `syncMyKillmails` answers."""

    sync: syncs.SyncView | None
    queued: bool
    message: str


@dataclass(frozen=True, slots=True)
class UnlinkPayload:
    """What `unlinkCharacter` answers."""

    unlinked: bool
    message: str


@mutation.field("login")
def resolve_login(_root: Any, info: Info) -> login.LoginUrl:
    """Begin a login; the state is kept in this session."""
    try:
        return login.begin(context_of(info).system)
    except login.LoginUnavailableError as error:
        raise Unavailable(str(error)) from error


@mutation.field("authenticateWithCode")
def resolve_authenticate_with_code(_root: Any, info: Info, code: str, state: str) -> AuthPayload:
    """End a login. Raises BadUserInput, Unavailable."""
    try:
        logged_in = login.finish(context_of(info).system, code, state)
    except login.LoginRefusedError as error:
        raise BadUserInput(str(error)) from error
    except login.LoginUnavailableError as error:
        raise Unavailable(str(error)) from error
    return AuthPayload(logged_in.user, _sync_of(logged_in.user, logged_in.sync))


@mutation.field("syncMyKillmails")
def resolve_sync_my_killmails(_root: Any, info: Info, full: bool | None = False) -> SyncPayload:
    """Ask for a sync of the viewer. Raises Unauthenticated."""
    viewer = viewer_of(info)
    request = context_of(info).system.request_sync(viewer.id, Trigger.WEB, full=bool(full))
    return SyncPayload(_sync_of(viewer, request), request.queued, request.message)


@mutation.field("unlinkCharacter")
def resolve_unlink_character(_root: Any, info: Info) -> UnlinkPayload:
    """Forget the viewer for good. Raises Unauthenticated."""
    viewer = viewer_of(info)
    system = context_of(info).system
    revoked = accounts.unlink(viewer.id, system.sso, system.cipher, secret_key=system.settings.secret_key)
    sign_out()
    return UnlinkPayload(True, accounts.farewell(revoked))


@mutation.field("logout")
def resolve_logout(_root: Any, info: Info) -> bool:
    """End every session of the viewer. Raises Unauthenticated."""
    viewer_of(info)
    sign_out()
    return True


def _sync_of(viewer: User, request: SyncRequest) -> syncs.SyncView | None:
    return None if request.sync_id is None else syncs.one_of(viewer, request.sync_id)
