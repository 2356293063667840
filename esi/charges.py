"""What the end of a request means for the bucket it was paid from.

Pure; `now` is passed in (seconds since the epoch). The invariant: what was reserved is corrected by what ESI charged,
upwards always, downwards only where ESI's rules say that it charged less; and an answer in the normal course (2xx, in
time, in accord with the estimate) changes nothing, so that it costs no write. Applying a change to the row is left to
`permit.py`.

One odd header does no harm either. A limit far from the known one is believed when CONFIRMATIONS answers in a row
state it; until then one request goes at a time, so that ESI's limit is hardly overdrawn if it has really changed. A
limit that may be wrong does not keep an empty bucket closed for its whole window: now and then a request tries it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from esi.rate_headers import MAX_WAIT_SECONDS, RateHeaders
from esi.rate_limit import Bucket, RateGroup, back_off, cost_of

#: Seconds to wait where a 429 does not say for how long: after the first, and at most after many in a row.
FIRST_BACK_OFF_SECONDS, LONGEST_BACK_OFF_SECONDS = 5.0, 60.0
#: Seconds added to what a header says: it is cut to whole seconds, and was true when it was written.
MARGIN_SECONDS = 1.0
#: Seconds by which an answer may seem to come before its request left without any clock having been set back.
SET_BACK_SECONDS = 1.0
#: Answers in a row that state a limit far from the known one, until it is believed.
CONFIRMATIONS = 3
#: Seconds between two requests that try a bucket which a stricter limit than the documented one has emptied; and once
#: ESI has refused such a request, which it does only where the limit is true.
TRIED_EVERY_SECONDS, PROVEN_TRIED_EVERY_SECONDS = 60, int(MAX_WAIT_SECONDS)

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

    def is_comparable(self, bucket: Bucket, now: float) -> bool:
        """Whether it is answered soon enough to compare what ESI has left with what we think."""
        return now - self.decided_at <= bucket.grace_seconds


def is_refusal(status: int, rates: RateHeaders) -> bool:
    """Whether the bucket itself was found empty (429), and no limiter inside the game server."""
    return status == 429 and rates.of_bucket


def after_answer(spent: Spent, status: int, rates: RateHeaders, now: float, group: RateGroup) -> Change | None:
    """What an answer that is here `now` changes; None for nothing. `rates`: what it says of this group's bucket.

    In a group with a bucket for each owner a 429 that is not the bucket's own closes it as well: that owner was asked
    to wait, and the other owners were not.
    """
    refused = is_refusal(status, rates)
    owner_refused = group.per_owner and status == 429 and not refused
    passed = spent.trial and not refused and not owner_refused and status < 500
    as_expected = cost_of(status) == spent.cost and not spent.is_late(now) and not _is_news(spent, rates)
    if as_expected and not (refused or passed or _is_alarming(spent, rates)):
        return None

    def change(bucket: Bucket, now: float) -> Bucket:
        bucket = _heard(_charged(bucket, spent, cost_of(status), now), rates, group)
        if refused:
            bucket = _close_refused(bucket, spent, rates, now)
        elif owner_refused:
            bucket = _close_for_owner(bucket, spent, rates.retry_after, now)
        elif passed:
            bucket = bucket.open(spent.bucket.closed_until)
        if rates.remaining is not None and not refused and not bucket.doubts and spent.is_comparable(bucket, now):
            bucket = bucket.lower_to(now, rates.remaining, as_of=spent.decided_at)
        if bucket.doubts:
            return bucket.close(now)  # on trial: the next request goes alone
        return bucket.hold_if_empty(now, group.cost)

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


def _heard(bucket: Bucket, rates: RateHeaders, group: RateGroup) -> Bucket:
    """With the limit that an answer states: a little less, and any more in the same time, is believed at once."""
    if rates.allowance is None or rates.window_seconds is None:
        return replace(bucket, doubts=0)
    if (rates.allowance, rates.window_seconds) == (bucket.allowance, bucket.window_seconds):
        return replace(bucket, doubts=0)
    is_far = rates.window_seconds != bucket.window_seconds or rates.allowance * 2 < bucket.allowance
    if is_far and bucket.doubts + 1 < CONFIRMATIONS:
        return replace(bucket, doubts=bucket.doubts + 1)
    is_stricter = rates.allowance < group.allowance or rates.window_seconds > group.window_seconds
    learned = bucket.learn(rates.allowance, rates.window_seconds)
    return replace(learned, doubts=0, tried_every=TRIED_EVERY_SECONDS if is_stricter else 0)


def _close_refused(bucket: Bucket, spent: Spent, rates: RateHeaders, now: float) -> Bucket:
    """Remaining is not believed: it is nothing, and does not tell what Retry-After brings back."""
    if spent.trial and bucket.tried_every and not bucket.doubts:
        bucket = replace(bucket, tried_every=PROVEN_TRIED_EVERY_SECONDS)
    return bucket.close(now + (rates.retry_after or FIRST_BACK_OFF_SECONDS) + MARGIN_SECONDS)


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
    """Whether it states another limit than was known, or whether the known one was in doubt."""
    rule = (spent.bucket.allowance, spent.bucket.window_seconds)
    return spent.bucket.doubts > 0 or (rates.allowance is not None and (rates.allowance, rates.window_seconds) != rule)


def _is_alarming(spent: Spent, rates: RateHeaders) -> bool:
    """Whether ESI may have less left than we think, so that the row is worth a look.

    While most of the allowance is left, a difference may be others' requests on their way, and does no harm.
    """
    if rates.remaining is None:
        return False
    allowance = spent.bucket.allowance
    slack = 0 if rates.remaining < allowance // 4 else allowance // 16
    return rates.remaining < spent.bucket.remaining(spent.decided_at) - slack
