"""Whether so many different pilots are turned away by the SSO, among those it serves, that it must be mistaken.

`esi/sso_gate.py` notices when the SSO turns everyone away. Where only some of its answers are wrong, other pilots are
served in between. So each pilot who is turned away is noted here, and each SERVED_PER_NOTE refreshes that succeed
forget the oldest note: notes add up only while more than one in twenty is turned away. At USERS_OF_AN_INCIDENT of them
it is an incident, until that has not been so for an hour. No note counts for longer than an hour.

The invariants: it costs nothing while nobody is turned away; at most MOST_NOTES rows, and one that counts, shared by
every process. What follows for a pilot is left to the caller. Times are seconds since the epoch, by the database's
clock.
"""

from __future__ import annotations

import logging

from database import execute
from esi import failing_owners, rate_store

logger = logging.getLogger(__name__)

#: Under what `failing_owners` keeps the notes.
NOTES = "turned away"
#: Pilots in an hour, beyond the share below, that make it an incident.
USERS_OF_AN_INCIDENT = 5
#: Refreshes that succeed for each note they forget: one pilot in twenty may be turned away. Usual is one in thousands.
SERVED_PER_NOTE = 20
#: Notes kept at most: so that an incident is seen to be over soon after it is.
MOST_NOTES = 2 * USERS_OF_AN_INCIDENT
#: Seconds for which a note counts, and for which an incident goes on after there were last enough of them.
NOTED_SECONDS = 3600.0
INCIDENT_SECONDS = 3600.0


def served() -> None:
    """A refresh succeeded. Needless while nobody is noted."""
    counted = execute(
        f"""UPDATE verdict_rate SET served = CASE WHEN served + 1 < {SERVED_PER_NOTE} THEN served + 1 ELSE 0 END
            WHERE EXISTS (SELECT 1 FROM failing_owners WHERE gate = ?) RETURNING served""",
        (NOTES,),
    ).fetchall()
    if counted and counted[0][0] == 0:
        execute(
            """DELETE FROM failing_owners WHERE gate = ? AND owner = (
                   SELECT owner FROM failing_owners WHERE gate = ? ORDER BY failed_at, owner LIMIT 1)""",
            (NOTES, NOTES),
        )


def is_incident(owner: int, verdict: str, *, counts: bool) -> bool:
    """The SSO has turned this user away: whether that is part of an incident, and not to be believed.

    `verdict` is for the log line. `counts=False` is for a recheck: those are mostly refused, which says nothing.
    """
    now, _ = rate_store.read_gate(NOTES)
    if counts and _note(owner, now) >= USERS_OF_AN_INCIDENT:
        _begin_or_go_on(now, verdict)
        return True
    row = execute("SELECT incident_until FROM verdict_rate").fetchone()
    return row is not None and now < row[0] <= now + INCIDENT_SECONDS


def _note(owner: int, now: float) -> int:
    """Note a user, unless there are notes enough; returns how many there are."""
    count = execute(
        "SELECT COUNT(*) FROM failing_owners WHERE gate = ? AND failed_at BETWEEN ? AND ?",
        (NOTES, now - NOTED_SECONDS, now + NOTED_SECONDS),
    ).fetchone()[0]
    if count >= MOST_NOTES:
        return int(count)
    execute("INSERT INTO verdict_rate (id, served, incident_until) VALUES (1, 0, 0) ON CONFLICT DO NOTHING")
    return failing_owners.add(NOTES, owner, now, remembered=NOTED_SECONDS)


def _begin_or_go_on(now: float, verdict: str) -> None:
    """One line for the operator when it begins."""
    until = now + INCIDENT_SECONDS
    begins = execute(
        "UPDATE verdict_rate SET incident_until = ? WHERE NOT (incident_until > ? AND incident_until <= ?)",
        (until, now, until),
    ).rowcount
    if not begins:
        execute("UPDATE verdict_rate SET incident_until = ? WHERE incident_until < ?", (until, until))
        return
    logger.error(
        "login verdicts: more than one pilot in %s was told that %s, while others were served: taken for an incident; "
        "no further pilot has to log in for it until an hour after it is over. Check the state of EVE's SSO",
        SERVED_PER_NOTE, verdict,
    )  # fmt: skip
