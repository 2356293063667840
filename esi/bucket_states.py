"""The state of ESI's buckets and gates for operators, at the same cost for one pilot and for a million.

There is a bucket for each pilot whose list was read a short while ago. The invariant: no question looks at more than a
bounded number of them: the buckets of this address, those that ESI has closed (through their index), and a sample of
the others, which moves on with each question. What was not looked at is said (`GroupState.sampled`).
"""

from __future__ import annotations

from dataclasses import dataclass

from clock import DatabaseClock
from esi import rate_store
from esi.rate_headers import MAX_WAIT_SECONDS
from esi.rate_limit import ERRORS, KILLMAIL, STATUS, Bucket
from esi.roads import TOLD_TO_WAIT, USED_UP

#: Buckets that one question looks at, of those that are closed and of the others: some ten milliseconds' work.
SAMPLE = 500
LIMIT_IN_DOUBT = "ESI stated another limit, and one request at a time finds out whether it is true"
#: Up to so many buckets are counted.
COUNTED = 10_000
#: The buckets that there is one of for this address: always looked at.
_OF_THIS_ADDRESS = tuple(f"{group.name}:ip" for group in (KILLMAIL, STATUS, ERRORS))


@dataclass(frozen=True, slots=True)
class GroupState:
    """A group's buckets or a gate, without the owner of any bucket. Times are seconds since the epoch.

    `allowance`, `remaining` and `closed_until` (None: open) are those of the emptiest bucket; of a gate, which has no
    tokens, the first two are None. `closed` of the `buckets` are closed. Spent tokens return after `window_seconds`:
    the emptiest has more at `more_at`, and all are full at `full_at`; None: they are. `sampled`: how many buckets all
    this was found out from, where it was not all of them; 0: all. `more_buckets`: there are more than `buckets`.
    """

    name: str
    allowance: int | None
    remaining: int | None
    closed_until: float | None
    reason: str | None
    buckets: int = 0
    closed: int = 0
    window_seconds: int = 0
    more_at: float | None = None
    full_at: float | None = None
    sampled: int = 0
    more_buckets: bool = False


class Overview:
    """Reads the state. Remembers where its last sample ended."""

    def __init__(self, clock: DatabaseClock) -> None:
        self._clock = clock
        self._sampled = ""

    def read(self) -> list[GroupState]:
        """Of every group that has a bucket, and of every gate that is closed."""
        view = rate_store.read("", self._clock)
        numbers = rate_store.count_buckets(COUNTED + 1)
        more_buckets = sum(numbers.values()) > COUNTED
        groups: dict[str, list[Bucket]] = {}
        for key, stored in self._sample(view.now).items():
            groups.setdefault(key.partition(":")[0], []).append(stored.settled(view.now, MAX_WAIT_SECONDS))
        gates = [
            GroupState(name, None, None, gate.closed_until, gate.reason)
            for name, gate in sorted(view.gates.items())
            if gate.closed_until > view.now
        ]
        return [
            _group_state(name, found, max(numbers.get(name, 0), len(found)), view.now, more_buckets=more_buckets)
            for name, found in sorted(groups.items())
        ] + gates

    def _sample(self, now: float) -> dict[str, Bucket]:
        found = rate_store.closed_buckets(now, SAMPLE) | rate_store.buckets_of(_OF_THIS_ADDRESS)
        sample = rate_store.buckets_behind(self._sampled, SAMPLE)
        if self._sampled and len(sample) < SAMPLE:
            sample |= rate_store.buckets_behind("", SAMPLE - len(sample))
            self._sampled = ""
        # The last key by the database's own order.
        self._sampled = next(reversed(sample)) if len(sample) == SAMPLE else ""
        return found | sample


def _group_state(name: str, looked_at: list[Bucket], number: int, now: float, *, more_buckets: bool) -> GroupState:
    emptiest = min(looked_at, key=lambda bucket: (bucket.allows(now, 1), bucket.remaining(now)))
    remaining = max(0, emptiest.remaining(now))
    is_open = emptiest.allows(now, 1)
    full_at = max(bucket.reopens_at(now, bucket.allowance) for bucket in looked_at)
    is_sample = more_buckets or number > len(looked_at)
    one_of_this_address = f"{name}:ip" in _OF_THIS_ADDRESS
    return GroupState(
        name,
        emptiest.allowance,
        remaining,
        closed_until=None if is_open else emptiest.reopens_at(now, 1),
        reason=None if is_open else why_closed(emptiest, now),
        buckets=number,
        closed=sum(not bucket.allows(now, 1) for bucket in looked_at),
        window_seconds=emptiest.window_seconds,
        more_at=emptiest.reopens_at(now, remaining + 1) if remaining < emptiest.allowance else None,
        full_at=full_at if full_at > now else None,
        sampled=len(looked_at) if is_sample and not one_of_this_address else 0,
        more_buckets=more_buckets and not one_of_this_address,
    )


def why_closed(bucket: Bucket, now: float) -> str:
    """Why nothing may be spent of a bucket now, for the pilot."""
    if bucket.doubts and bucket.remaining(now) > 0:
        return LIMIT_IN_DOUBT
    return TOLD_TO_WAIT if bucket.refusals and bucket.is_closed(now) else USED_UP
