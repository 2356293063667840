"""What ESI's answers say about its limits, read so that no header can do harm.

Pure. The invariant: a value that exists is within the bounds written here; a header that is missing, malformed or out
of bounds is None, as if it had not been sent. What follows from the values is decided in `permit.py`.
Source: ESI docs, "Rate limiting" and "Best practices" (https://developers.eveonline.com/docs/services/esi/).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime

#: Tokens in a bucket, and seconds of its window, that are believed. ESI's largest are a few thousand in 15 minutes.
MAX_TOKENS = 10_000_000
MAX_WINDOW_SECONDS = 86_400
#: Seconds that a header may close a road for. What ESI sends is at most its longest window, 15 minutes.
MAX_WAIT_SECONDS = 3_600.0

_LIMIT = re.compile(r"(\d{1,9})/(\d{1,9}(?:\.\d{1,9})?)([smh])", re.ASCII)
_GROUP = re.compile(r"[0-9A-Za-z_.-]{1,64}", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """The limits' headers of one answer. Tokens are whole, times seconds from the answer on."""

    allowance: int | None = None  # X-Ratelimit-Limit: `3600/15m` is 3600 tokens …
    window_seconds: int | None = None  # … in 900 seconds; both or neither are None
    remaining: int | None = None  # X-Ratelimit-Remaining
    retry_after: float | None = None  # Retry-After; as a date, reckoned from the answer's own Date
    error_remain: int | None = None  # X-ESI-Error-Limit-Remain
    error_reset: float | None = None  # X-ESI-Error-Limit-Reset
    group: str | None = None  # X-Ratelimit-Group, in lower case

    @property
    def of_bucket(self) -> bool:
        """Whether a token bucket answered. A 429 of the limiter inside the game server has none of its headers."""
        return self.allowance is not None or self.remaining is not None

    def for_group(self, name: str) -> RateHeaders:
        """Without what is said of a bucket, if that is another group's. An answer that names no group speaks of ours.

        A 429 is then one of which nobody knows what it is for, and Retry-After holds.
        """
        if self.bucket_of_another(name):
            return replace(self, allowance=None, window_seconds=None, remaining=None)
        return self

    def bucket_of_another(self, name: str) -> bool:
        """Whether it speaks of another group than this."""
        return self.group is not None and self.group != name


def parse_rate_headers(headers: Mapping[str, str]) -> RateHeaders:
    """The headers that speak of limits; names in any case. Never raises."""
    found = {name.lower(): value.strip() for name, value in headers.items() if name.lower() in _NAMES}
    allowance, window_seconds = _limit(found.get("x-ratelimit-limit", ""))
    return RateHeaders(
        allowance=allowance,
        window_seconds=window_seconds,
        remaining=_tokens(found.get("x-ratelimit-remaining", "")),
        retry_after=_wait(found.get("retry-after", ""), found.get("date", "")),
        error_remain=_tokens(found.get("x-esi-error-limit-remain", "")),
        error_reset=_seconds(found.get("x-esi-error-limit-reset", "")),
        group=_group(found.get("x-ratelimit-group", "")),
    )


_NAMES = frozenset(
    {
        "x-ratelimit-group",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "retry-after",
        "date",
        "x-esi-error-limit-remain",
        "x-esi-error-limit-reset",
    }
)


def _group(text: str) -> str | None:
    return text.lower() if _GROUP.fullmatch(text) else None


def _limit(text: str) -> tuple[int, int] | tuple[None, None]:
    found = _LIMIT.fullmatch(text)
    if found is None:
        return None, None
    allowance = int(found[1])
    # A window of a fraction of a second more is on the safe side.
    window_seconds = math.ceil(float(found[2]) * _UNIT_SECONDS[found[3]])
    if not (1 <= allowance <= MAX_TOKENS and 1 <= window_seconds <= MAX_WINDOW_SECONDS):
        return None, None
    return allowance, window_seconds


def _tokens(text: str) -> int | None:
    return int(text) if text.isdecimal() and _NUMBER.fullmatch(text) else None


def _wait(text: str, answered: str) -> float | None:
    """A number of seconds, or a date (RFC 9110); a date that no Date stands beside says nothing without a clock."""
    if (seconds := _seconds(text)) is not None:
        return seconds
    try:
        wait = (parsedate_to_datetime(text) - parsedate_to_datetime(answered)).total_seconds()
    except (TypeError, ValueError, OverflowError):  # no date, or one with a time zone and one without
        return None
    return min(wait, MAX_WAIT_SECONDS) if wait >= 0 else None


def _seconds(text: str) -> float | None:
    """Bounded to MAX_WAIT_SECONDS: a longer wait is asked for again when that has passed."""
    return min(float(text), MAX_WAIT_SECONDS) if _NUMBER.fullmatch(text) else None
