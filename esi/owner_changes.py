"""A run of owner changes is an incident at EVE, not a run of sales: nothing of former owners is deleted then.

`owner` in an access token changes when a character is sold. It changes for everyone if EVE changes how it is computed.
So changes are counted like other failures (`esi/failing_owners.py`): from five different characters on, with no
unchanged owner in between, the operator is told once and deletion is paused. Only a login or refresh of a user who was
here before the first of these changes proves that old owners are still named as before; a user who came since says
nothing.

The invariants: a pause ends only by the operator (`scripts/users.py resume-deletion`), however long it lasts and
whatever is seen in the meantime. Counting or pausing changes nothing else: a sold character is hidden at once in any
case.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from database import execute, from_epoch, utcnow
from esi import failing_owners

logger = logging.getLogger(__name__)

#: Under what `failing_owners` counts, and under what it holds one row while deletion is paused: since when.
GATE = "owner changes"
PAUSED = "owner changes: paused"
#: Different characters in a row that make it an incident.
CHANGES_OF_AN_INCIDENT = 5
#: Seconds for which a change is remembered: twice as long as data of former owners is kept (`ledger/former_owners.py`).
REMEMBERED_SECONDS = 60 * 86_400.0


def changed(character_id: int) -> None:
    """The SSO named another owner for this character. Not counted while deletion is paused."""
    if _paused_at() is not None:
        return
    if not failing_owners.includes(GATE, character_id):  # counted from its first change on
        failing_owners.add(GATE, character_id, _now(), remembered=REMEMBERED_SECONDS)
    count = failing_owners.count(GATE)
    if count < CHANGES_OF_AN_INCIDENT:
        return
    first = _first_change() or utcnow()
    pause()
    logger.error(
        "%s characters changed their owner, and none kept it in between: EVE may have changed how it names owners. "
        "Deletion of former owners' data is paused until `scripts/users.py resume-deletion`. "
        "`scripts/users.py restore-sold --all-since %s` gives the present owners the data back",
        count,
        (first - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M"),
    )


def unchanged(user_since: datetime) -> None:
    """The SSO named the stored owner of a user who has been here since then. One SELECT unless changes are counted."""
    first = _first_change()
    if first is not None and user_since < first:
        failing_owners.forget(GATE)


def pause() -> None:
    """Pause deletion until `resume`; a pause in force goes on."""
    if _paused_at() is None:
        failing_owners.add(PAUSED, 0, _now())


def resume() -> None:
    """The operator ends the pause: what was counted is forgotten with it."""
    failing_owners.forget(GATE)
    failing_owners.forget(PAUSED)


def paused_since() -> datetime | None:
    """Since when deletion is paused, or None. A process that died before it paused has counted, which is enough."""
    if failing_owners.count(GATE) >= CHANGES_OF_AN_INCIDENT:
        return _paused_at() or _first_change()
    return _paused_at()


def _paused_at() -> datetime | None:
    return _earliest(PAUSED)


def _first_change() -> datetime | None:
    return _earliest(GATE)


def _earliest(gate: str) -> datetime | None:
    row = execute("SELECT MIN(failed_at) FROM failing_owners WHERE gate = ?", (gate,)).fetchone()
    return None if row[0] is None else from_epoch(row[0])


def _now() -> float:
    return utcnow().replace(tzinfo=UTC).timestamp()
