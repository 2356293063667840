"""What one reading of a list has met so far: where the list ends, and whether it was seen whole.

Pure. The invariant: whatever makes a list come up short, `steady` is false, so that the next sync reads every page.
X-Pages says where the list ends, and all pages but the last are equally long. Where ESI does not send X-Pages, the list
ends with a page that is empty, past the end, or clearly short.
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
    changed: bool = False  # ESI says in another way that the list is not what it was on page 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What the pages read so far have in common. Kept in the sync's row, for the worker that reads on."""

    pages: int | None = None  # X-Pages as ESI said last
    largest_page: int = 0  # entries
    moved: bool = False  # the list changed under the reader, or lacks a page
    unreadable: int = 0  # entries left out
    ended: bool = False  # the page read last is the end of the list

    @property
    def steady(self) -> bool:
        """Whether the pages read are one state of the list, and every entry of theirs was read."""
        return not self.moved and not self.unreadable

    def with_page(self, page: Page) -> Reading:
        """The reading after this page."""
        pages = self.pages if page.pages is None else page.pages
        below = pages is not None and page.number < pages
        promised = pages is not None and page.number <= pages
        if page.pages is None and not promised:
            # A page that only repeats others comes from a server that does not look at the page's number.
            only_repeats = 0 < page.repeated == page.entries - page.unreadable
            ended = page.past_end or self._is_clearly_short(page) or only_repeats
        else:
            ended = page.past_end or not below
        moved = (
            page.changed
            or page.repeated > 0
            or (self.pages is not None and pages != self.pages)
            or (promised and page.entries == 0 and max(page.number, pages or 1) > 1)
            or (below and page.entries < self.largest_page)  # all pages but the last are equally long
            or (page.number > 1 and page.entries > self.largest_page)
        )
        return replace(
            self,
            pages=pages,
            largest_page=max(self.largest_page, page.entries),
            moved=self.moved or moved,
            unreadable=self.unreadable + page.unreadable,
            ended=ended,
        )

    def _is_clearly_short(self, page: Page) -> bool:
        """Whether the page is empty, or has less than half the entries of the largest one before it.

        Half, because a page from the middle may lack some entries: to stop there loses what is behind it for a day,
        and to read on behind the last page costs one 404.
        """
        return page.entries == 0 or 2 * page.entries < self.largest_page


#: Before page 1.
NOTHING_READ = Reading()
