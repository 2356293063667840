"""A run of owner changes is an incident at EVE, not a run of sales: nothing of former owners is deleted then.

`owner` in an access token changes when a character is sold. It changes for everyone if EVE changes how it is computed.
So changes are counted like other failures (`esi/failing_owners.py`): from five different characters on, with no
unchanged owner in between, the operator is told once and deletion is paused. Only a login or refresh of a user who was
here before the first of these changes proves that old owners are still named as before; a user who came since says
nothing.

The invariant: counting or pausing changes nothing else. A sold character is hidden at once in any case.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from database import execute, from_epoch, utcnow
from esi import failing_owners

logger = logging.getLogger(__name__)

#: Under what `failing_owners` counts.
GATE = "owner changes"
#: Different characters in a row that make it an incident.
CHANGES_OF_AN_INCIDENT = 5
#: Seconds for which a change is remembered: twice as long as data of former owners is kept (`ledger/former_owners.py`).
REMEMBERED_SECONDS = 60 * 86_400.0


def changed(character_id: int) -> None:
    """The SSO named another owner for this character."""
    known = failing_owners.includes(GATE, character_id)
    now = utcnow().replace(tzinfo=UTC).timestamp()
    count = failing_owners.add(GATE, character_id, now, remembered=REMEMBERED_SECONDS)
    if count == CHANGES_OF_AN_INCIDENT and not known:
        logger.error(
            "%s characters changed their owner, and none kept it in between: EVE may have changed how it names owners. "
            "Deletion of former owners' data is paused; `scripts/users.py restore-sold ID` gives it back",
            count,
        )


def unchanged(user_since: datetime) -> None:
    """The SSO named the stored owner of a user who has been here since then. One SELECT unless changes are counted."""
    row = execute("SELECT MIN(failed_at) FROM failing_owners WHERE gate = ?", (GATE,)).fetchone()
    if row[0] is not None and user_since < from_epoch(row[0]):
        failing_owners.forget(GATE)


def is_incident() -> bool:
    """Whether so many characters changed their owner in a row."""
    return failing_owners.count(GATE) >= CHANGES_OF_AN_INCIDENT
