"""ESI's bucket as ESI keeps it, and the time that a limiter's machine believes it is.

Exact where the limiter's is not: each cost returns one window after it was charged, to the microsecond. Rules:
../shared/esi/README.md, section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from email.utils import formatdate

#: Tokens that an answer costs; 429 and 5xx nothing.
COSTS = {200: 2, 304: 1, 404: 5, 422: 5, 429: 0, 500: 0, 502: 0}


@dataclass
class FakeTime:
    """Stands for the module `time`: true time passes, and the machine's clock may be set meanwhile."""

    true: float = 1_760_000_000.0
    wrong_by: float = 0.0

    def time(self) -> float:
        return self.true + self.wrong_by

    def monotonic(self) -> float:
        return self.true

    def sleep(self, seconds: float) -> None:
        self.true += seconds


@dataclass
class Charge:
    """A cost in the window. `forgiven`: seconds by which the machine's clock was set forward since: by so much earlier
    a limiter must take it for returned. `known`: it is one of ours, and the limiter could know it."""

    at: float
    cost: int
    known: bool
    forgiven: float = 0.0


@dataclass
class EsiBucket:
    """One bucket, with a floating window. Refuses what it cannot pay."""

    allowance: int
    window: int
    group: str = "killmail"
    charges: list[Charge] = field(default_factory=list)

    @property
    def rule(self) -> tuple[int, int]:
        return self.allowance, self.window

    def remaining(self, now: float) -> int:
        return self.allowance - sum(charge.cost for charge in self.charges if charge.at + self.window > now)

    def known_to_be_spent(self, now: float) -> int:
        """What the limiter has to count: ours, for a window by its own clock."""
        alive = (each for each in self.charges if each.known and each.at + self.window - each.forgiven > now)
        return sum(charge.cost for charge in alive)

    def charge(self, now: float, cost: int, *, known: bool = True) -> Charge:
        self.charges = [each for each in self.charges if each.at + self.window > now]
        self.charges.append(Charge(now, cost, known))
        return self.charges[-1]

    def changes(self, now: float, allowance: int, window: int, *, other_group: bool) -> None:
        """Another rule from now on; what has returned has. Another group is a bucket that only others have used."""
        self.charges = [each for each in self.charges if each.at + self.window > now]
        self.allowance, self.window = allowance, window
        if other_group:
            self.group += "-2"
            self.charges = []

    def headers(self, now: float, status: int, *, with_bucket: bool, wait: str | None) -> dict[str, str]:
        """`wait`: how Retry-After is written, if at all."""
        headers = {"Date": formatdate(now, usegmt=True)}
        if with_bucket:
            headers |= {
                "X-Ratelimit-Group": self.group,
                "X-Ratelimit-Limit": f"{self.allowance}/{self.window}s",
                "X-Ratelimit-Remaining": str(max(0, self.remaining(now))),
                "X-Ratelimit-Used": str(COSTS[status]),
            }
        if status == 429 and wait == "seconds":
            headers["Retry-After"] = str(self.retry_after(now))
        if status == 429 and wait == "date":
            headers["Retry-After"] = formatdate(math.floor(now) + self.retry_after(now), usegmt=True)
        return headers

    def retry_after(self, now: float) -> int:
        """Whole seconds until a success can be paid."""
        returns = sorted(charge.at + self.window for charge in self.charges)
        back = next((at for at in returns if self.remaining(at) >= min(2, self.allowance)), now)
        return max(1, math.ceil(back - now))
