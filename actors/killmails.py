"""`fetch_killmail`: one killmail, once it is claimed and its slot has come (actors/middleware.py)."""

from __future__ import annotations

import logging

import dramatiq

import ledger
import runtime
from actors.dispatching import dispatch_now, wake_for
from actors.expired import KILLMAIL_MAX_AGE
from actors.middleware import FetchClaims, Held
from actors.queues import KILLMAILS, SECOND
from actors.syncs import finish_if_complete
from esi.client import UnusableHash
from esi.errors import EsiDowntime, EsiError, EsiErrorLimited, EsiInvalidHash, EsiRateLimited, EsiStatus, EsiTransport
from esi.rate_limit import KILLMAIL
from events import KillmailStored, SyncChanged, publish
from killmails import MalformedKillmail, WrongBody, hash_matches, parse_killmail
from ledger.refusals import REFUSALS_ALLOWED

logger = logging.getLogger(__name__)

#: ESI answers 422 to right pairs under load (zKillboard issue 210): only so many refusals in a row are believed. With
#: the waits between them (`FETCH_BACKOFF`) that takes two days and more; the syncs wait for the first two only.
INVALID_HASH_TRIES = 8

#: Shorter than the ledger's lease of 60 s, longer than any request (connect 3 s, read 15 s).
TIME_LIMIT_MS = 45_000


@dramatiq.actor(
    queue_name=KILLMAILS,
    priority=SECOND,
    max_retries=0,  # the ledger alone retries: it knows what a failure was, and others see it there
    time_limit=TIME_LIMIT_MS,
    max_age=KILLMAIL_MAX_AGE,
    rate_limit_group=KILLMAIL,
)
def fetch_killmail(killmail_id: int) -> None:
    """Fetch, parse and store what this thread holds the claim of."""
    held = _claims().held()
    claim = held.claim
    try:
        body = runtime.esi().killmail(claim.killmail_id, claim.killmail_hash, held.permit)
        killmail = parse_killmail(body)
    except UnusableHash as error:
        # As rejected it is taken up again with the hash that ESI lists.
        logger.warning("%s; it waits for the next reading of a list that holds it", error)
        finish_if_complete(ledger.reject(claim, str(error)))
        return
    except (EsiError, MalformedKillmail) as error:
        _take_failure(held, error)
        return
    if not hash_matches(killmail, claim.killmail_hash):
        logger.warning("killmail %s: the body does not match the hash it was listed with", killmail_id)
        if ledger.doubt(claim, killmail):
            _take_failure(held, WrongBody())
            return
    settled = ledger.settle(claim, killmail)
    if settled.stored:
        publish(KillmailStored(killmail_id))
        finish_if_complete(settled.sync_ids)


def _take_failure(held: Held, error: EsiError | MalformedKillmail) -> None:
    killmail_id = held.claim.killmail_id
    asks_everyone = _asks_everyone(held, error)
    if asks_everyone or _fell_to_downtime(held, error):
        # This killmail has done nothing wrong. The dispatcher sees until when.
        (ledger.release_behind if asks_everyone else ledger.release)(held.claim)
        dispatch_now()
        return
    logger.info("killmail %s failed (%s of its tries): %s", killmail_id, held.claim.attempts + 1, error)
    refused = isinstance(error, EsiStatus) and error.status is not None and 400 <= error.status < 500
    if isinstance(error, EsiInvalidHash):
        ledger.try_other_hash(held.claim)
    if isinstance(error, EsiInvalidHash) and held.claim.refusals + 1 >= INVALID_HASH_TRIES:
        finish_if_complete(ledger.reject(held.claim, str(error)))
    else:
        asked = error.retry_after if isinstance(error, EsiRateLimited | EsiErrorLimited) else None
        finish_if_complete(ledger.defer(held.claim, str(error), refused=refused, retry_after=asked))
        # Where other killmails of a sync can be fetched, what comes of those is told, and this one with it.
        for sync_id in ledger.waiting_for_retries(killmail_id):
            publish(SyncChanged(sync_id))
        if refused:
            _count_refusal(killmail_id)
        if held.permit.is_probe:
            dispatch_now()  # sends nothing while the road is closed, and plans for the next probe
        else:
            wake_for(ledger.next_due())


def _count_refusal(killmail_id: int) -> None:
    allowed = 1 if runtime.limiter().is_short_of_errors() else REFUSALS_ALLOWED
    for put in ledger.count_refusal(killmail_id, allowed=allowed):
        logger.warning(
            "sync %s: ESI refused %s or more of its killmails within a minute; its other %s go behind all other syncs'",
            put.sync_id, allowed, put.killmails,
        )  # fmt: skip
        publish(SyncChanged(put.sync_id))


def _asks_everyone(held: Held, error: EsiError | MalformedKillmail) -> bool:
    """Whether ESI asks all requests to wait. A 429 that does not come from the bucket may be this killmail's own, and
    so may what its pilot alone gets again and again: it spends an attempt and waits as long as ESI said, and the others
    go on (`esi/permit.py`)."""
    limited = isinstance(error, EsiErrorLimited) or (isinstance(error, EsiRateLimited) and not error.bare)
    return limited and not held.permit.own_refusal


def _fell_to_downtime(held: Held, error: EsiError | MalformedKillmail) -> bool:
    """Whether the road is closed for failures like this one, and for others' than this.

    Where `/status` has just answered, a probe's failure alone keeps the road closed, so that its killmail pays for it.
    Given back for nothing, one that always fails would be the next probe again, and close ESI to everybody for ever.
    """
    return isinstance(error, EsiDowntime | EsiTransport) and not held.permit.is_vouched and runtime.limiter().is_down()


def _claims() -> FetchClaims:
    return next(m for m in dramatiq.get_broker().middleware if isinstance(m, FetchClaims))
