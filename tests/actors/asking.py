"""Asking for syncs, and looking at what came of it."""

from __future__ import annotations

from actors.requests import SyncRequest, request_sync
from models import Fetch, Killmail, Lock, Sync, Trigger
from tests.actors.simulated import Pilot


def ask(pilot: Pilot, trigger: Trigger = Trigger.WEB, *, full: bool = False, force: bool = True) -> SyncRequest:
    """The dashboard's button, without its cool-down."""
    return request_sync(pilot.user_id, trigger, full=full, force=force)


def rows() -> dict[int, Fetch]:
    """The ledger by killmail id."""
    return {row.killmail_id: row for row in Fetch.select()}


def only_row() -> Fetch:
    """The ledger's one row."""
    [row] = Fetch.select()
    return row


def only_sync() -> Sync:
    """The one sync there ever was."""
    [row] = Sync.select()
    return row


def stored() -> list[int]:
    """The ids of what is stored, newest first."""
    return [row.killmail_id for row in Killmail.select().order_by(Killmail.killmail_id.desc())]


def wake() -> object:
    """When a dispatch is planned for, or None."""
    return Lock.get_by_id("dispatch").wake_at


def age_leases() -> None:
    """Every lease of a ledger row ran out long ago."""
    Fetch.update(claimed_until="2020-01-01 00:00:00").where(Fetch.claimed_until.is_null(False)).execute()
