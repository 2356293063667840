"""Every stored time that something waits for, and the repair of those that lie implausibly far ahead.

A database clock that ran ahead and was set back leaves leases, waits and due times that end days or years from now. So
does an edit by hand. The invariant: what waits for a time further ahead than its writers set it is due at the next
tick. Each horizon below is derived from the constants that write the column. Gates, buckets, request slots and refresh
slots (`esi/`) are read with the same check where they are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from clock import CLOCKS_APART
from database import execute, utcnow
from esi.answers import MAX_FRESH_FOR
from esi.rate_headers import MAX_WAIT_SECONDS
from ledger.recent_unlinks import REMEMBERED_FOR
from ledger.rules import FAILED_SYNC_BACKOFF, FETCH_BACKOFF, FETCH_LEASE, LIST_LEASE, SENT_LEASE
from tokens.access import LEASE as REFRESH_LEASE

logger = logging.getLogger(__name__)

#: `ledger.rules.backoff` spreads a wait by this factor at most.
SPREAD = 1.2
#: The longest that ESI's Retry-After, or a gate, makes anything wait; the margin of everything that waits for ESI.
ESI_WAIT = timedelta(seconds=MAX_WAIT_SECONDS)
#: A name ESI does not know is asked for again after 6 hours (`actors/names.py`: UNKNOWN_RETRY).
NAME_RETRY = timedelta(hours=6)
#: A delayed dispatch is at most 20 minutes away (`actors/dispatching.py`: FARTHEST_WAKE).
WAKE = timedelta(minutes=20)
#: The longest wait for an unknown solar system (`actors/solar_systems.py`: UNKNOWN_RETRY), for a refused login that is
#: checked once more, and for work that runs now and then.
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A column, and how far ahead its writers set it. `only`: the rows concerned. `clear`: becomes null, not now."""

    table: str
    column: str
    horizon: timedelta
    only: str = "1 = 1"
    clear: bool = False

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"

    def far(self, now: datetime) -> datetime:
        """Later than any of our writers, whose clocks differ by CLOCKS_APART at most, would set it."""
        return now + self.horizon + CLOCKS_APART


def deadlines(cooldown: timedelta) -> list[Deadline]:
    """Those that an index finds, or that stand in a table of a few rows. `cooldown`: SYNC_COOLDOWN_MINUTES."""
    claimed, active = "state IN ('sent', 'fetching')", "finished_at IS NULL"
    failures = "next_sync_at IS NOT NULL AND consecutive_failures"
    return [
        Deadline("ledger", "claimed_until", max(FETCH_LEASE, SENT_LEASE), claimed),
        *_after_failures("ledger", "not_before", "state = 'deferred' AND attempts", FETCH_BACKOFF),
        Deadline("syncs", "claimed_until", LIST_LEASE, active),
        # A gate's hour, a bucket's window, and the list's freshness may follow one another.
        Deadline("syncs", "waiting_until", 3 * ESI_WAIT, active),
        # Cleared: the tick sends another message.
        Deadline("syncs", "sent_at", timedelta(), active, clear=True),
        *_after_failures("users", "next_sync_at", failures, FAILED_SYNC_BACKOFF, cooldown),
        Deadline("users", "refresh_claimed_until", REFRESH_LEASE, "refresh_claimed_until IS NOT NULL", clear=True),
        Deadline("users", "recheck_at", DAY, "recheck_at IS NOT NULL"),
        Deadline("users", "sold_at", timedelta(), "sold_at IS NOT NULL"),  # the deletion counts from there
        Deadline("former_owners", "sold_at", timedelta()),
        Deadline("recent_unlinks", "forget_at", REMEMBERED_FOR),
        Deadline("names", "retry_at", NAME_RETRY, "name IS NULL"),
        Deadline("solar_systems", "retry_at", DAY, "security_status IS NULL"),
        Deadline("price_lists", "asked_at", timedelta()),
        Deadline("price_lists", "tried_at", timedelta(), clear=True),
        Deadline("price_lists", "fetched_at", timedelta()),
        Deadline("waits", "until", 3 * ESI_WAIT, clear=True),
        Deadline("locks", "wake_at", WAKE, clear=True),
        Deadline(
            "locks", "next_share_at", timedelta(minutes=1), clear=True
        ),  # a second's lists, at the slowest ceiling
        Deadline("periodic_runs", "due_at", DAY),
    ]


#: No index finds these. A clock that was set back has left others, too: they are looked at when one of those is found.
UNINDEXED = (
    Deadline("users", "list_fresh_until", timedelta(seconds=MAX_FRESH_FOR), clear=True),
    Deadline("recent_unlinks", "fresh_until", timedelta(seconds=MAX_FRESH_FOR), clear=True),
    Deadline("users", "last_full_sync_at", timedelta()),  # a full walk would wait for it
    Deadline("users", "list_read_at", timedelta(), clear=True),  # a read without an ETag would wait for it
)


def expire_implausible_deadlines(cooldown: timedelta = timedelta()) -> dict[str, int]:
    """End what lies implausibly far ahead, and log one line. Returns how many by `table.column`; usually none.

    One statement that reads, while there is nothing to do: an update would take SQLite's only lock.
    """
    now = utcnow()
    found: dict[str, int] = {}
    known = deadlines(cooldown)
    looks = ", ".join(f"EXISTS (SELECT 1 FROM {each.table} WHERE {_is_far(each)})" for each in known)
    [flags] = execute(f"SELECT {looks}", [each.far(now) for each in known]).fetchall()
    suspects = [each for each, is_found in zip(known, flags, strict=True) if is_found]
    for each in [*suspects, *(UNINDEXED if suspects else ())]:
        to = None if each.clear else now
        sql = f"UPDATE {each.table} SET {each.column} = ? WHERE {_is_far(each)}"
        count = int(execute(sql, (to, each.far(now))).rowcount)
        if count:
            found[each.name] = found.get(each.name, 0) + count
    if found:
        logger.warning(
            "expired %s deadlines dated implausibly far ahead (clock skew?): %s; what waited for them is due now",
            sum(found.values()),
            ", ".join(f"{name} {count}" for name, count in found.items()),
        )
    return found


def _after_failures(
    table: str, column: str, counted: str, steps: tuple[timedelta, ...], least: timedelta = timedelta()
) -> Iterator[Deadline]:
    """One for each number of failures in a row: after none or one, the wait after eight is implausible."""
    for failures, step in enumerate(steps, start=1):
        compare = "<=" if failures == 1 else ">=" if failures == len(steps) else "="
        yield Deadline(table, column, max(step * SPREAD, least) + ESI_WAIT, f"{counted} {compare} {failures}")


def _is_far(deadline: Deadline) -> str:
    return f"{deadline.only} AND {deadline.column} > ?"
