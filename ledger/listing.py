"""Read a user's list into the ledger, page by page, under a lease.

The lease is a time (`claimed_until`) that changes with every page and doubles as a fencing token: a worker that was
thought dead finds another time in the row and writes nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from database import as_datetime, db, execute, insert_rows, lock_clause, placeholders, utcnow
from ledger.foreign_lists import distrust
from ledger.forgetting import forget_ended
from ledger.links import link, repeat_if_deleted
from ledger.reading import AGING_MARGIN, LISTED_FOR, NOTHING_READ, Reading, is_proven
from ledger.rules import (
    ATTEMPTS_BEFORE_DEFERRED,
    FAILED_SYNC_BACKOFF,
    INTERACTIVE_PRIORITY,
    LIST_LEASE,
    MAX_ERROR_LENGTH,
    backoff,
)
from models import Sync, SyncState, User

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimedSync:
    """A sync and the lease on it."""

    sync_id: int
    user_id: int
    trigger: str
    priority: int
    full: bool
    page: int  # the next to be read
    attempts: int
    lease: datetime
    page_one_etag: str | None = None
    page_one_modified: str | None = None
    wanted: int = 0  # killmails listed so far that are not stored: the place of the next one among them
    reading: Reading = NOTHING_READ  # what the pages before have in common
    foreign: int = 0  # entries read so far that do not name the pilot
    distrusted: bool = False  # the row says that the list moved, or was another's: settles notice that, too

    @property
    def has_promised_pages(self) -> bool:
        """Whether every page was read that X-Pages speaks of."""
        return self.reading.pages is not None and self.page > self.reading.pages


@dataclass(frozen=True, slots=True)
class PageAdded:
    """What a page brought, and the sync as it stands after it."""

    sync: ClaimedSync
    new: int
    known: int
    own: bool  # each killmail of the page is stored, and was linked to this user before
    written: bool  # false: the sync was sent back to page 1 meanwhile (a full sync was asked for)
    foreign: int = 0  # of the known: they are stored, and do not name the pilot


def claim_sync(sync_id: int) -> ClaimedSync | None:
    """Take a queued sync, or one whose worker is gone. None: it is done, in other hands, or told to wait."""
    now = utcnow()
    lease = now + LIST_LEASE
    with db.atomic():
        row = execute(
            """
            UPDATE syncs SET state = 'LISTING', claimed_until = ?, started_at = COALESCE(started_at, ?),
                             sent_at = NULL, waiting_until = NULL, waiting_for = NULL,
                             found = CASE WHEN next_page = 1 THEN 0 ELSE found END,
                             skipped = CASE WHEN next_page = 1 THEN 0 ELSE skipped END,
                             foreign_entries = CASE WHEN next_page = 1 THEN 0 ELSE foreign_entries END,
                             list_moved = CASE WHEN next_page = 1 THEN FALSE ELSE list_moved END
            WHERE id = ? AND (waiting_until IS NULL OR waiting_until <= ?)
              AND (state = 'QUEUED' OR (state = 'LISTING' AND (claimed_until IS NULL OR claimed_until < ?)))
            RETURNING user_id, trigger, priority, "full", next_page, attempts, started_at,
                      page_one_etag, page_one_modified, pages, largest_page, list_moved, unreadable_entries,
                      list_lacking, last_page
            """,
            (lease, now, sync_id, now, now),
        ).fetchone()
        if row is None:
            return None
        user_id, trigger, priority, full, page, attempts, started_at, etag, modified, *so_far = row
        if page == 1 and as_datetime(started_at) != now:
            # Taken up again from the start: what it waited for is counted, and waited for, anew.
            execute("DELETE FROM sync_items WHERE sync_id = ?", (sync_id,))
    pages, largest_page, moved, unreadable, lacking, last_page = so_far
    reading = Reading(pages, largest_page, bool(moved), unreadable, bool(lacking), last_page)
    if page == 1:
        reading = NOTHING_READ
    return ClaimedSync(
        sync_id, user_id, trigger, priority, bool(full), page, attempts, lease, etag, modified, reading=reading
    )


def priority_of(sync_id: int) -> int:
    """The priority of a sync as it is now; 0 where it is gone."""
    row = execute("SELECT priority FROM syncs WHERE id = ?", (sync_id,)).fetchone()
    return 0 if row is None else int(row[0])


def attempts_of(sync_id: int) -> int:
    """The listing failures in a row of a sync as it is now; 0 where it is gone."""
    row = execute("SELECT attempts FROM syncs WHERE id = ?", (sync_id,)).fetchone()
    return 0 if row is None else int(row[0])


def put_off_unclaimed(sync_id: int, until: datetime, reason: str) -> bool:
    """A sync that could not be claimed waits until `until`, and has spent an attempt; no message is out for it.

    False: it is done, in other hands, or told to wait.
    """
    rows = execute(
        """UPDATE syncs SET waiting_until = ?, waiting_for = ?, sent_at = NULL, attempts = attempts + 1
           WHERE id = ? AND state IN ('QUEUED', 'LISTING') AND claimed_until IS NULL AND waiting_until IS NULL""",
        (until, reason[:MAX_ERROR_LENGTH], sync_id),
    )
    return bool(rows.rowcount)


def links_of(sync: ClaimedSync) -> set[int]:
    """What this reading of the list has linked to its user so far, from page 1 on, by whomever it was read."""
    if sync.page == 1:
        return set()
    rows = execute(
        """SELECT k.killmail_id FROM user_killmails k JOIN syncs s ON s.id = ? AND s.user_id = k.user_id
           WHERE k.linked_at >= s.started_at""",
        (sync.sync_id,),
    ).fetchall()
    return {killmail_id for (killmail_id,) in rows}


def has_links(user_id: int, count: int) -> bool:
    """Whether so many killmails, or more, stand in the user's list by all that was read of it."""
    if count == 0:
        return True
    query = "SELECT 1 FROM user_killmails WHERE user_id = ? LIMIT 1 OFFSET ?"
    return execute(query, (user_id, count - 1)).fetchone() is not None


@repeat_if_deleted
def add_page(
    sync: ClaimedSync,
    references: Sequence[tuple[int, str]],
    *,
    reading: Reading,
    etag: str | None,
    modified: str | None = None,
    fresh_for: float = 0.0,
    seen: set[int],
    other_hashes: Mapping[int, str] | None = None,
) -> PageAdded | None:
    """Write down one page of the list: links, what is to be fetched, and the page to go on with, in one transaction.

    `etag` and `modified` are kept of page 1, and `reading` of all pages including this one, for the worker that reads
    on, should this one not.
    `fresh_for`: seconds for which ESI's cache answers this page as it is; asking for page 1 again before is pointless.
    `seen` holds the ids this reading of the list has met; those are not counted twice when the list moves under it.
    `other_hashes`: the second hash of an id that is listed with two.
    None: the lease is lost, and nothing was written.
    """
    with db.atomic():
        current = _locked_sync(sync)
        if current is None:
            return None
        if current.page != sync.page:
            # Sent back to page 1 (a full sync was asked for): what was counted is counted again.
            seen.clear()
            execute(
                "UPDATE syncs SET found = 0, skipped = 0, foreign_entries = 0, list_moved = FALSE WHERE id = ?",
                (sync.sync_id,),
            )
            execute("DELETE FROM sync_items WHERE sync_id = ?", (sync.sync_id,))
            return PageAdded(current, 0, 0, own=False, written=False)
        began = utcnow()
        hashes = dict(references)
        ids = list(hashes)
        linked, unknown, foreign = _write_down(current, hashes, other_hashes or {})
        fresh = [killmail_id for killmail_id in ids if killmail_id not in seen]
        fresh_foreign = foreign.intersection(fresh)
        found = len(fresh) - len(fresh_foreign)
        known = found - len(unknown.intersection(fresh))
        lease = utcnow() + LIST_LEASE
        execute(
            """
            UPDATE syncs SET next_page = ?, found = found + ?, skipped = skipped + ?, claimed_until = ?, attempts = 0,
                             pages = ?, largest_page = ?, list_moved = list_moved OR ?, unreadable_entries = ?,
                             list_lacking = ?, last_page = ?, foreign_entries = foreign_entries + ?,
                             page_one_etag = CASE WHEN ? = 1 THEN ? ELSE page_one_etag END,
                             page_one_modified = CASE WHEN ? = 1 THEN ? ELSE page_one_modified END,
                             started_at = CASE WHEN ? = 1 THEN ? ELSE started_at END
            WHERE id = ?
            """,
            (
                *(sync.page + 1, found, known, lease),
                *(reading.pages, reading.largest_page, reading.moved or bool(foreign), reading.unreadable),
                *(reading.lacking, reading.last_page, len(fresh_foreign)),
                *(sync.page, etag, sync.page, modified, sync.page, began),
                sync.sync_id,
            ),
        )
        if foreign:
            distrust([sync.user_id])
        if sync.page == 1:
            execute(
                """UPDATE users SET list_fresh_until = ?, list_read_at = ?,
                       list_changed_at = CASE WHEN ? > 0 THEN ? ELSE list_changed_at END WHERE id = ?""",
                (utcnow() + timedelta(seconds=fresh_for), began, linked, began, sync.user_id),
            )
    own = bool(ids) and not (linked or unknown or foreign) and len(fresh) == len(ids)
    seen.update(ids)
    after = ClaimedSync(
        sync.sync_id, sync.user_id, sync.trigger, current.priority, current.full, sync.page + 1, 0, lease,
        reading=reading,
    )  # fmt: skip
    new = len(unknown)
    return PageAdded(after, new, known=len(ids) - new, own=own, written=True, foreign=len(foreign))


def end_listing(sync: ClaimedSync, *, etag: str | None, complete: bool, fresh_for: float | None = None) -> bool:
    """LISTING -> FETCHING: the list was read as far as it had to be. False: the lease is lost.

    `complete` is false where SYNC_MAX_PAGES cut the list: then the next sync must not stop early, and the ETag must
    not skip it. The same holds where the reading is not steady: the list changed while it was read, or some entries
    could not be read; but nothing was cut. It holds where its end is not proven (`reading.is_proven`). And it holds
    where a killmail that does not name the pilot was noticed since the sync began, in this list or an earlier one. None
    of this is a failure: what was read is fetched and the sync finishes.
    `fresh_for` (seconds, see `add_page`) is for a list that was unchanged: no page of it was added.
    """
    now = utcnow()
    with db.atomic():
        current = _locked_sync(sync)
        if current is None:
            return False
        length = _length_of(sync) if complete and not current.distrusted else None
        whole = complete and sync.reading.steady and not current.distrusted and (length is None or length.proven)
        missing = _what_is_missing(sync.reading, length, complete=complete)
        execute(
            """UPDATE syncs SET state = 'FETCHING', claimed_until = NULL, error = ?, "full" = ?,
                                pages = COALESCE(pages, CASE WHEN next_page > 1 THEN next_page - 1 END) WHERE id = ?""",
            (missing, sync.full, sync.sync_id),
        )
        changes: dict[str, Any] = {"list_etag": etag if whole else None, "last_sync_complete": whole}
        if fresh_for is not None:
            changes["list_fresh_until"] = now + timedelta(seconds=fresh_for)
        if length is not None:
            changes |= {"list_entries": length.entries, "list_counted_at": now}
        if sync.full and complete and not current.foreign:
            changes["last_full_sync_at"] = now
        if current.full and not sync.full:
            # Asked for after the last page was read: this one was none, so the next one is.
            changes["full_requested"] = True
        User.update(**changes).where(User.id == sync.user_id).execute()
    if missing:
        log.info("sync %s: %s", sync.sync_id, missing)
    return True


@dataclass(frozen=True, slots=True)
class _Length:
    """How long a list is that was read from its start to its end, beside what it was before."""

    entries: int
    before: int | None
    proven: bool

    @property
    def shrank(self) -> bool:
        """Whether it lacks more than what has become too old for it."""
        return self.before is not None and not self.proven


def _length_of(sync: ClaimedSync) -> _Length | None:
    """None for a list that was not read to its end, and for one that changed in the meantime: that proves nothing."""
    if not sync.reading.steady or not (sync.reading.ended or sync.has_promised_pages):
        return None
    entries, before, counted_at = execute(
        """SELECT s.found, u.list_entries, u.list_counted_at FROM syncs s JOIN users u ON u.id = s.user_id
           WHERE s.id = ?""",
        (sync.sync_id,),
    ).fetchone()
    pages = sync.page - 1
    proven = is_proven(entries, pages, before, 0)
    if not proven and before is not None:
        proven = is_proven(entries, pages, before, _aged_out(sync.user_id, as_datetime(counted_at)))
    return _Length(entries, before, proven)


def _aged_out(user_id: int, counted_at: datetime) -> int:
    """How many of the user's stored killmails may have become too old for the list since it was counted."""
    row = execute(
        """SELECT COUNT(*) FROM user_killmails l JOIN killmails k ON k.killmail_id = l.killmail_id
           WHERE l.user_id = ? AND k.killmail_time BETWEEN ? AND ?""",
        (user_id, counted_at - LISTED_FOR - AGING_MARGIN, utcnow() - LISTED_FOR + AGING_MARGIN),
    ).fetchone()
    return int(row[0])


def _what_is_missing(reading: Reading, length: _Length | None, *, complete: bool) -> str | None:
    """What the sync's page tells the pilot of a list that was not read whole; None for one that was.

    That a new killmail moved the list while it was read is not worth a word: all that it held before was read.
    """
    parts = []
    if reading.lacking:
        parts.append("the list changed, or lacked a page, while it was read; the next sync reads all of it again")
    if length is not None and length.shrank:
        parts.append(
            f"the list was shorter than before ({length.entries:,} entries after {length.before:,});"
            " the next sync reads all of it again"
        )
    if reading.unreadable:
        entries = "1 entry" if reading.unreadable == 1 else f"{reading.unreadable} entries"
        parts.append(f"{entries} of the list could not be read; the next sync reads the whole list again")
    if not complete:
        parts.append("the list is longer than SYNC_MAX_PAGES allows; its end was not read")
    return "; ".join(parts) or None


def wait_with_sync(sync: ClaimedSync, until: datetime, reason: str, *, failed: bool = False) -> bool:
    """Hand the sync back until `until`, saying what for. `failed` counts the attempt. False: the lease is lost."""
    rows = execute(
        """
        UPDATE syncs SET claimed_until = NULL, waiting_until = ?, waiting_for = ?, attempts = attempts + ?
        WHERE id = ? AND state = 'LISTING' AND claimed_until = ?
        """,
        (until, reason[:MAX_ERROR_LENGTH], int(failed), sync.sync_id, sync.lease),
    )
    return bool(rows.rowcount)


def fail_sync(
    sync_id: int,
    error: str,
    *,
    lease: datetime | None = None,
    unclaimed: bool = False,
    cooldown: timedelta = timedelta(),
    longest: timedelta | None = None,
) -> bool:
    """End a sync whose list cannot be read, and push the user's next one out. What was written down stays to be done.

    The next one is never sooner than after a sync that went well (`cooldown`), and pushed out by `longest` at most.

    False: it is no longer listing, or `lease` (where given) is lost. `unclaimed`: only if no worker holds it.
    """
    now = utcnow()
    held = "AND claimed_until = ?" if lease else "AND claimed_until IS NULL" if unclaimed else ""
    with db.atomic():
        row = execute(
            f"""
            UPDATE syncs SET state = 'FAILED', finished_at = ?, claimed_until = NULL, waiting_until = NULL,
                             waiting_for = NULL, error = ?, failed = (SELECT COUNT(*) FROM sync_items i
                             JOIN ledger l ON l.killmail_id = i.killmail_id WHERE i.sync_id = syncs.id)
            WHERE id = ? AND state IN ('QUEUED', 'LISTING') {held}
            RETURNING user_id
            """,
            (now, error[:MAX_ERROR_LENGTH], sync_id, *([lease] if lease else [])),
        ).fetchone()
        if row is None:
            return False
        # A list that was to be read again from its start may have counted less than it wrote down before.
        execute(
            """UPDATE syncs SET saved = CASE WHEN found > skipped + failed THEN found - skipped - failed ELSE 0 END
               WHERE id = ?""",
            (sync_id,),
        )
        execute(f"SELECT id FROM users WHERE id = ? {lock_clause()}", row)
        failures = User.get_by_id(row[0]).consecutive_failures + 1
        if longest is not None:
            # Counted no further than that: a failure of another kind that follows must not cost a day either.
            failures = min(failures, sum(step <= longest for step in FAILED_SYNC_BACKOFF))
        pushed_out = backoff(FAILED_SYNC_BACKOFF, failures)
        if longest is not None:
            pushed_out = min(pushed_out, longest)
        # A user whom SSO refused meanwhile (`next_sync_at` null) is not due again before the next login.
        execute(
            """UPDATE users SET consecutive_failures = ?, last_sync_complete = FALSE,
                   next_sync_at = CASE WHEN next_sync_at IS NULL THEN NULL ELSE ? END WHERE id = ?""",
            (failures, now + max(cooldown, pushed_out), row[0]),
        )
    forget_ended(row[0])
    return True


def _locked_sync(sync: ClaimedSync) -> ClaimedSync | None:
    """The sync as it is now, locked, if the lease still holds."""
    execute(f"SELECT id FROM syncs WHERE id = ? {lock_clause()}", (sync.sync_id,))
    row = Sync.get_or_none(Sync.id == sync.sync_id)
    if row is None or row.state != SyncState.LISTING or row.claimed_until != sync.lease:
        return None
    return ClaimedSync(
        row.id, row.user_id, row.trigger, row.priority, row.full, row.next_page, row.attempts, sync.lease,
        wanted=max(0, row.found - row.skipped), foreign=row.foreign_entries, distrusted=bool(row.list_moved),
    )  # fmt: skip


def _write_down(
    sync: ClaimedSync, hashes: dict[int, str], other_hashes: Mapping[int, str]
) -> tuple[int, set[int], set[int]]:
    """Links, ledger rows and items of one page.

    Returns how many links are new, the ids that are not stored, and the foreign ones that are.
    """
    if not hashes:
        return 0, set(), set()
    now = utcnow()
    stored = _stored(list(hashes))
    unknown = sorted(hashes.keys() - stored)
    if unknown:
        _want(sync, unknown, hashes, other_hashes, now)
        # The rows are locked now. What another worker stored since the look above has no row to come back as.
        raced = _stored(unknown)
        if raced:
            execute(f"DELETE FROM ledger WHERE killmail_id IN ({placeholders(raced)})", sorted(raced))
        stored |= raced
    linked, foreign = link(sync.user_id, hashes, stored, now)
    wanted = [killmail_id for killmail_id in unknown if killmail_id not in stored]
    insert_rows(
        "sync_items",
        ("sync_id", "killmail_id"),
        [(sync.sync_id, killmail_id) for killmail_id in wanted],
        "ON CONFLICT DO NOTHING",
    )
    return linked, set(wanted), foreign


def _stored(ids: Sequence[int]) -> set[int]:
    rows = execute(f"SELECT killmail_id FROM killmails WHERE killmail_id IN ({placeholders(ids)})", ids)
    return {killmail_id for (killmail_id,) in rows.fetchall()}


def _want(
    sync: ClaimedSync, ids: Sequence[int], hashes: dict[int, str], other_hashes: Mapping[int, str], now: datetime
) -> None:
    """One ledger row a killmail, shared: a row that exists is raised, and given a fresh try where somebody asked.

    `ids` is in ascending order. The newest killmail has the first turn, and the next page goes on counting. A shared
    killmail keeps the lowest of its turns, unless ESI has refused it.
    """
    given_up = (
        f"ledger.state = 'deferred' OR (ledger.state <> 'rejected' AND ledger.attempts >= {ATTEMPTS_BEFORE_DEFERRED})"
    )
    retry = given_up if sync.priority >= INTERACTIVE_PRIORITY else "FALSE"
    # Rejected rows come back where ESI now lists a hash that was not tried; and for a full sync, whoever asked for it,
    # once: the refusals stay counted, so that one more rejects the row again.
    untried = " OR ".join(f"({_is_untried(column)})" for column in ("killmail_hash", "other_hash"))
    other_hash = f"(ledger.state = 'rejected' AND ({untried}))"
    anew = f"(({retry}) OR {other_hash})"
    fresh = f"({anew} OR ledger.state = 'rejected')" if sync.full else anew
    # A row keeps two hashes, the newest of those that ESI lists; which of them goes first is settled by refusals.
    columns = ("killmail_id", "killmail_hash", "other_hash", "priority", "state", "attempts", "refusals", "created_at")
    last = sync.wanted + len(ids) - 1
    insert_rows(
        "ledger",
        (*columns, "turn"),
        [
            (each, hashes[each], other_hashes.get(each), sync.priority, "pending", 0, 0, now, last - place)
            for place, each in enumerate(ids)
        ],
        f"""
        ON CONFLICT (killmail_id) DO UPDATE SET
            turn = CASE WHEN excluded.turn < ledger.turn AND (ledger.refusals = 0 OR {other_hash}) THEN excluded.turn
                        ELSE ledger.turn END,
            priority = CASE WHEN excluded.priority > ledger.priority THEN excluded.priority ELSE ledger.priority END,
            attempts = CASE WHEN {fresh} THEN 0 ELSE ledger.attempts END,
            refusals = CASE WHEN {other_hash} THEN 0 WHEN ({retry}) AND ledger.refusals > 0 THEN 1
                            ELSE ledger.refusals END,
            not_before = CASE WHEN {fresh} THEN NULL ELSE ledger.not_before END,
            killmail_hash = CASE WHEN {fresh} AND {_is_untried("killmail_hash")} THEN excluded.killmail_hash
                                 ELSE ledger.killmail_hash END,
            other_hash = CASE WHEN {fresh} AND {_is_untried("killmail_hash")} THEN ledger.killmail_hash
                              WHEN {_is_untried("killmail_hash")} THEN excluded.killmail_hash
                              WHEN {_is_untried("other_hash")} THEN excluded.other_hash
                              ELSE ledger.other_hash END,
            state = CASE WHEN {fresh} AND ledger.state IN ('deferred', 'rejected') THEN 'pending' ELSE ledger.state END
        """,
    )


def _is_untried(column: str) -> str:
    """SQL: the page brings a hash that the row does not hold yet."""
    return (
        f"(excluded.{column} IS NOT NULL AND excluded.{column} <> ledger.killmail_hash "
        f"AND (ledger.other_hash IS NULL OR excluded.{column} <> ledger.other_hash))"
    )
