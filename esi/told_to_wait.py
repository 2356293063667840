"""Whether an answer that asks everyone to wait (420, or a bucket's 429) concerns one pilot after all.

ESI counts errors and tokens for this address, so such an answer closes a gate or bucket for all, and costs nothing. But
a killmail or list that always gets one would be asked for again and again, and close it each time. The invariant: only
a pilot who was refused before, and heard of it before this request left, and who alone was refused since anyone's last
success, is taken to be at fault. Where several pilots are refused, ESI means all.
"""

from __future__ import annotations

from dataclasses import dataclass

from esi import failing_owners

#: Seconds for which a pilot's refusal is remembered: as long as the longest wait between two tries of a killmail.
REMEMBERED_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal. `own`: it concerns its pilot, and costs an attempt. `alone`: besides, others have succeeded since
    that pilot's last one: nothing says that anyone else would be refused."""

    own: bool
    alone: bool


def count(limit: str, pilot: int, sent_at: float, now: float) -> Refused:
    """Count a refusal at this limit. `sent_at`: when the request left."""
    before = _before(limit)
    known = failing_owners.includes(before, pilot, since=now - REMEMBERED_SECONDS, before=sent_at)
    in_a_row = failing_owners.includes(limit, pilot)
    failing_owners.add(before, pilot, now, remembered=REMEMBERED_SECONDS)
    own = failing_owners.add(limit, pilot, now) == 1 and known
    return Refused(own=own, alone=own and not in_a_row)


def succeeded(limit: str) -> None:
    """A request was answered that the limit did not refuse."""
    failing_owners.forget(limit)


def _before(limit: str) -> str:
    """The name under which pilots are remembered whatever succeeds."""
    return f"{limit} before"
