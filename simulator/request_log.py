"""Who asked for what and when: the evidence tests and benchmarks judge a client by.

Entries are written when the answer is decided, before it is sent, so that a client that has an answer finds
its request here. `at` is the arrival of the request's first byte. Memory is bounded.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

ESI_ROUTES: Final = frozenset(
    {"recent", "killmail", "names", "character", "system", "status", "prices", "corporation", "wars", "unknown"}
)
SSO_ROUTES: Final = frozenset({"metadata", "authorize", "token", "jwks", "revoke"})
ROUTES: Final = ESI_ROUTES | SSO_ROUTES
_KEEP: Final = 500_000


@dataclass
class Note:
    """What is found out about a request while it is answered."""

    route: str
    page: int | None = None
    character_id: int | None = None
    killmail_id: int | None = None
    cost: int = 0
    grant_type: str | None = None
    fault: str | None = None
    #: The characters that a fault may be meant for.
    concerns: frozenset[int] = frozenset()
    #: Whose list is shown instead of the one that was asked for.
    shown_id: int | None = None


class Entry(NamedTuple):
    """One request. `status` is 0 if no answer was sent; `cost` is tokens."""

    seq: int
    at: float
    route: str
    path: str
    page: int | None
    status: int
    character_id: int | None
    killmail_id: int | None
    conditional: bool
    cost: int
    grant_type: str | None
    fault: str | None


@dataclass
class RequestLog:
    """The newest half million requests, by rising `seq` from 1."""

    _entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=_KEEP))
    _last_seq: int = 0

    def add(self, note: Note, *, at: float, path: str, status: int, conditional: bool) -> None:
        """Write one request down."""
        self._last_seq += 1
        self._entries.append(
            Entry(
                self._last_seq, at, note.route, path, note.page, status, note.character_id, note.killmail_id,
                conditional, note.cost, note.grant_type, note.fault,
            )
        )  # fmt: skip

    def since(self, seq: int) -> Iterator[Entry]:
        """Entries after `seq`, oldest first."""
        skip = max(0, seq - (self._last_seq - len(self._entries)))
        return islice(self._entries, skip, None)

    def statistics(self, seq: int) -> dict[str, Any]:
        """Counts and rates over the entries after `seq`; rates are over requests to ESI only."""
        entries = list(self.since(seq))
        arrivals = sorted(entry.at for entry in entries if entry.route in ESI_ROUTES)
        statuses = Counter((entry.route, entry.status) for entry in entries)
        details = Counter(
            entry.killmail_id
            for entry in entries
            if entry.route == "killmail" and entry.status == 200 and entry.fault is None
        )
        counts: dict[str, dict[str, int]] = {}
        for (route, status), count in sorted(statuses.items()):
            counts.setdefault(route, {})[str(status)] = count
        return {
            "last_seq": self._last_seq,
            "requests": len(entries),
            "esi_requests": len(arrivals),
            "counts": counts,
            "max_in_one_second": most_in_one_second(arrivals),
            "mean_rate": _mean_rate(arrivals),
            "details_ok_by_killmail_max": max(details.values(), default=0),
            "repeated_details": sum(1 for count in details.values() if count > 1),
            "count_429": sum(1 for entry in entries if entry.status == 429),
            "count_420": sum(1 for entry in entries if entry.status == 420),
        }


def most_in_one_second(arrivals: Iterable[float]) -> int:
    """The most arrivals in any half-open second; `arrivals` are epoch seconds in order."""
    window: deque[float] = deque()
    most = 0
    for at in arrivals:
        window.append(at)
        while at - window[0] >= 1.0:
            window.popleft()
        most = max(most, len(window))
    return most


def _mean_rate(arrivals: list[float]) -> float:
    if len(arrivals) < 2 or arrivals[-1] <= arrivals[0]:
        return 0.0
    return (len(arrivals) - 1) / (arrivals[-1] - arrivals[0])
