"""What an answer says: its JSON within bounds, its freshness, and which error a status is.

Pure but for the clock that stands in for a missing Date header. The invariant: nothing here raises anything but
EsiError's family and MalformedError, and no text holds anything that was in an answer's values.
Rules: https://developers.eveonline.com/docs/services/esi/ (rate limiting, best practices).
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from esi.errors import (
    EsiDowntime,
    EsiError,
    EsiErrorLimited,
    EsiForbidden,
    EsiInvalidHash,
    EsiNotFound,
    EsiRateLimited,
    EsiStatus,
    EsiUnauthorized,
)
from esi.rate_headers import parse_rate_headers
from esi.rate_limit import LONGEST_ERROR_LIMIT_SECONDS
from esi.transport import Answer

#: Ids and quantities are signed 64-bit (ESI's OpenAPI: `format: int64`).
INT64_MAX = 2**63 - 1
#: Seconds. A longer freshness is cut to it: no list route caches for more than 5 minutes (OpenAPI).
MAX_FRESH_FOR = 3600.0
#: Seconds of the legacy error window, for a 420 without X-ESI-Error-Limit-Reset (ESI docs: rate limiting).
ERROR_WINDOW = 60.0
#: Characters of an error's body looked at.
ERROR_TEXT = 2000

_DOWNTIME_STATUSES = frozenset({502, 503, 504})
#: Said by ESI when the game server is away, whatever the status (zKillboard, esi-issues #640, #797).
_DOWNTIME_WORDS = ("contacting tranquility", "temporarily unavailable", "waiting on backend", "maintenance mode")
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,10})(?:$|[,\s])", re.IGNORECASE)


class MalformedError(ValueError):
    """A body is not what the route promises. The text names the field and never shows its value."""


def decode(body: bytes, *, lenient: bool = False) -> Any:
    """JSON within bounds: integers are signed 64-bit, numbers finite, nesting what the parser bears.

    `lenient`: a number out of bounds is None in its place, for bodies whose entries are checked one by one.
    Raises MalformedError.
    """
    reason = "it is not valid JSON"
    parse: tuple[Callable[[str], Any], ...] = (_int64, _finite, _no_constant)
    whole, fraction, constant = map(_or_none, parse) if lenient else parse
    try:
        return json.loads(body, parse_int=whole, parse_float=fraction, parse_constant=constant)
    except MalformedError as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError:  # JSONDecodeError carries the whole document, UnicodeDecodeError the bytes: neither goes on
        if is_html(body):
            reason = "it is an HTML page"
    raise MalformedError(reason)


def is_html(body: bytes) -> bool:
    """Whether a body looks like the page of a load balancer."""
    return body.lstrip()[:1] == b"<"


def integer(value: Any, field: str, *, least: int = 1, most: int = INT64_MAX) -> int:
    """`value` if it is an integer (a bool is none) from `least` to `most`; raises MalformedError naming `field`."""
    if type(value) is not int:
        raise MalformedError(f"{field} is not an integer")
    if not least <= value <= most:
        raise MalformedError(f"{field} is out of range")
    return value


def text(value: Any, field: str, *, most: int) -> str:
    """`value` if it is 1 to `most` characters of text, cleaned; raises MalformedError naming `field`.

    Control characters and lone surrogates become U+FFFD: PostgreSQL stores no NUL, UTF-8 has no surrogates.
    """
    if type(value) is not str:
        raise MalformedError(f"{field} is not text")
    if not 1 <= len(value) <= most:
        raise MalformedError(f"{field} is empty or longer than {most} characters")
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


_UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def fresh_for(headers: Mapping[str, str]) -> float:
    """Seconds until the same request may be made again: max-age first, else Expires − Date, else 0.

    ESI moves routes to caches whose Expires means nothing, hence the order (CCP blog, 2026-01-27).
    """
    if match := _MAX_AGE.search(headers.get("Cache-Control", "")):
        seconds = float(match[1])
    else:
        expires, date = _timestamp(headers.get("Expires")), _timestamp(headers.get("Date"))
        seconds = 0.0 if expires is None else expires - (time.time() if date is None else date)
    return min(max(seconds, 0.0), MAX_FRESH_FOR)


def error_text(answer: Answer, field: str = "error") -> str:
    """A text field of an error's body, else "". For comparing; what another server wrote is not for our texts."""
    try:
        body = decode(answer.body)
    except MalformedError:
        return ""
    said = body.get(field) if isinstance(body, dict) else None
    return said[:ERROR_TEXT] if isinstance(said, str) else ""


def error_of(answer: Answer, what: str) -> EsiError:
    """The error that a status other than 200 is. `what` says what was asked for, without a hash or a URL."""
    status, said = answer.status, error_text(answer).lower()
    rates = parse_rate_headers(answer.headers)
    wait = rates.retry_after
    if status == 420:
        wait = next((seconds for seconds in (rates.error_reset, wait) if seconds is not None), ERROR_WINDOW)
        wait = min(wait, LONGEST_ERROR_LIMIT_SECONDS)
        return EsiErrorLimited(f"{what}: error limit reached (420)", retry_after=wait, status=420)
    if status == 429:
        return EsiRateLimited(f"{what}: rate limited (429)", retry_after=wait, bare=not rates.of_bucket)
    if _is_downtime(answer, said):
        return EsiDowntime(f"{what}: ESI is down ({status})", retry_after=wait, status=status)
    if status == 401:
        return EsiUnauthorized(f"{what}: the access token is not accepted (401)", status=401)
    if status == 403:
        missing = "scope" in said
        why = "ESI says that the access token lacks the scope" if missing else "not allowed"
        return EsiForbidden(f"{what}: {why} (403)", missing_scope=missing)
    if status == 404:
        return EsiNotFound(f"{what}: not found (404)", retry_after=wait, status=404)
    if status == 422:
        return EsiInvalidHash(f"{what}: ESI does not know this id with this hash (422)", status=422)
    if 300 <= status < 400:
        return EsiStatus(f"{what}: answered with a redirect ({status}); check ESI_URL", status=status)
    return EsiStatus(f"{what}: unexpected status {status}", retry_after=wait, status=status)


def _is_downtime(answer: Answer, said: str) -> bool:
    """502 to 504, any 5xx that is the load balancer's page, and any error in the words of a maintenance."""
    if answer.status in _DOWNTIME_STATUSES:
        return True
    if answer.status >= 500 and is_html(answer.body):
        return True
    return answer.status >= 400 and any(words in said for words in _DOWNTIME_WORDS)


def _timestamp(value: str | None) -> float | None:
    """An HTTP date as seconds since 1970; None when it is absent or none."""
    try:
        moment = parsedate_to_datetime(value or "")
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """`parse`, with None for what it refuses."""

    def parse_or_none(digits: str) -> Any:
        try:
            return parse(digits)
        except MalformedError:
            return None

    return parse_or_none


def _int64(digits: str) -> int:
    if len(digits) > 20 or not -INT64_MAX - 1 <= (number := int(digits)) <= INT64_MAX:
        raise MalformedError("it holds an integer of more than 64 bits")
    return number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise MalformedError("it holds a number that is not finite")
    return number


def _no_constant(_name: str) -> NoReturn:
    raise MalformedError("it holds a number that is not finite")
