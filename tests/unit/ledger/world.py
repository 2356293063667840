"""A small world to test the ledger in: users, references, killmails, and the steps of the flow as one call each.

Nothing here asserts what is under test; a step that does not come about ends in an AssertionError of its own. Time is
never waited for: what has to be over is moved into the past.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import ledger
from database import execute, utcnow
from killmails import Attacker, Item, Killmail, Position, Victim
from ledger import Allowed, Claim, ClaimedSync, Outgoing, OutgoingSync, PageAdded, Settled, SyncRoom
from ledger.reading import Reading
from ledger.rules import SYNC_RESEND_AFTER
from models import Fetch, Sync, SyncItem, Trigger, User, UserKillmail
from models import Killmail as StoredKillmail

COOLDOWN = timedelta(minutes=30)
#: More than any test here sends.
PLENTY = 10_000
HOUR = timedelta(hours=1)
ETAG = '"page-one"'

#: The characters of pilots made here, unless told otherwise; every killmail made here names the first of them.
FIRST_CHARACTER = 90_000_001
NAMED = range(FIRST_CHARACTER, FIRST_CHARACTER + 12)


def make_user(**changes: Any) -> User:
    """A pilot who is due and whose whole list was read an hour ago; keyword arguments replace columns."""
    character_id = execute(f"SELECT COALESCE(MAX(character_id) + 1, {FIRST_CHARACTER}) FROM users").fetchone()[0]
    columns: dict[str, Any] = {
        "character_id": character_id,
        "character_name": f"Pilot {character_id}",
        "owner_hash": "owner",
        "next_sync_at": utcnow() - timedelta(seconds=1),
        "last_full_sync_at": utcnow() - HOUR,
    }
    return User.get_by_id(User.create(**(columns | changes)).id)


def hash_of(killmail_id: int, version: int = 0) -> str:
    return f"{version:x}{killmail_id:039x}"


def references(ids: Iterable[int], version: int = 0) -> list[tuple[int, str]]:
    """One page of ESI's list, in this order."""
    return [(killmail_id, hash_of(killmail_id, version)) for killmail_id in ids]


def make_killmail(killmail_id: int, names: Iterable[int] = NAMED) -> Killmail:
    """A killmail with a container, an NPC among its attackers, and a position. `names`: characters who attacked too."""
    pilot = Attacker(90_000_500, 98_000_001, None, None, 587, 2488, 900, True, -1.3)
    rat = Attacker(None, None, None, 500_010, 24_000, None, 100, False, 0.0)
    box = Item(3467, 5, 0, None, 1, (Item(34, 5, 0, 12, None),))
    victim = Victim(90_000_900, 98_000_002, 99_000_001, None, 670, 1000, Position(1.5, -2.25, 3e11), (box,))
    time = datetime(2026, 9, 1, 12, 30, 15)
    others = [Attacker(each, 98_000_001, None, None, 587, 2488, 1, False, 0.5) for each in names]
    return Killmail(killmail_id, time, 30_000_142, None, None, victim, (pilot, rat, *others))


# The steps of the flow


def opened(user: User, trigger: Trigger = Trigger.SCHEDULE, **options: Any) -> int:
    """A new sync of this user's, queued."""
    result = ledger.open_sync(user.id, trigger, cooldown=COOLDOWN, **options)
    assert result.outcome is ledger.Outcome.CREATED
    assert result.sync_id is not None
    return result.sync_id


def joined(user: User, trigger: Trigger = Trigger.SCHEDULE, **options: Any) -> ledger.Opened:
    """What it is to ask again while a sync is active."""
    result = ledger.open_sync(user.id, trigger, cooldown=COOLDOWN, **options)
    assert result.outcome is ledger.Outcome.JOINED
    return result


def claimed(sync_id: int) -> ClaimedSync:
    sync = ledger.claim_sync(sync_id)
    assert sync is not None
    return sync


def send_syncs(resend_after: timedelta = SYNC_RESEND_AFTER) -> list[OutgoingSync]:
    """What the tick sends: all syncs without a message, and those whose message is lost."""
    ledger.take_back_lost(utcnow() - resend_after, PLENTY)
    return ledger.choose_syncs(SyncRoom(PLENTY))


def reading(user: User, trigger: Trigger = Trigger.SCHEDULE, **options: Any) -> ClaimedSync:
    """A new sync of this user's that a worker has taken up."""
    return claimed(opened(user, trigger, **options))


def add_page(
    sync: ClaimedSync, ids: Iterable[int], *, seen: set[int] | None = None, pages: int = 1, version: int = 0
) -> PageAdded:
    seen = set() if seen is None else seen
    added = ledger.add_page(sync, references(ids, version), reading=Reading(pages=pages), etag=ETAG, seen=seen)
    assert added is not None
    return added


def end_listing(sync: ClaimedSync, *, complete: bool = True) -> None:
    assert ledger.end_listing(sync, etag=ETAG, fresh_for=300, complete=complete)


def listed(
    user: User, ids: Iterable[int], trigger: Trigger = Trigger.SCHEDULE, *, version: int = 0, **options: Any
) -> int:
    """A sync whose list of one page is read; returns its id."""
    sync = reading(user, trigger, **options)
    end_listing(add_page(sync, ids, version=version).sync)
    return sync.sync_id


def dispatch_all() -> list[Outgoing]:
    return ledger.dispatch(Allowed(PLENTY, PLENTY), PLENTY)


def taken(killmail_id: int) -> Claim:
    """A worker holds this killmail, whose message is out by now if it was not before."""
    dispatch_all()
    claim = ledger.claim(killmail_id)
    assert claim is not None
    return claim


def settle(claim: Claim, names: Iterable[int] = NAMED) -> Settled:
    """ESI's answer to what was claimed."""
    return ledger.settle(claim, make_killmail(claim.killmail_id, names))


def stored(*ids: int, names: Iterable[int] = NAMED) -> None:
    """These killmails are fetched and stored."""
    for killmail_id in ids:
        assert settle(taken(killmail_id), names).stored


def failed(killmail_id: int, times: int = 1, *, refused: bool = False) -> tuple[int, ...]:
    """This killmail failed, or was refused, so often in a row; returns the syncs that this may have completed."""
    may_be_complete: tuple[int, ...] = ()
    for _ in range(times):
        make_due(killmail_id)
        may_be_complete = ledger.defer(taken(killmail_id), "ESI answered 500", refused=refused)
    return may_be_complete


def rejected(killmail_id: int) -> tuple[int, ...]:
    """ESI says there is no such killmail; returns the syncs that this may have completed."""
    return ledger.reject(taken(killmail_id), "ESI answered 422")


def finished(sync_id: int) -> ledger.Finished:
    result = ledger.finalize(sync_id, COOLDOWN)
    assert result is not None
    return result


# Time passes


def make_due(killmail_id: int) -> None:
    """The wait of a deferred row is over."""
    execute("UPDATE ledger SET not_before = ? WHERE state = 'deferred' AND killmail_id = ?", (utcnow(), killmail_id))


def lose_leases() -> None:
    """Every lease has run out: of the messages on their way, and of the workers that hold something."""
    for table in ("ledger", "syncs"):
        execute(f"UPDATE {table} SET claimed_until = ? WHERE claimed_until IS NOT NULL", (utcnow() - HOUR,))


def lose_messages() -> None:
    """Whatever was said to be sent was sent long ago, and waits that were told are over."""
    execute("UPDATE syncs SET sent_at = ? WHERE sent_at IS NOT NULL", (utcnow() - HOUR,))
    execute("UPDATE syncs SET waiting_until = ? WHERE waiting_until IS NOT NULL", (utcnow() - HOUR,))


# What there is now


def row(killmail_id: int) -> Fetch:
    """The ledger row, as it is now."""
    return Fetch.get_by_id(killmail_id)


def row_state(killmail_id: int) -> str | None:
    """None: there is no row."""
    found = Fetch.get_or_none(Fetch.killmail_id == killmail_id)
    return None if found is None else str(found.state)


def sync_row(sync_id: int) -> Sync:
    return Sync.get_by_id(sync_id)


def user_row(user: User) -> User:
    return User.get_by_id(user.id)


def ledger_ids() -> set[int]:
    return {found.killmail_id for found in Fetch.select()}


def items(sync_id: int) -> set[int]:
    """What the sync still waits for, or counts as failed."""
    return {item.killmail_id for item in SyncItem.select().where(SyncItem.sync == sync_id)}


def links(user: User) -> set[int]:
    return {link.killmail_id for link in UserKillmail.select().where(UserKillmail.user == user.id)}


def stored_ids() -> set[int]:
    return {killmail.killmail_id for killmail in StoredKillmail.select()}


def counts(sync_id: int) -> tuple[int, int, int, int]:
    """(found, saved, skipped, failed) of an ended sync."""
    sync = sync_row(sync_id)
    return sync.found, sync.saved, sync.skipped, sync.failed
