"""Every stored time that something waits for, and the repair of those that lie implausibly far ahead.

A database clock that ran ahead and was set back leaves leases, waits and due times that end days or years from now. So
does an edit by hand. Each horizon below is derived from the constants that write the column.

The invariants: what waits for a time further ahead than anything sets the column is due after the next tick, where an
index finds it. What no index finds, and what is too far ahead only for so few failures as it had, is due within the
hour, or after the next tick if that finds anything else. What a tick costs while there is nothing to do does not depend
on how many rows wait. Gates, buckets, request slots and refresh slots (`esi/`) are read with the same check where they
are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import periodic_runs
from clock import CLOCKS_APART
from database import execute, utcnow
from esi.answers import MAX_FRESH_FOR
from esi.rate_headers import MAX_WAIT_SECONDS
from ledger.recent_unlinks import REMEMBERED_FOR
from ledger.rules import FAILED_SYNC_BACKOFF, FETCH_BACKOFF, FETCH_LEASE, LIST_LEASE, SENT_LEASE
from tokens.rows import LEASE as REFRESH_LEASE

logger = logging.getLogger(__name__)

#: Time between two looks at what a tick has no index for.
HOURLY = timedelta(hours=1)
_TURN = "implausible deadlines"
#: Syncs that are to be listed, in the words of the indexes on what they wait for; no other sync waits for a time.
_LISTS = "state IN ('QUEUED', 'LISTING')"
#: `ledger.rules.backoff` spreads a wait by this factor at most.
SPREAD = 1.2
#: The longest that ESI's Retry-After, or a gate, makes anything wait; the margin of everything that waits for ESI.
ESI_WAIT = timedelta(seconds=MAX_WAIT_SECONDS)
#: A name ESI does not know is asked for again within two days (`actors/names.py`: LONGEST_RETRY).
NAME_RETRY = timedelta(days=2)
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
    """For each tick: those that an index finds, or that stand in a table of a few rows. `cooldown`:
    SYNC_COOLDOWN_MINUTES."""
    return [
        Deadline("ledger", "claimed_until", max(FETCH_LEASE, SENT_LEASE), "state IN ('sent', 'fetching')"),
        Deadline("ledger", "not_before", _after(FETCH_BACKOFF[-1]), "state = 'deferred'"),
        Deadline("syncs", "claimed_until", LIST_LEASE, f"{_LISTS} AND claimed_until IS NOT NULL"),
        # A gate's hour, a bucket's window, and the list's freshness may follow one another.
        Deadline("syncs", "waiting_until", 3 * ESI_WAIT, f"{_LISTS} AND waiting_until IS NOT NULL"),
        # Cleared: the tick sends another message.
        Deadline("syncs", "sent_at", timedelta(), f"{_LISTS} AND sent_at IS NOT NULL", clear=True),
        Deadline("users", "next_sync_at", _after(FAILED_SYNC_BACKOFF[-1], cooldown), "next_sync_at IS NOT NULL"),
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


#: No index finds these.
UNINDEXED = (
    Deadline("users", "list_fresh_until", timedelta(seconds=MAX_FRESH_FOR), clear=True),
    Deadline("recent_unlinks", "fresh_until", timedelta(seconds=MAX_FRESH_FOR), clear=True),
    Deadline("users", "last_full_sync_at", timedelta()),  # a full walk would wait for it
    Deadline("users", "list_read_at", timedelta(), clear=True),  # a read without an ETag would wait for it
)


def hourly_deadlines(cooldown: timedelta) -> list[Deadline]:
    """For each hour: those that are looked for among all that waits, or among all rows."""
    failed_syncs = "next_sync_at IS NOT NULL AND consecutive_failures"
    return [
        *_by_failures("ledger", "not_before", "state = 'deferred' AND attempts", FETCH_BACKOFF),
        *_by_failures("users", "next_sync_at", failed_syncs, FAILED_SYNC_BACKOFF, cooldown),
        *UNINDEXED,
    ]


def expire_implausible_deadlines(cooldown: timedelta = timedelta()) -> dict[str, int]:
    """End what lies implausibly far ahead, and log one line. Returns how many by `table.column`; usually none.

    Two statements that read, while there is nothing to do: an update would take SQLite's only lock. A clock that was
    set back has left more than what is found first: all is looked at then.
    """
    now = utcnow()
    found: dict[str, int] = {}
    suspects = _suspects(deadlines(cooldown), now)
    if suspects or periodic_runs.begin(_TURN, HOURLY):
        suspects += _suspects(hourly_deadlines(cooldown), now)
    for each in suspects:
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


def _suspects(known: Sequence[Deadline], now: datetime) -> list[Deadline]:
    """Those that some row lies beyond, in one statement."""
    looks = ", ".join(f"EXISTS (SELECT 1 FROM {each.table} WHERE {_is_far(each)})" for each in known)
    [flags] = execute(f"SELECT {looks}", [each.far(now) for each in known]).fetchall()
    return [each for each, is_found in zip(known, flags, strict=True) if is_found]


def _by_failures(
    table: str, column: str, counted: str, steps: tuple[timedelta, ...], least: timedelta = timedelta()
) -> list[Deadline]:
    """One for each number of failures in a row but the largest, whose wait is the longest there is: after none or one,
    the wait after eight is implausible."""
    return [
        Deadline(table, column, _after(step, least), f"{counted} {'<=' if failures == 1 else '='} {failures}")
        for failures, step in enumerate(steps[:-1], start=1)
    ]


def _after(step: timedelta, least: timedelta = timedelta()) -> timedelta:
    """The horizon of a wait after failures, as `ledger.rules.backoff` sets it; it is never below `least`."""
    return max(step * SPREAD, least) + ESI_WAIT


def _is_far(deadline: Deadline) -> str:
    return f"{deadline.only} AND {deadline.column} > ?"
