"""Lists that change between their pages, read by the real `ListReader` from an ESI that is a Python list.

Pages are tiny, so that a few killmails are many pages. A change comes before each page but the first; killmails listed
so far may be stored meanwhile, as fast workers do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import takewhile
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

import actors  # noqa: F401 - the broker, before any actor
import database
import events
import ledger
import runtime
import settings as settings_module
from actors.users import ListReader
from database import utcnow
from esi.limiter import Allowance
from esi.values import NotModified, RecentPage, Reference
from ledger.storing import store
from models import Trigger, User
from settings import KILLMAIL_SCOPE, Settings
from tests.properties.budget import budget
from tests.properties.table import Snapshot, wipe
from tests.unit.ledger.world import COOLDOWN, dispatch_all, hash_of, make_killmail, make_user
from tokens import TokenCipher

CIPHER = TokenCipher([Fernet.generate_key().decode()])
Change = Callable[[list[int]], list[int]]


@dataclass
class FakeEsi:
    """One character's list. `Last-Modified` is of the list as it is, and so the same on all pages of one state."""

    listed: list[int]
    page_size: int
    before_page: Callable[[], None] = lambda: None
    version: int = 0
    #: Of a page's number: what is wrong with it.
    odd: dict[int, str] = field(default_factory=dict)

    def connect(self) -> None:
        """There is nothing to connect to."""

    def change(self, change: Change) -> None:
        changed = change(list(self.listed))
        if changed != self.listed:
            self.listed, self.version = changed, self.version + 1

    def recent_killmails(
        self, _character: int, _token: str, page: int, _permit: object, etag: str | None
    ) -> RecentPage | NotModified:
        if page > 1:
            self.before_page()
        pages = max(1, -(-len(self.listed) // self.page_size))
        ids = self.listed[(page - 1) * self.page_size : page * self.page_size]
        if not ids and page > 1:
            return RecentPage((), None, None, 0.0, None, past_end=True)
        own_etag = hashlib.sha1(repr((page, ids)).encode()).hexdigest()
        if etag == own_etag:
            return NotModified(0.0)
        references = tuple(Reference(each, hash_of(each)) for each in ids)
        page_as_it_is = RecentPage(references, pages, own_etag, 0.0, f"version {self.version}", entries=len(references))
        return self._spoiled(page_as_it_is, self.odd.get(page, ""))

    def _spoiled(self, page: RecentPage, kind: str) -> RecentPage:
        """The page as it is shown where something is wrong with it. Last-Modified says nothing of it."""
        match kind:
            case "empty":
                return replace(page, references=(), entries=0)
            case "lacks one":
                return replace(page, references=page.references[1:], entries=max(0, page.entries - 1))
            case "malformed":
                left_out = tuple(range(len(page.references[:1])))
                return replace(page, references=page.references[1:], unreadable=left_out)
            case "no X-Pages":
                return replace(page, pages=None)
            case "fewer pages":
                return replace(page, pages=max(1, (page.pages or 1) - 1))
            case "page one":
                first = self.listed[: self.page_size]
                return replace(page, references=tuple(Reference(each, hash_of(each)) for each in first))
            case "two hashes":
                return replace(
                    page, other_hashes=tuple(Reference(one.killmail_id, "0" * 40) for one in page.references)
                )
        return page


class OpenRoad:
    """A limiter that lets every list request pass, and has the fetching left to the test."""

    def acquire(self, *_args: Any, **_options: Any) -> object:
        return object()

    def allowance(self, *_args: Any, **_options: Any) -> Allowance:
        return Allowance(0, None, None)

    def is_status_due(self) -> bool:
        return False


@dataclass
class Reading:
    """A pilot whose list is read again and again."""

    esi: FakeEsi
    changes: list[Change] = field(default_factory=list)
    stores_at_once: bool = False

    def __post_init__(self) -> None:
        self.esi.before_page = self._between_pages
        self.user: User = make_user(
            access_token=CIPHER.encrypt("access"),
            refresh_token=CIPHER.encrypt("refresh"),
            expires_at=utcnow() + timedelta(days=1),
            scopes=KILLMAIL_SCOPE,
            last_full_sync_at=None,
        )

    def sync(self, *, full: bool = False) -> None:
        """Ask for a sync, read its list, store what it found, and end it."""
        asked = ledger.open_sync(self.user.id, Trigger.WEB, cooldown=COOLDOWN, full=full, force=True)
        assert asked.sync_id is not None
        claimed = ledger.claim_sync(asked.sync_id)
        assert claimed is not None
        ListReader(claimed).read()
        store_all()
        assert ledger.finalize(asked.sync_id, COOLDOWN) is not None, "every sync ends"

    @property
    def user_now(self) -> User:
        return User.get_by_id(self.user.id)

    @property
    def missing(self) -> set[int]:
        """What stands in the list and is not stored."""
        return set(self.esi.listed) - Snapshot.taken().stored

    def _between_pages(self) -> None:
        if self.stores_at_once:
            store_all()
        if self.changes:
            self.esi.change(self.changes.pop(0))


def store_all() -> None:
    for out in dispatch_all():
        claim = ledger.claim(out.killmail_id)
        assert claim is not None
        ledger.settle(claim, make_killmail(claim.killmail_id))


@pytest.fixture
def esi(
    sqlite_db: object, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[FakeEsi], FakeEsi]]:
    """Make this one the process's ESI."""
    current = make_settings(sync_max_pages=50)
    monkeypatch.setattr(settings_module, "current", lambda: current)
    monkeypatch.setattr(runtime, "limiter", OpenRoad)
    monkeypatch.setattr(runtime, "cipher", lambda: CIPHER)
    events.configure(None)

    def use(fake: FakeEsi) -> FakeEsi:
        wipe()
        monkeypatch.setattr(runtime, "esi", lambda: fake)
        return fake

    with database.db.connection_context():
        database.execute("PRAGMA synchronous = off")
        yield use
    events.close()


# How lists change


def _grow(count: int) -> Change:
    return lambda listed: [max(listed, default=100) + 1 + n for n in range(count)][::-1] + listed


def _drop_oldest(count: int) -> Change:
    return lambda listed: listed[: max(0, len(listed) - count)]


def _drop_any(at: int) -> Change:
    return lambda listed: [each for place, each in enumerate(listed) if place != at % len(listed)] if listed else []


def _come_late(at: int) -> Change:
    def change(listed: list[int]) -> list[int]:
        place = at % (len(listed) + 1)
        return [*listed[:place], 1000 + len(listed) + at * 50, *listed[place:]]

    return change


def _turn(by: int) -> Change:
    return lambda listed: listed[by % max(1, len(listed)) :] + listed[: by % max(1, len(listed))]


starts = st.integers(0, 12).map(lambda count: list(range(100 + count, 100, -1)))
sizes = st.integers(1, 4)
#: As ESI's lists move: new killmails in front, the oldest drop off the end.
ordinary = st.lists(st.builds(_grow, st.integers(0, 4)) | st.builds(_drop_oldest, st.integers(0, 3)), max_size=6)
any_change = (
    st.builds(_grow, st.integers(0, 4))
    | st.builds(_drop_oldest, st.integers(0, 3))
    | st.builds(_drop_any, st.integers(0, 11))
    | st.builds(_come_late, st.integers(0, 11))
    | st.builds(_turn, st.integers(0, 11))
)
whatever = st.lists(any_change, max_size=6)


@given(start=starts, size=sizes, changes=ordinary, at_once=st.booleans())
@budget(examples=80)
def test_what_stayed_in_a_list_that_moves_as_esis_do_is_not_missed_even_once(esi, start, size, changes, at_once):
    reading = Reading(esi(FakeEsi(start, size)), changes, stores_at_once=at_once)
    reading.sync()
    assert not reading.missing & set(start)


@given(start=starts, size=sizes, grown=st.integers(0, 8), changes=ordinary, at_once=st.booleans())
@budget(examples=120)
def test_one_more_sync_brings_all_that_came_meanwhile(esi, start, size, grown, changes, at_once):
    # Given a pilot whose whole list is known, and who has fought since
    reading = Reading(esi(FakeEsi(start, size)), stores_at_once=at_once)
    reading.sync()
    assert not reading.missing
    reading.esi.change(_grow(grown))
    # When the list is read while it moves, and then once more, both times only as far as needed
    reading.changes = changes
    reading.sync()
    reading.changes = []
    reading.sync()
    # Then nothing is missing
    assert not reading.missing


@given(start=starts, size=sizes, changes=whatever, at_once=st.booleans())
@budget(examples=80)
def test_whatever_a_list_did_between_its_pages_one_more_sync_brings_all(esi, start, size, changes, at_once):
    reading = Reading(esi(FakeEsi(start, size)), changes, stores_at_once=at_once)
    reading.sync()
    reading.changes = []
    reading.sync()
    assert not reading.missing


KINDS = ("lacks one", "empty", "malformed", "no X-Pages", "page one", "two hashes", "fewer pages")
#: Of a list of twelve at most, whose pages hold one to four. What page 1 lacks, and what the last page lacks, nothing
#: but another reading can tell.
odds = st.dictionaries(st.integers(1, 12), st.sampled_from(KINDS), max_size=4)


@given(start=starts, size=sizes, odd=odds, at_once=st.booleans())
@budget(examples=150)
def test_whatever_was_wrong_with_a_lists_pages_one_more_sync_brings_all(esi, start, size, odd, at_once):
    last = max(1, -(-len(start) // size))
    odd = {page: kind for page, kind in odd.items() if not hides_it(kind, page, last)}
    fake = esi(FakeEsi(start, size, odd=odd))
    reading = Reading(fake, stores_at_once=at_once)
    reading.sync()
    fake.odd = {}
    reading.sync()
    assert not reading.missing
    # Now the list is known: nothing more is asked for
    reading.sync()
    assert reading.user_now.last_sync_complete


def hides_it(kind: str, page: int, last: int) -> bool:
    """Whether a page of this kind looks like an unspoiled one of a shorter list."""
    if kind in ("lacks one", "fewer pages"):
        return page == 1 or page == last
    return kind == "empty" and page == last == 1


@given(start=starts, size=sizes, grown=st.integers(1, 8), at_once=st.booleans())
@budget(examples=60)
def test_what_another_pilots_sync_stored_hides_nothing_of_ones_own_list(esi, start, size, grown, at_once):
    # Given a pilot whose whole list is known, and who has fought since, in part beside another pilot
    reading = Reading(esi(FakeEsi(start, size)), stores_at_once=at_once)
    reading.sync()
    reading.esi.change(_grow(grown))
    for killmail_id in reading.esi.listed[: size + 1]:
        store(make_killmail(killmail_id), hash_of(killmail_id))
    # When the list is read only as far as needed
    reading.sync()
    # Then nothing is missing
    assert not reading.missing


@given(start=starts, size=sizes, changes=whatever, between=whatever, at_once=st.booleans())
@budget(examples=80)
def test_a_full_sync_brings_all_whatever_happened_before(esi, start, size, changes, between, at_once):
    reading = Reading(esi(FakeEsi(start, size)), changes, stores_at_once=at_once)
    reading.sync()
    for change in between:
        reading.esi.change(change)
    reading.changes = []
    reading.sync(full=True)
    assert not reading.missing


@given(start=starts, size=sizes, late=st.lists(st.builds(_come_late, st.integers(0, 11)), max_size=4))
@budget(examples=80)
def test_a_sync_reads_on_until_a_page_that_is_known_whole(esi, start, size, late):
    """However many of a page are known: what came late stands among them."""
    # Given a list that is known, and killmails that appear in it anywhere
    reading = Reading(esi(FakeEsi(start, size)))
    reading.sync()
    known = set(reading.esi.listed)
    for change in late:
        reading.esi.change(change)
    # When it is read only as far as needed
    reading.sync()
    # Then nothing is missing before the first page that holds nothing new
    listed = reading.esi.listed
    pages = [set(listed[at : at + size]) for at in range(0, len(listed), size)]
    to_be_read = takewhile(lambda page: not page <= known, pages)
    assert not reading.missing & set().union(*to_be_read)
