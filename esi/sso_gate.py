"""Whether the SSO may be asked for tokens now: one row of `gates`, shared by every process.

An SSO that hangs holds a thread for as long as a timeout lasts, so it is not asked while it is away. The invariants:
one pilot's problem closes nothing: the gate closes only when several different users failed in a row, with no success
by anyone in between (`esi/failing_owners.py`); while it is closed no one asks; when the pause is over one asks, for
all, and a user whose own refresh failed before lets the others go first. A failed probe makes the pause longer, a
success opens the gate and forgets the failures. A login's code is exchanged whatever this says: it cannot wait.

Nor do the problems of many pilots. A success also marks the users whose failures came before it
(`users.refresh_fails_since`), until a refresh of their own succeeds or the pilot logs in. Their failures count for
nothing here: they close no gate, make no pause longer, and are their own, also as a probe. And before other failures
close the gate, or make its pause longer, the SSO is asked for a witness (`tokens/witnesses.py`).

The same holds for verdicts: answers that would make a pilot log in again. A run of them by different users is an
incident (another EVE_CLIENT_ID, an error at the SSO): the gate closes, and no further user is marked. Many of them
among successes are one, too, but close nothing: `esi/verdict_rate.py`.

What counts as a failure, and what the pilot is told, is left to `tokens/`.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum, auto

from database import db, execute, lock_clause, utcnow
from esi import failing_owners, owner_changes, rate_store, refresh_slots, verdict_rate
from esi.rate_limit import back_off
from esi.refresh_slots import Slot

logger = logging.getLogger(__name__)

#: The row's name, and the one under which failures are counted; and the one under which verdicts are.
GATE, VERDICTS = "login service", "login verdicts"
#: Under what witnesses that failed are remembered: others are asked first. It is no failure of a pilot who asked.
WITNESSES = "login witnesses"
#: Different users that have to fail in a row, with no success in between, before the gate closes.
USERS_THAT_CLOSE = 5
#: Seconds the gate is closed at first, and at most after many failed probes. The SSO's restart takes minutes.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 300.0
#: Seconds the others wait for a probe, should it not come back: as long as its slot is leased.
PROBE_SECONDS = refresh_slots.LEASE_SECONDS
#: Seconds by which a user whose refresh failed comes back after the others: if the fault is the user's own after all,
#: another user finds the SSO well before.
AFTER_THE_OTHERS = 5.0
#: Seconds to wait for a slot: for a pilot who waits as well, and for the background, whose thread has other work. And
#: between two looks whether one is free. A refresh takes well under a second.
INTERACTIVE_WAIT_SECONDS, BACKGROUND_WAIT_SECONDS, SLOT_POLL_SECONDS = 2.0, 0.5, 0.1
#: Seconds a login waits for a slot, and between two looks: it looks more often than others, and so goes first.
LOGIN_WAIT_SECONDS, LOGIN_POLL_SECONDS = 2.0, 0.05


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one refresh. Release its slot after the request.

    Report exactly once what came of it: `answered`, `judged`, or `blame` and perhaps, as it says, `failed`.
    `probe`: the request finds out, for all, whether the SSO answers again. `fails`: the user is known to fail while
    others succeed. `witness`: the request is made because another user's has failed.
    """

    owner: int
    slot: Slot
    probe: bool = False
    fails: bool = False
    witness: bool = False


class Blame(Enum):
    """What a refresh that ended without tokens is evidence of."""

    #: This user's own problem.
    USER = auto()
    #: The SSO is away: report `failed`.
    OUTAGE = auto()
    #: It would close the gate or make its pause longer: ask for a witness, and report `failed` if there is none.
    DOUBT = auto()


class SsoClosed(Exception):
    """The SSO is not asked now. `reason`: what was wrong with it, for the pilot. `wait`: seconds until it may be."""

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class SsoBusy(Exception):
    """As many refreshes as may be are in progress; nothing is wrong with the SSO."""


def enter(owner: int, *, interactive: bool = False, fails: bool = False) -> Permit:
    """Permission for one refresh of this user. Raises SsoClosed, and SsoBusy when no slot becomes free in time.

    One statement where the gate is open and a slot is free. `fails`: as in Permit.
    """
    deadline = time.monotonic() + (INTERACTIVE_WAIT_SECONDS if interactive else BACKGROUND_WAIT_SECONDS)
    while True:
        slot = refresh_slots.take(GATE, _COUNTED, interactive=interactive, fails=fails)
        if slot is not None:
            return Permit(owner, slot, fails=fails)
        now, gate = rate_store.read_gate(GATE)
        if gate.failures:
            return _probe(owner, now, gate, interactive=interactive, fails=fails)
        while not refresh_slots.any_free(interactive=interactive, fails=fails):
            if time.monotonic() >= deadline:
                raise SsoBusy
            time.sleep(SLOT_POLL_SECONDS)


def enter_as_witness(owner: int, failed: Permit) -> Permit | None:
    """Permission for one refresh of this user, because another's with the permit `failed` did not succeed.

    None where the gate is closed and `failed` was no probe, and where no slot becomes free in time.
    """
    deadline = time.monotonic() + INTERACTIVE_WAIT_SECONDS
    while True:
        slot = refresh_slots.take(None if failed.probe else GATE, _COUNTED, interactive=True)
        if slot is not None:
            return Permit(owner, slot, probe=failed.probe, witness=True)
        if time.monotonic() >= deadline or (not failed.probe and closure() is not None):
            return None
        time.sleep(SLOT_POLL_SECONDS)


@contextmanager
def login() -> Iterator[None]:
    """A slot for the exchange of a login's code, whatever the gate says.

    A code is good for five minutes and a pilot waits: where no slot becomes free in time, the login goes without one.
    No connection to the database is held in the meantime: the web has few, and an SSO that hangs would take them all.
    """
    deadline = time.monotonic() + LOGIN_WAIT_SECONDS
    while (slot := _take_for_login()) is None and time.monotonic() < deadline:
        time.sleep(LOGIN_POLL_SECONDS)
    try:
        yield
    finally:
        if slot is not None:
            with db.connection_context():
                refresh_slots.release(slot)


def _take_for_login() -> Slot | None:
    with db.connection_context():
        return refresh_slots.take(None, _COUNTED, interactive=True)


def closure() -> SsoClosed | None:
    """What `enter` would raise, for a caller that asks nothing: None where the gate is open."""
    now, gate = rate_store.read_gate(GATE)
    return SsoClosed(gate.reason, gate.closed_until - now) if gate.failures and gate.closed_until > now else None


def release(permit: Permit) -> None:
    """The request is over, one way or the other: its slot is free."""
    refresh_slots.release(permit.slot)


def renew(permit: Permit) -> Permit | None:
    """The permit for a second request directly after the first; None if its slot may have gone to another caller."""
    slot = refresh_slots.renew(permit.slot)
    return None if slot is None else replace(permit, slot=slot)


def answered(permit: Permit) -> None:
    """The refresh succeeded: the SSO works, and failures so far were their users' own."""
    if permit.slot.failures_noted:
        failing_owners.forget(VERDICTS)
    _works(permit)


def judged(permit: Permit, verdict: str, incident: str, *, counts: bool) -> SsoClosed | None:
    """Count an answer by which this pilot would have to log in again. None: believe it; else it is one of a run.

    `verdict` is for the log line, `incident` the gate's reason, for pilots. `counts=False` is for a recheck: rechecks
    come one after the other and are mostly refused, which says nothing about the SSO.
    """
    now, gate = rate_store.read_gate(GATE)
    goes_on = gate.failures > 0 and gate.reason == incident
    if goes_on and not permit.probe:
        return SsoClosed(gate.reason, max(gate.closed_until - now, 0.0))
    in_a_row = failing_owners.add(VERDICTS, permit.owner, now) if counts or goes_on else 0
    if not goes_on and in_a_row < USERS_THAT_CLOSE:
        _works(permit)
        return None
    pause = back_off(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, gate.failures if goes_on else 0)
    if permit.probe:
        rate_store.keep_closed(GATE, now + pause, incident)
    closes = permit.probe or rate_store.close_gate(GATE, now, now + pause, incident)
    if closes and not goes_on:
        logger.error(
            "%s: %s pilots in a row were told that %s, with no success in between: taken for an incident; no further "
            "pilot has to log in for it. Check EVE_CLIENT_ID and the state of EVE's SSO; next try in %.0f s",
            GATE, in_a_row, verdict, pause,
        )  # fmt: skip
    return SsoClosed(incident, pause)


def _works(permit: Permit) -> None:
    """The SSO has answered this refresh, whatever it said: an outage is over, and failures so far were their users'."""
    if permit.slot.failures_noted:
        _mark_failing(but=permit.owner)
        failing_owners.forget(GATE)
        failing_owners.forget(WITNESSES)
    if permit.probe and rate_store.forget_failures(GATE):
        logger.info("%s: the gate is open again", GATE)


def _mark_failing(*, but: int) -> None:
    """Users whose refreshes failed, and another's succeeded. Ids in order, so that two successes never deadlock."""
    marked = execute(
        f"""
        UPDATE users SET refresh_fails_since = ? WHERE id IN (
            SELECT id FROM users WHERE refresh_fails_since IS NULL AND id <> ?
            AND id IN (SELECT owner FROM failing_owners WHERE gate = ?) ORDER BY id {lock_clause()})
        RETURNING id
        """,
        (utcnow(), but, GATE),
    ).fetchall()
    if marked:
        users = ", ".join(str(user_id) for (user_id,) in sorted(marked))
        logger.info("%s: refreshes of users %s failed while another's succeeded: their own problem", GATE, users)


def blame(permit: Permit, *, whole_service: bool = False) -> Blame:
    """Count a refresh that ended without tokens, and say what it is evidence of.

    `whole_service`: no single user can have caused it; it counts each time, also where the installation has one pilot.
    """
    if permit.witness:
        failing_owners.add(WITNESSES, permit.owner, rate_store.read_gate(GATE)[0])
        return Blame.USER
    if permit.fails and not whole_service:
        if permit.probe:
            rate_store.reopen(GATE)  # for the next probe: this one says nothing
        return Blame.USER
    now, gate = rate_store.read_gate(GATE)
    if gate.failures and not permit.probe:
        return Blame.OUTAGE
    failing = failing_owners.add(GATE, _anonymous() if whole_service else permit.owner, now)
    if not permit.probe and failing < USERS_THAT_CLOSE:
        return Blame.USER
    return Blame.OUTAGE if whole_service else Blame.DOUBT


def failed(permit: Permit, reason: str, retry_after: float | None, *, level: int = logging.WARNING) -> SsoClosed:
    """Close the gate, or keep it closed for longer, for a failure that no single user caused; returns for how long.

    `retry_after`: seconds the SSO asked for; what is more than the longest pause is for this user alone, and left to
    the caller. `level`: of the log line, should this failure close the gate.
    """
    now, gate = rate_store.read_gate(GATE)
    if gate.failures and not permit.probe:
        # It was closed while this request was on its way: the same failure, which makes the pause no longer.
        return SsoClosed(gate.reason, max(gate.closed_until - now, 0.0))
    pause = min(
        retry_after or back_off(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, gate.failures), LONGEST_PAUSE_SECONDS
    )
    if permit.probe:
        rate_store.keep_closed(GATE, now + pause, reason)
        logger.info("%s: still closed; next try in %.0f s: %s", GATE, pause, reason)
    elif rate_store.close_gate(GATE, now, now + pause, reason):
        failing = failing_owners.count(GATE)
        logger.log(level, "%s: closed after %s failures in a row; next try in %.0f s: %s", GATE, failing, pause, reason)
    return SsoClosed(reason, pause)


def _probe(owner: int, now: float, gate: rate_store.Gate, *, interactive: bool, fails: bool) -> Permit:
    """Become the one that tries a gate whose pause is over. Raises SsoClosed."""
    opens = gate.closed_until
    if opens <= now and (fails or any(failing_owners.includes(name, owner) for name in (GATE, VERDICTS))):
        opens += AFTER_THE_OTHERS
    if opens > now:
        raise SsoClosed(gate.reason, opens - now)
    slot = refresh_slots.take(None, _COUNTED, interactive=interactive, fails=fails)
    if slot is None:
        raise SsoClosed(gate.reason, INTERACTIVE_WAIT_SECONDS)
    if not rate_store.take_probe(GATE, now, now + PROBE_SECONDS):
        refresh_slots.release(slot)
        raise SsoClosed(gate.reason, PROBE_SECONDS)
    return Permit(owner, slot, probe=True, fails=fails)


def _anonymous() -> int:
    """A number that is no user's, new each time: below zero, 62 bits."""
    return -1 - secrets.randbits(62)


#: What `failing_owners` counts that a successful refresh may forget.
_COUNTED = (GATE, WITNESSES, VERDICTS, owner_changes.GATE, verdict_rate.NOTES)
