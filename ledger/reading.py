"""What one reading of a list has met so far: where the list ends, and whether it was seen whole.

Pure. The invariant: whatever makes a list come up short, `steady` or `is_proven` denies it, so that the next sync reads
every page. X-Pages says where the list ends, and all pages but the last are equally long. A last page that is as
full as a page can be is followed by one more look. Where ESI does not send X-Pages, the list is read until it answers
that there is no such page, or sends nothing behind a page that is short.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from clock import CLOCKS_APART

#: ESI has answered 304 for hours to a list that had changed (esi-issues 938). So the whole of page 1 is read again when
#: the last one is this old: it costs one token more than a 304 (2 of the 30 that a list has in 15 minutes), and no
#: request. Of three reads an hour that is one, for pilots whose list has changed within ACTIVE_FOR.
ETAG_TRUSTED_FOR = timedelta(hours=1)
#: The same for all others: four reads a day.
ETAG_TRUSTED_FOR_QUIET = timedelta(hours=6)
ACTIVE_FOR = timedelta(days=7)
#: Entries of a full page: the most that ESI's documents allow (`maxItems` of its last Swagger document).
FULL_PAGE = 1_000
#: Entries of the shortest page that may be a full one, and so may have another behind it. Well below the shortest
#: pages that this route has had (50, until 2017).
PERHAPS_FULL = 20
#: A list holds killmails of so many days (ESI's document of the route), give or take what ESI's caches add.
LISTED_FOR = timedelta(days=90)
AGING_MARGIN = timedelta(days=1)


def etag_is_trusted(read_at: datetime | None, changed_at: datetime | None, now: datetime) -> bool:
    """Whether a 304 may be believed. `read_at`: when page 1 was last read whole; `changed_at`: when the list last
    brought this pilot a new killmail. A time further ahead than CLOCKS_APART (clock skew) is as good as none.
    """
    active = _is_within(ACTIVE_FOR, changed_at, now)
    return _is_within(ETAG_TRUSTED_FOR if active else ETAG_TRUSTED_FOR_QUIET, read_at, now)


def _is_within(limit: timedelta, at: datetime | None, now: datetime) -> bool:
    """Whether the time is known, plausible, and less than `limit` ago."""
    return at is not None and -CLOCKS_APART <= now - at < limit


@dataclass(frozen=True, slots=True)
class Page:
    """One page as ESI sent it, in numbers. `entries`: all of them, also those that could not be read."""

    number: int  # from 1
    entries: int
    pages: int | None  # X-Pages; None where ESI did not send it
    past_end: bool = False
    unreadable: int = 0  # of the entries
    repeated: int = 0  # of the entries, those that stood on a page before
    changed: bool = False  # Last-Modified is not that of page 1
    two_hashes: bool = False  # an entry stands there with two hashes, of which one opens it


@dataclass(frozen=True, slots=True)
class Reading:
    """What the pages read so far have in common. Kept in the sync's row, for the worker that reads on."""

    pages: int | None = None  # X-Pages as ESI said last
    largest_page: int = 0  # entries
    moved: bool = False  # the list changed under the reader, or lacks a page
    unreadable: int = 0  # entries left out
    lacking: bool = False  # the list may hold entries that no page read so far has brought
    last_page: int = 0  # entries of the page read last
    ended: bool = False  # the page read last is the end of the list

    @property
    def steady(self) -> bool:
        """Whether the pages read are one state of the list, and every entry of theirs was read."""
        return not self.moved and not self.unreadable

    def with_page(self, page: Page) -> Reading:
        """The reading after this page."""
        pages = self.pages if page.pages is None else page.pages
        # A page that only repeats others comes from a server that does not look at the page's number.
        only_repeats = 0 < page.repeated == page.entries - page.unreadable
        lacking = only_repeats or self._shows_a_gap(page, pages)
        return replace(
            self,
            pages=pages,
            largest_page=max(self.largest_page, page.entries),
            moved=self.moved or lacking or self._shows_a_change(page, pages),
            lacking=self.lacking or lacking,
            unreadable=self.unreadable + page.unreadable,
            last_page=page.entries,
            ended=page.past_end or self._is_end(page, pages, only_repeats=only_repeats),
        )

    def _is_end(self, page: Page, pages: int | None, *, only_repeats: bool) -> bool:
        """Whether no page is to be read behind this one, of which ESI has not said that it lies past the end."""
        if pages is not None and page.number <= pages:
            return page.number == pages and not self._may_go_on(page)
        if only_repeats:
            return True
        return page.entries == 0 and (pages is not None or (page.number > 1 and self._was_short))

    def _may_go_on(self, page: Page) -> bool:
        """Whether the page that X-Pages calls the last one is full, so that one more look is worth a request."""
        if page.entries >= FULL_PAGE:
            return True
        return page.number > 1 and page.entries >= max(PERHAPS_FULL, self.largest_page)

    def _shows_a_change(self, page: Page, pages: int | None) -> bool:
        """Whether the list is to be read again, though nothing that it held is missing."""
        return page.changed or page.two_hashes or page.repeated > 0 or self.pages not in (None, pages)

    def _shows_a_gap(self, page: Page, pages: int | None) -> bool:
        """Whether this page, behind those before it, tells that entries of the list were on none of them.

        A new killmail moves the others to later pages: the first page that comes from the changed list repeats some of
        those before it, and nothing is missed but what is new. Where none is repeated, entries may have been skipped.
        """
        if pages is None or page.number > pages:
            # Behind what looked like the end.
            gap = page.number > 1 and page.entries > 0 and (pages is not None or self._was_short)
        elif page.number < pages:
            gap = page.entries == 0 or page.entries < self.largest_page
        else:
            gap = page.number > 1 and page.entries == 0
        return (
            gap
            or (page.number > 1 and page.entries > self.largest_page)  # so the pages before were short
            or (self.pages is not None and pages is not None and pages < self.pages)
            or (page.changed and not page.repeated and not self.moved)
        )

    @property
    def _was_short(self) -> bool:
        """Whether the page read last looked like the end of a list without X-Pages."""
        return self.last_page == 0 or self.last_page < self.largest_page

    @property
    def least_entries(self) -> int:
        """How many entries the list has at least, by X-Pages: all pages but the last are full."""
        return 0 if self.pages is None or self.pages < 2 else (self.pages - 1) * self.largest_page + 1


#: Before page 1.
NOTHING_READ = Reading()


def is_proven(entries: int, pages: int, before: int | None, aged_out: int) -> bool:
    """Whether a list that was read to what looked like its end may be taken for whole.

    `entries` it had, on so many pages; `before`: those it had when it was read to its end the last time, None where it
    was not; `aged_out`: how many of those may have left it since. Nothing in a first reading tells of a last page that
    was cut: a list of several pages is read to its end once more. For page 1 there is the ETag, which is its own.
    """
    if before is None:
        return pages == 1 or entries < PERHAPS_FULL
    return entries >= before - aged_out
