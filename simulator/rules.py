"""ESI's two limiters: token buckets over a floating window, and the legacy error limit.

Pure bookkeeping with `now` passed in (epoch seconds). What is spent in any window never exceeds the limit:
a request whose cost no longer fits is refused, and a refusal itself is free. Who spends what, and on which
route, is decided in `esi_gate.py`. Source of the numbers: ESI docs, rate limiting.
"""

import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_ADVERTISED: Final = re.compile(r"(\d+)/(\d+(?:\.\d+)?)([smh])")
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}


def cost_of(status: int) -> int:
    """Tokens an answer costs: 2 for 2xx, 1 for 3xx, 5 for 4xx, 0 for 5xx and for being limited (420, 429)."""
    if status in (420, 429):
        return 0
    return {2: 2, 3: 1, 4: 5}.get(status // 100, 0)


@dataclass(frozen=True)
class Limit:
    """So many tokens in each window of so many seconds, with the text ESI advertises it by."""

    tokens: int
    seconds: float
    text: str

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """Read `3600/15m`, `240/1m`, `30/20s`, `1/2h`. Raises ValueError for anything else."""
        found = _ADVERTISED.fullmatch(text.strip())
        if found is None or float(found[2]) <= 0:
            raise ValueError(f"not a limit like 3600/15m: {text!r}")
        return cls(int(found[1]), float(found[2]) * _UNIT_SECONDS[found[3]], text.strip())


@dataclass
class FloatingWindow:
    """What one user spent of one group; each cost returns exactly one window after it was spent."""

    _spent: deque[tuple[float, int]] = field(default_factory=deque)
    _sum: int = 0
    #: All tokens ever spent here, for the statistics.
    total: int = 0

    def used(self, limit: Limit, now: float) -> int:
        """Tokens spent in the window that ends now."""
        while self._spent and self._spent[0][0] + limit.seconds <= now:
            self._sum -= self._spent.popleft()[1]
        return self._sum

    def remaining(self, limit: Limit, now: float) -> int:
        """Tokens left now; 0 after a limit was lowered below what is spent."""
        return max(0, limit.tokens - self.used(limit, now))

    def spend(self, cost: int, limit: Limit, now: float) -> bool:
        """Spend `cost` if it fits into the window; otherwise spend nothing and return False."""
        if cost > self.remaining(limit, now):
            return False
        if cost:
            self._spent.append((now, cost))
            self._sum += cost
            self.total += cost
        return True

    def retry_after(self, cost: int, limit: Limit, now: float) -> int:
        """Whole seconds until `cost` tokens will be free, at least 1; a full window if it can never fit."""
        excess = self.used(limit, now) + cost - limit.tokens
        for spent_at, spent in self._spent:
            excess -= spent
            if excess <= 0:
                return max(1, math.ceil(spent_at + limit.seconds - now))
        return max(1, math.ceil(limit.seconds))


@dataclass
class ErrorLimit:
    """The fixed window of the legacy limit: opened by the first request after the last one ended."""

    _opened_at: float = -math.inf
    _errors: int = 0

    def _roll(self, limit: Limit, now: float) -> None:
        if now >= self._opened_at + limit.seconds:
            self._opened_at, self._errors = now, 0

    def note_error(self, limit: Limit, now: float) -> None:
        """Count one answer that was neither 2xx nor 3xx."""
        self._roll(limit, now)
        self._errors += 1

    def remaining(self, limit: Limit, now: float) -> int:
        """Errors still allowed in this window; at 0 every route answers 420."""
        self._roll(limit, now)
        return max(0, limit.tokens - self._errors)

    def reset_in(self, limit: Limit, now: float) -> int:
        """Whole seconds until the window ends, at least 1."""
        self._roll(limit, now)
        return max(1, math.ceil(self._opened_at + limit.seconds - now))
