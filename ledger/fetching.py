"""One ledger row and the worker that holds it: claimed, then settled, given back or put off.

The invariant: a killmail that ESI has answered with is stored while its row exists, whoever holds the row by then; any
other end of a claim counts only while its lease stands. Which rows are sent is left to `dispatching.py`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from database import as_datetime, db, execute, lock_clause, placeholders, utcnow
from killmails import Killmail
from ledger.foreign_lists import hold, repeat_holding, take_back
from ledger.links import withdraw_foreign
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    FETCH_BACKOFF,
    FETCH_LEASE,
    LAST_TURN,
    MAX_ERROR_LENGTH,
    PILOT,
    REFUSALS_BEFORE_DEFERRED,
    SENT_PRIORITY,
    SLOW_TURN,
    TURN_AFTER_FAILURE,
    TURN_GIVEN_UP,
    backoff,
)
from ledger.storing import store

log = logging.getLogger(__name__)

#: True for the row of a claim whose lease still stands (parameters: killmail_id, lease).
_HELD = "killmail_id = ? AND state = 'fetching' AND claimed_until = ?"


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's lease of a row. The hash is a secret of those whose lists the killmail stood in."""

    killmail_id: int
    killmail_hash: str
    priority: int  # as it was sent: an interactive one for background's share
    attempts: int
    refusals: int  # how often in a row ESI answered with a 4xx
    turn: int
    character_id: int  # the pilot whom its failures concern; the killmail's own id where all were unlinked
    lease: datetime  # what tells this claim from another worker's, once it has run out

    @property
    def put_behind(self) -> bool:
        """Whether it is of a sync whose killmails ESI refuses often, or was given up (`refusals.py`)."""
        return self.turn >= LAST_TURN

    @property
    def slow(self) -> bool:
        """Whether it is one of the few that may take many seconds: SLOW of `rules.py`."""
        return self.turn >= SLOW_TURN

    def __repr__(self) -> str:
        return f"Claim(killmail_id={self.killmail_id})"


@dataclass(frozen=True, slots=True)
class Settled:
    """`stored` is false where somebody was faster or the killmail is no longer wanted; then nothing was written."""

    stored: bool
    sync_ids: tuple[int, ...] = ()


def claim(killmail_id: int) -> Claim | None:
    """sent -> fetching. None: no row, or not sent: a doubled, late or stale message ends here, at no cost."""
    lease = utcnow() + FETCH_LEASE
    row = execute(
        f"""
        UPDATE ledger SET state = 'fetching', claimed_until = ? WHERE killmail_id = ? AND state = 'sent'
        RETURNING killmail_hash, {SENT_PRIORITY}, attempts, refusals, turn, COALESCE({PILOT}, killmail_id)
        """,
        (lease, killmail_id),
    ).fetchone()
    if row is None:
        return None
    killmail_hash, priority, attempts, refusals, turn, character_id = row
    return Claim(killmail_id, killmail_hash, priority, attempts, refusals, turn, character_id, lease)


def lease_ends(killmail_id: int) -> datetime | None:
    """When the row that somebody is fetching may be taken back; None where nobody is."""
    row = execute(
        "SELECT claimed_until FROM ledger WHERE killmail_id = ? AND state = 'fetching'", (killmail_id,)
    ).fetchone()
    return None if row is None else as_datetime(row[0])


def release(claim: Claim) -> None:
    """fetching -> pending: nothing was asked of ESI, or ESI is down. No attempt is spent."""
    execute(
        f"UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE {_HELD}", (claim.killmail_id, claim.lease)
    )


def release_behind(claim: Claim) -> None:
    """fetching -> pending, some turns later: ESI asked everyone to wait, and the next to try is another killmail."""
    execute(
        f"UPDATE ledger SET state = 'pending', claimed_until = NULL, turn = {TURN_AFTER_FAILURE} WHERE {_HELD}",
        (claim.killmail_id, claim.lease),
    )


def put_with_slow(claim: Claim) -> None:
    """fetching -> pending, among those of which only a few are out at a time. No attempt is spent."""
    execute(
        f"UPDATE ledger SET state = 'pending', claimed_until = NULL, turn = turn + {SLOW_TURN} WHERE {_HELD}",
        (claim.killmail_id, claim.lease),
    )


def give_back(killmail_ids: list[int]) -> None:
    """sent -> pending, for messages that could not be sent."""
    if killmail_ids:
        execute(
            f"""UPDATE ledger SET state = 'pending', claimed_until = NULL WHERE killmail_id IN (
                    SELECT killmail_id FROM ledger
                    WHERE state = 'sent' AND killmail_id IN ({placeholders(killmail_ids)})
                    ORDER BY killmail_id {lock_clause()})""",
            killmail_ids,
        )


def settle(claim: Claim, killmail: Killmail) -> Settled:
    """Store the killmail and strike it off the ledger, in one transaction.

    In any state of the row: a worker whose lease ran out brings a body that is as good as any other, and the worker
    that holds the row by now finds it gone.

    The links of pilots whom the body does not name are deleted in the same transaction, and their lists distrusted.

    Returns the syncs that waited for it; whether one of them is complete is asked after the commit, in a statement
    of its own: inside this transaction two last workers would not see each other.
    """
    if killmail.killmail_id != claim.killmail_id:
        raise ValueError(f"claimed killmail {claim.killmail_id}, got the body of {killmail.killmail_id}")
    return repeat_holding(partial(_settle, claim, killmail))


def _settle(claim: Claim, killmail: Killmail, held: frozenset[int]) -> Settled:
    killmail_id = claim.killmail_id
    with db.atomic():
        hold(held)
        wanted = execute("DELETE FROM ledger WHERE killmail_id = ?", (killmail_id,))
        if not wanted.rowcount or not store(killmail, claim.killmail_hash):
            return Settled(stored=False)
        rows = execute("DELETE FROM sync_items WHERE killmail_id = ? RETURNING sync_id", (killmail_id,)).fetchall()
        sync_ids = tuple(sync_id for (sync_id,) in rows)
        foreign = withdraw_foreign(killmail, held)
        if foreign:
            take_back(foreign, sync_ids)
    for user_id in foreign:
        log.warning("killmail %s: it does not name user %s, whose list had it; hidden from them", killmail_id, user_id)
    return Settled(stored=True, sync_ids=sync_ids)


def defer(claim: Claim, error: str, *, refused: bool = False, retry_after: float | None = None) -> tuple[int, ...]:
    """fetching -> deferred after a failure; returns the syncs that this may have completed.

    The first failures are tried again within a minute or two, some turns later. After ATTEMPTS_BEFORE_DEFERRED of them,
    or REFUSALS_BEFORE_DEFERRED, the syncs count the killmail as failed and end without it; the ledger goes on trying,
    after everything else. `refused`: ESI answered with a 4xx. `retry_after`: seconds that ESI asked to
    wait; not tried again before.
    """
    refusals = claim.refusals + 1 if refused else 0
    gives_up = refusals >= REFUSALS_BEFORE_DEFERRED
    attempts = max(claim.attempts + 1, ATTEMPTS_BEFORE_DEFERRED if gives_up else 0)
    counted = f"CASE WHEN ? = 1 AND attempts + 1 < {ATTEMPTS_BEFORE_DEFERRED} THEN {ATTEMPTS_BEFORE_DEFERRED}"
    row = execute(
        f"""UPDATE ledger SET state = 'deferred', attempts = {counted} ELSE attempts + 1 END, not_before = ?,
            turn = CASE WHEN ? = 0 AND attempts + 1 < {ATTEMPTS_BEFORE_DEFERRED} THEN {TURN_AFTER_FAILURE}
                        ELSE {TURN_GIVEN_UP} END,
            claimed_until = NULL, last_error = ?, refusals = ? WHERE {_HELD} RETURNING attempts""",
        (
            int(gives_up),
            utcnow() + max(backoff(FETCH_BACKOFF, attempts), timedelta(seconds=retry_after or 0.0)),
            int(gives_up),
            error[:MAX_ERROR_LENGTH],
            refusals,
            claim.killmail_id,
            claim.lease,
        ),
    ).fetchone()
    return _wanting(claim.killmail_id) if row and row[0] >= ATTEMPTS_BEFORE_DEFERRED else ()


def reject(claim: Claim, error: str) -> tuple[int, ...]:
    """fetching -> rejected: ESI says there is no such killmail. Returns the syncs that this may have completed."""
    execute(
        f"""UPDATE ledger SET state = 'rejected', attempts = attempts + 1, claimed_until = NULL, last_error = ?
            WHERE {_HELD}""",
        (error[:MAX_ERROR_LENGTH], claim.killmail_id, claim.lease),
    )
    return _wanting(claim.killmail_id)


def _wanting(killmail_id: int) -> tuple[int, ...]:
    rows = execute("SELECT sync_id FROM sync_items WHERE killmail_id = ?", (killmail_id,)).fetchall()
    return tuple(sync_id for (sync_id,) in rows)
