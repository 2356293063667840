"""`sync_user`: read one user's killmail list into the ledger, page by page."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import dramatiq
from peewee import DoesNotExist

import ledger
import runtime
import settings
import tokens
from actors.dispatching import dispatch_now
from actors.downtime import ask_if_due
from actors.expired import SYNC_MAX_AGE
from actors.list_failures import sentence
from actors.middleware import discard_connection, stopping
from actors.permits import permit_for
from actors.queues import FIRST, SYNCS
from actors.sync_dispatching import wake_syncs_for
from actors.syncs import finish_if_complete
from database import UNAVAILABLE_ERRORS, from_epoch, keep_connected, utcnow
from esi import rate_store, sso_gate
from esi.client import NotModified, RecentPage
from esi.errors import (
    EsiDowntime,
    EsiError,
    EsiErrorLimited,
    EsiForbidden,
    EsiRateLimited,
    EsiTransport,
    EsiUnauthorized,
)
from esi.limiter import Closed, RequestPermit
from esi.rate_limit import CHAR_KILLMAIL, ERRORS, Doubt
from esi.roads import DOWNTIME, ERROR_LIMIT
from events import SyncChanged, SyncFinished, publish
from ledger.reading import Page, Reading, etag_is_trusted
from ledger.rules import ESI_ASKS_TO_WAIT, INTERACTIVE_PRIORITY, LIST_BACKOFF, LOGIN_SERVICE_BACKOFF, backoff
from models import User

logger = logging.getLogger(__name__)

#: What keeps the lists of all pilots back: gates while they are closed, and the ceiling while other requests go first.
GATES = frozenset((DOWNTIME, ERROR_LIMIT, ERRORS.name, CHAR_KILLMAIL.name, rate_store.SLOTS))
#: What a sync waits for after a database error.
NO_DATABASE = "the database did not answer; trying again"
#: Positions of malformed entries in one log line.
POSITIONS = 10


@dramatiq.actor(
    queue_name=SYNCS,
    priority=FIRST,
    max_retries=0,  # the sync's lease and its own back-off retry it
    time_limit=15 * 60_000,  # fifty pages at ESI's slowest; each page renews the lease
    max_age=SYNC_MAX_AGE,
)
def sync_user(sync_id: int) -> None:
    """Claim the sync if no other worker holds it, and read its list as far as it has to be read."""
    reader: ListReader | None = None
    try:
        sync = ledger.claim_sync(sync_id)
        if sync is not None:
            reader = ListReader(sync)
            _read_list(reader)
    except DoesNotExist:
        logger.info("sync %s: its user was unlinked in the meantime; nothing is left to do", sync_id)
    except UNAVAILABLE_ERRORS as error:
        # Also one raised while another failure was handled. The reader has the newest lease: each page renews it.
        _take_database_error(sync_id, None if reader is None else reader.sync, error)


def _read_list(reader: ListReader) -> None:
    """Read, and take every failure that a list is known to have. Raises UNAVAILABLE_ERRORS."""
    sync_id = reader.sync.sync_id
    publish(SyncChanged(sync_id))
    try:
        reader.read()
    except _Stopping:
        _wait(reader.sync, utcnow(), "the worker that read it stops; another one goes on")
    except Closed as closed:
        if _wait_at_gate(reader.sync, closed):
            return
        _wait(reader.sync, from_epoch(closed.until), closed.reason)
    except tokens.NeedsLogin as error:
        _fail(reader.sync, str(error))
    except tokens.TokenUnavailable as error:
        if _wait_at_login_service(reader.sync, error):
            return
        _take_no_token(reader.sync, error)
    except tokens.UndecryptableToken as error:
        _fail(reader.sync, str(error))
    except EsiError as error:
        _take_failure(reader.sync, error, reader.permit)
    publish(SyncChanged(sync_id))


class _Stopping(Exception):
    """The worker is told to stop: another one reads on."""


class ListReader:
    """One reading of a user's list. `sync` is always the newest lease. Asks the database for nothing before `read`."""

    user: User

    def __init__(self, sync: ledger.ClaimedSync) -> None:
        self.sync = sync
        self._unread: User | None = None
        self.permit: RequestPermit | None = None
        # Met by this sync on the pages before, by whomever they were read: not counted twice when the list moves.
        self.seen: set[int] = set()
        # Of page 1, also where another worker read it.
        self.etag = sync.page_one_etag
        self.last_modified = sync.page_one_modified

    def read(self) -> None:
        """Read until the end, or until a page that is this pilot's own. Raises what client, tokens and limiter do."""
        self.user = self._unread = User.get_by_id(self.sync.user_id)
        self.seen = ledger.links_of(self.sync)
        self._respect_cache()
        while True:
            page = self._fetch_page()
            if isinstance(page, NotModified):
                return self._end_unchanged(page)
            added = self._add(page, self._compare(page))
            if added is None:
                logger.warning("sync %s is in other hands now", self.sync.sync_id)
                return None
            if not added.written:
                # Back to page 1, which was read a moment ago: this reading's own answer is in ESI's cache.
                self.user = User.get_by_id(self.sync.user_id)
                self._respect_cache()
                continue
            dispatch_now()
            publish(SyncChanged(self.sync.sync_id))
            if self.sync.reading.ended or self._is_known(page, added):
                return self._end(complete=True)
            if self.sync.page > settings.current().sync_max_pages:
                if self.sync.has_promised_pages:  # one more look would have been one page too many
                    return self._end(complete=True)
                logger.warning("sync %s: list cut after SYNC_MAX_PAGES pages", self.sync.sync_id)
                return self._end(complete=False)
            if stopping():
                raise _Stopping

    def _respect_cache(self) -> None:
        """ESI may ban who asks again before its cache expires; what it would answer is known anyway."""
        fresh_until = self.user.list_fresh_until
        if self.sync.page == 1 and fresh_until is not None and fresh_until > utcnow():
            raise Closed(
                fresh_until.replace(tzinfo=UTC).timestamp(), "ESI's copy of your killmail list is renewed then", "list"
            )

    def _fetch_page(self) -> RecentPage | NotModified:
        access_token = self._access_token()
        background = self.sync.priority < INTERACTIVE_PRIORITY
        character_id = self.user.character_id
        conditional = self.sync.page == 1 and not self.sync.full and self.user.last_sync_complete
        if conditional and not etag_is_trusted(self.user.list_read_at, self.user.list_changed_at, utcnow()):
            conditional = False
        etag = self.user.list_etag if conditional else None
        # One reader a character: nobody spends from this bucket while the answer is on its way.
        self.permit = None  # of this request, once there is one
        doubt = Doubt.SOME if self.sync.attempts else Doubt.NONE
        self.permit = permit_for(
            CHAR_KILLMAIL, str(character_id), background=background, conditional=etag is not None, doubt=doubt
        )
        return runtime.esi().recent_killmails(character_id, access_token, self.sync.page, self.permit, etag)

    def _access_token(self) -> str:
        """The row that was read a moment ago will do for the first page; the others may be minutes apart."""
        row, self._unread = self._unread, None
        interactive = self.sync.priority >= INTERACTIVE_PRIORITY
        return tokens.access_token(self.user.id, runtime.sso(), runtime.cipher(), row=row, interactive=interactive)

    def _add(self, page: RecentPage, reading: Reading) -> ledger.PageAdded | None:
        references = [(reference.killmail_id, reference.killmail_hash) for reference in page.references]
        added = ledger.add_page(
            self.sync, references, reading=reading, etag=page.etag, modified=page.last_modified,
            fresh_for=page.fresh_for, seen=self.seen,
            other_hashes={other.killmail_id: other.killmail_hash for other in page.other_hashes},
        )  # fmt: skip
        if added is not None:
            self.sync = added.sync
        return added

    def _compare(self, page: RecentPage) -> Reading:
        """The reading with this page. ESI docs, pagination: Last-Modified is the same on all pages of one state."""
        number = self.sync.page
        if number == 1:
            self.etag, self.last_modified = page.etag, page.last_modified
        elif self.last_modified is None:  # ESI did not say
            self.last_modified = page.last_modified
        modified = page.last_modified != self.last_modified and not page.past_end
        if page.unreadable:
            logger.warning(
                "sync %s: page %s: left out %s malformed entries, at positions %s; the next sync reads the whole list",
                self.sync.sync_id, number, len(page.unreadable), ", ".join(map(str, page.unreadable[:POSITIONS])),
            )  # fmt: skip
        return self.sync.reading.with_page(
            Page(
                number,
                page.entries,
                page.pages,
                past_end=page.past_end,
                unreadable=len(page.unreadable),
                repeated=sum(reference.killmail_id in self.seen for reference in page.references),
                changed=modified,
                two_hashes=bool(page.other_hashes),
            )
        )

    def _is_known(self, page: RecentPage, added: ledger.PageAdded) -> bool:
        """Whether the rest of the list is known: a page was this pilot's own before, and so was all behind it then.

        That another pilot's sync stored the page says nothing about this pilot's list; nor does a page with killmails
        that do not name the pilot, which may be another's list; nor one of a list that is longer by X-Pages than all
        that was ever read of it, because X-Pages was too low then.
        """
        if self.sync.full or not self.user.last_sync_complete or not added.own or page.unreadable:
            return False
        reading = self.sync.reading
        return not reading.steady or ledger.has_links(self.user.id, reading.least_entries)

    def _end(self, *, complete: bool) -> None:
        if ledger.end_listing(self.sync, etag=self.etag, complete=complete):
            finish_if_complete([self.sync.sync_id])

    def _end_unchanged(self, page: NotModified) -> None:
        """304: everything listed is written down already. A pilot who asks in person retries what was given up."""
        if self.sync.priority < INTERACTIVE_PRIORITY:
            cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
            if ledger.finish_unchanged(self.sync, fresh_for=page.fresh_for, cooldown=cooldown):
                logger.info("sync %s of user %s: nothing new", self.sync.sync_id, self.user.id)
                publish(SyncFinished(self.sync.sync_id))
                return
        ended = ledger.end_listing(self.sync, etag=self.user.list_etag, fresh_for=page.fresh_for, complete=True)
        # As of now: a pilot may have joined while ESI was asked.
        priority = ledger.priority_of(self.sync.sync_id)
        if ended and priority >= INTERACTIVE_PRIORITY and ledger.retry_given_up(self.user.id, priority):
            dispatch_now()
        if ended:
            finish_if_complete([self.sync.sync_id])


def _wait(
    sync: ledger.ClaimedSync, until: datetime, reason: str, *, failed: bool = False, error: Exception | None = None
) -> None:
    """`reason` is for the pilot, `error` for the log."""
    if not ledger.wait_with_sync(sync, until, reason, failed=failed):
        return
    logger.info("sync %s waits until %s: %s", sync.sync_id, until.strftime("%H:%M:%S"), error or reason)
    wake_syncs_for(until)


def _take_database_error(sync_id: int, sync: ledger.ClaimedSync | None, error: Exception) -> None:
    """A deadlock, a lock that was waited for too long, or a cut connection: try again soon, if the database allows.

    If it does not, the tick sends the sync when its lease has ended, or its message counts as lost. `sync`: None where
    it was not claimed.
    """
    logger.warning("sync %s: the database did not answer (%s); trying again", sync_id, type(error).__name__)
    discard_connection()
    try:
        keep_connected()
        if sync is None:
            _put_off_unclaimed(sync_id, error)
        elif sync.attempts >= len(LIST_BACKOFF):
            _fail(sync, _failed_each_time(error))
        else:
            _wait(sync, utcnow() + backoff(LIST_BACKOFF, sync.attempts + 1), NO_DATABASE, failed=True)
        publish(SyncChanged(sync_id))
    except UNAVAILABLE_ERRORS:
        discard_connection()


def _put_off_unclaimed(sync_id: int, error: Exception) -> None:
    """The claim failed. Pending at once, the sync would be sent by the very message that failed, again and again."""
    attempts = ledger.attempts_of(sync_id)
    if attempts >= len(LIST_BACKOFF):
        cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
        if ledger.fail_sync(sync_id, _failed_each_time(error), unclaimed=True, cooldown=cooldown):
            logger.warning("sync %s failed: %s", sync_id, _failed_each_time(error))
            publish(SyncFinished(sync_id))
        return
    soon = utcnow() + backoff(LIST_BACKOFF, attempts + 1)
    if ledger.put_off_unclaimed(sync_id, soon, NO_DATABASE):
        wake_syncs_for(soon)


def _failed_each_time(error: Exception) -> str:
    return f"the database failed each time the list was read ({type(error).__name__})"


def _wait_at_gate(sync: ledger.ClaimedSync, closed: Closed) -> bool:
    """Wait for a gate that keeps all lists back; False where this list alone waits, for a bucket or ESI's cache.

    The gate has its own line in the log, and requests that go first need none. An event is only for a pilot who waits
    for this list.
    """
    if closed.road not in GATES:
        return False
    _wait_with_all(sync, from_epoch(closed.until), closed.reason)
    return True


def _wait_with_all(sync: ledger.ClaimedSync, until: datetime, reason: str) -> None:
    if ledger.wait_with_sync(sync, until, reason):
        wake_syncs_for(until)
        if sync.priority >= INTERACTIVE_PRIORITY:
            publish(SyncChanged(sync.sync_id))


def _wait_at_login_service(sync: ledger.ClaimedSync, error: tokens.TokenUnavailable) -> bool:
    """Wait for the login service's gate, which has its own line in the log, as for ESI's; False where it is open."""
    if error.own_fault or sso_gate.closure() is None:
        return False
    _wait_with_all(sync, utcnow() + timedelta(seconds=error.retry_after), str(error))
    return True


def _take_no_token(sync: ledger.ClaimedSync, error: tokens.TokenUnavailable) -> None:
    """Wait for the login service as long as it takes; a refresh that fails for this user alone spends an attempt."""
    asked = timedelta(seconds=error.retry_after)
    if not error.own_fault:
        _wait(sync, utcnow() + asked, str(error))
    elif sync.attempts >= len(LIST_BACKOFF):
        _fail(sync, str(error), longest=LOGIN_SERVICE_BACKOFF)
    else:
        wait = max(asked, backoff(LIST_BACKOFF, sync.attempts + 1))
        _wait(sync, utcnow() + wait, f"{error}; trying again", failed=True)


def _take_failure(sync: ledger.ClaimedSync, error: EsiError, permit: RequestPermit | None = None) -> None:
    """ESI's failure: wait where everybody has to, else try again with growing waits, and fail in the end.

    `permit`: of the request that failed, where it is known.
    """
    if _concerns_everybody(error, permit):
        said = ESI_ASKS_TO_WAIT if error.retry_after else sentence(error)
        _wait(sync, utcnow() + _asked_to_wait(sync, error), said, error=error)
        ask_if_due()
        return
    # ESI's own check of a token may be what fails, whatever it says: another token may be accepted, and only one that
    # lacks the scope proves that the login does.
    if isinstance(error, EsiUnauthorized | EsiForbidden):
        tokens.forget_access_token(sync.user_id)
    if sync.attempts >= len(LIST_BACKOFF):
        _fail(sync, f"The killmail list could not be read: {sentence(error)}", error)
    else:
        asked = timedelta(seconds=error.retry_after or 0.0)
        wait = max(asked, backoff(LIST_BACKOFF, sync.attempts + 1))
        _wait(sync, utcnow() + wait, f"{sentence(error)}; trying again", failed=True, error=error)


def _concerns_everybody(error: EsiError, permit: RequestPermit | None) -> bool:
    """Whether ESI has nothing against this list in particular.

    Its status alone does not tell, nor a Retry-After beside it: a list that always ends in 503, or in a 429 that is not
    the bucket's, while others are read, would wait for ever.
    """
    if isinstance(error, EsiRateLimited):
        return not error.bare
    if isinstance(error, EsiDowntime | EsiTransport):
        # Where `/status` has just answered, this list pays: else it would be every probe, and keep the others waiting.
        return not (permit is not None and permit.is_vouched) and runtime.limiter().is_down()
    return isinstance(error, EsiErrorLimited) and not (permit is not None and permit.own_refusal)


def _asked_to_wait(sync: ledger.ClaimedSync, error: EsiError) -> timedelta:
    """As long as ESI says; else as long as the road is closed; else as after any first failure."""
    if error.retry_after:
        return timedelta(seconds=error.retry_after)
    background = sync.priority < INTERACTIVE_PRIORITY
    owner = str(User.get_by_id(sync.user_id).character_id)
    road = runtime.limiter().allowance(CHAR_KILLMAIL, owner, background=background)
    if road.requests == 0 and road.reopens_at is not None:
        return max(timedelta(0), from_epoch(road.reopens_at) - utcnow())
    return backoff(LIST_BACKOFF, 1)


def _fail(
    sync: ledger.ClaimedSync, said: str, error: Exception | None = None, *, longest: timedelta | None = None
) -> None:
    """End the sync. `said` is for the pilot, `error` for the log; `longest`: the most to the user's next one."""
    cooldown = timedelta(minutes=settings.current().sync_cooldown_minutes)
    if ledger.fail_sync(sync.sync_id, said, lease=sync.lease, cooldown=cooldown, longest=longest):
        logger.warning("sync %s of user %s failed: %s", sync.sync_id, sync.user_id, error or said)
        publish(SyncFinished(sync.sync_id))
