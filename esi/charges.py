"""What the end of a request means for the bucket it was paid from.

Pure; `now` is passed in (seconds since the epoch). The invariant: what was reserved is corrected by what ESI charged,
upwards always, downwards only where ESI's rules say that it charged less; and an answer in the normal course (2xx, in
time, in accord with the estimate) changes nothing, so that it costs no write. Applying a change to the row is left to
`permit.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from esi.rate_headers import RateHeaders
from esi.rate_limit import Bucket, back_off, cost_of

#: Seconds to wait where a 429 does not say for how long: after the first, and at most after many in a row.
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 5.0, 60.0
#: Seconds added to what a header says: it is cut to whole seconds, and was true when it was written.
MARGIN_SECONDS = 1.0
#: Seconds by which an answer may seem to come before its request left without any clock having been set back.
SET_BACK_SECONDS = 1.0

#: Makes the bucket another one, at a moment: when its row is held. A clock may have been set since the request left.
Change = Callable[[Bucket, float], Bucket]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one request took. `bucket`: with the `cost` spent for the time `charge_at`. `decided_at`: when it was let
    go. `trial`: it finds out whether a bucket that was closed is open again."""

    bucket: Bucket
    cost: int
    decided_at: float
    charge_at: float
    trial: bool = False

    def is_late(self, now: float) -> bool:
        """Whether ESI may have charged it so late that it will have the tokens back after us.

        Where the clock has been set back since, nobody knows, and so it may.
        """
        return now > self.bucket.charged_by(self.charge_at) or now < self.decided_at - SET_BACK_SECONDS


def is_refusal(status: int, rates: RateHeaders) -> bool:
    """Whether the bucket itself was found empty (429), and no limiter inside the game server."""
    return status == 429 and rates.of_bucket


def after_answer(
    spent: Spent, status: int, rates: RateHeaders, now: float, *, per_owner: bool = False
) -> Change | None:
    """What an answer that is here `now` changes; None for nothing.

    `per_owner`: the bucket belongs to one owner. Then a 429 that is not the bucket's own closes it as well: that owner
    was asked to wait, and the other owners were not.
    """
    refused = is_refusal(status, rates)
    owner_refused = per_owner and status == 429 and not refused
    passed = spent.trial and not refused and not owner_refused and status < 500
    as_expected = cost_of(status) == spent.cost and not spent.is_late(now) and not _is_news(spent, rates)
    if as_expected and not (refused or passed or _is_alarming(spent, rates)):
        return None

    def change(bucket: Bucket, now: float) -> Bucket:
        bucket = _charged(bucket, spent, cost_of(status), now)
        if rates.allowance is not None and rates.window_seconds is not None:
            bucket = bucket.learn(rates.allowance, rates.window_seconds)
        if refused:
            # Its Remaining is not believed: it is nothing, and does not tell what Retry-After brings back.
            return bucket.close(now + (rates.retry_after or FIRST_BACK_OFF_SECONDS) + MARGIN_SECONDS)
        if owner_refused:
            return _close_for_owner(bucket, spent, rates.retry_after, now)
        if passed:
            bucket = bucket.open(spent.bucket.closed_until)
        if rates.remaining is not None and now - spent.decided_at <= bucket.grace_seconds:
            bucket = bucket.lower_to(now, rates.remaining, as_of=spent.decided_at)
        return bucket

    return change


def after_silence(spent: Spent, now: float, price: int) -> Change | None:
    """It was sent and not answered: ESI may have charged it, at any time until now, with the `price` of a success."""
    if price == spent.cost and not spent.is_late(now):
        return None
    return lambda bucket, now: _charged(bucket, spent, max(price, spent.cost), now)


def never_sent(spent: Spent) -> Change:
    """ESI charged nothing."""
    return lambda bucket, _now: bucket.refund(spent.charge_at, spent.cost)


def wait_after_refusals(retry_after: float | None, refusals: int) -> float:
    """Seconds to wait after a 429: as ESI says, otherwise longer with each one in a row before it."""
    growing = back_off(FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS, refusals)
    return (retry_after or growing) + MARGIN_SECONDS


def _close_for_owner(bucket: Bucket, spent: Spent, retry_after: float | None, now: float) -> Bucket:
    """Several requests that were on their way when the first was refused count as one refusal."""
    if bucket.closed_until > spent.bucket.closed_until:
        return bucket.close(now + (retry_after or 0.0))
    closed = bucket.close(now + wait_after_refusals(retry_after, bucket.refusals))
    return replace(closed, refusals=bucket.refusals + 1)


def _charged(bucket: Bucket, spent: Spent, cost: int, now: float) -> Bucket:
    if cost > spent.cost or spent.is_late(now):
        return bucket.refund(spent.charge_at, spent.cost).spend(now, cost)
    return bucket.refund(spent.charge_at, spent.cost - cost)


def _is_news(spent: Spent, rates: RateHeaders) -> bool:
    rule = (spent.bucket.allowance, spent.bucket.window_seconds)
    return rates.allowance is not None and (rates.allowance, rates.window_seconds) != rule


def _is_alarming(spent: Spent, rates: RateHeaders) -> bool:
    """Whether ESI may have less left than we think, so that the row is worth a look.

    While most of the allowance is left, a difference may be others' requests on their way, and does no harm.
    """
    if rates.remaining is None:
        return False
    allowance = spent.bucket.allowance
    slack = 0 if rates.remaining < allowance // 4 else allowance // 16
    return rates.remaining < spent.bucket.remaining(spent.decided_at) - slack
