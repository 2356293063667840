"""The lists' half of the ledger's state machine: pilots come and go, ask, and their lists are read while they change.

Every step is done in the database on one of two connections, and in the model (`model.py`). The rules that need
somebody at work see to it that somebody is: otherwise few examples would get anywhere. `machine.py` has the other half.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import ledger
from database import execute, utcnow
from ledger import Outcome, SyncRoom
from ledger.reading import Reading
from models import Trigger
from tests.properties.model import Model, Pilot
from tests.properties.table import TwoConnections, wipe
from tests.unit.ledger.world import COOLDOWN, ETAG, FIRST_CHARACTER, HOUR, make_user, references

KILLMAILS = list(range(1, 9))
PAGE = 2
CHARACTERS = 3

#: Which of the things there are: taken modulo their number.
which = st.integers(0, 20)
character = st.integers(0, CHARACTERS - 1)
lists = st.lists(st.sampled_from(KILLMAILS), unique=True, max_size=8)
long_lists = st.lists(st.sampled_from(KILLMAILS), unique=True, min_size=3, max_size=8)


@dataclass(eq=False)
class Reader:
    """A worker with the lease of a sync; `seen` is its own memory, `known` the model's idea of it."""

    sync: ledger.ClaimedSync
    may_stop: bool
    seen: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    at_end: bool = False


@dataclass(eq=False)
class Worker:
    claim: ledger.Claim


class Lists(RuleBasedStateMachine):
    """The half of the machine that ends with a list read: pilots, syncs asked for, messages, readers."""

    def __init__(self) -> None:
        super().__init__()
        wipe()
        self.connections = TwoConnections()
        self.model = Model()
        self.lists: list[list[int]] = [[] for _ in range(CHARACTERS)]
        self.users: list[int | None] = [None] * CHARACTERS
        self.messages: list[tuple[str, int]] = []
        self.readers: list[Reader] = []
        self.workers: list[Worker] = []

    def do(self, work: Any, *args: Any, **options: Any) -> Any:
        return self.connections.run(work, *args, **options)

    # Pilots and their lists

    @rule(number=character, new=lists)
    def the_list_changes(self, number: int, new: list[int]) -> None:
        self.lists[number] = new

    @rule(number=character, new=st.sampled_from(KILLMAILS), at=which)
    def the_list_grows(self, number: int, new: int, at: int) -> None:
        mine = self.lists[number]
        if new not in mine:
            mine.insert(at % (len(mine) + 1), new)

    @rule(number=character, known=st.booleans())
    def link(self, number: int, known: bool) -> None:
        """`known`: the whole list was read an hour ago, and was empty."""
        if self.users[number] is None:
            read_at = utcnow() - HOUR if known else None
            character_id = FIRST_CHARACTER + number
            user = self.do(make_user, character_id=character_id, last_full_sync_at=read_at, last_sync_complete=known)
            self.users[number] = user.id
            self.model.pilots[user.id] = Pilot(number, read_whole=known, complete=known)

    @rule(number=character, sure=st.booleans())
    def unlink(self, number: int, sure: bool = True) -> None:
        user_id = self.users[number]
        if user_id is not None and sure:
            self.do(ledger.unlink, user_id)
            self.users[number] = None
            self.model.unlinked(user_id)

    # Asking

    @rule(number=character, trigger=st.sampled_from(list(Trigger)), full=st.booleans(), force=st.booleans())
    def ask(self, number: int, trigger: Trigger, full: bool, force: bool) -> None:
        user_id = self.users[number]
        if user_id is None:
            return
        opened = self.do(ledger.open_sync, user_id, trigger, cooldown=COOLDOWN, full=full, force=force)
        active = self.model.active_of(user_id)
        if active is not None:
            assert (opened.outcome, opened.sync_id) == (Outcome.JOINED, active[0])
            self.model.joined(active[1], trigger, full=full)
        elif self.model.pilots[user_id].cooling_down and not force:
            assert opened.outcome is Outcome.COOLDOWN
        else:
            assert opened.outcome is Outcome.CREATED
            self.model.opened(opened.sync_id, user_id, trigger, full=full)
        if opened.send:
            self.send_syncs(8)

    @rule(pick=which, trigger=st.sampled_from(list(Trigger)))
    def all_of_it_is_asked_for_while_it_is_read(self, pick: int, trigger: Trigger) -> None:
        reader = self.a_reader(pick)
        run = self.model.runs.get(reader.sync.sync_id) if reader else None
        if reader is None or run is None:
            return
        self.read_on(reader)
        self.ask(self.users.index(run.user_id), trigger, full=True, force=False)
        if reader in self.readers:
            self.read_on(reader)

    @rule()
    def the_scheduler_looks(self) -> None:
        due = {u for u, pilot in self.model.pilots.items() if pilot.due and self.model.active_of(u) is None}
        opened = self.do(ledger.open_due_syncs, 10)
        owners = dict(execute("SELECT id, user_id FROM syncs").fetchall())
        assert {owners[sync_id] for sync_id in opened} == due
        for sync_id in opened:
            self.model.opened(sync_id, owners[sync_id], "SCHEDULE", full=False)
        self.send_syncs(8)

    @rule(window=st.integers(1, 4), refused=which)
    def send_syncs(self, window: int, refused: int = 20) -> None:
        """No more are out than the window holds, and none that waits, is held, or has ended."""
        chosen: list[Any] = [sync.sync_id for sync in self.do(ledger.choose_syncs, SyncRoom(window))]
        self.model.taken_from_dead_readers()
        for sync_id in chosen:
            run = self.model.runs[sync_id]
            assert run.state in ("QUEUED", "LISTING") and not run.waiting and run.holder is None
        self.do(ledger.mark_unsent, chosen[refused:])  # the broker went away in the middle
        self.messages += [("sync", sync_id) for sync_id in chosen[:refused]]

    @rule(number=character)
    def retry_what_was_given_up(self, number: int) -> None:
        user_id = self.users[number]
        if user_id is not None:
            assert self.do(ledger.retry_given_up, user_id, 8) == self.model.retried(user_id, 8)

    # Messages

    @precondition(lambda self: self.messages)
    @rule(pick=which, doubled=st.booleans())
    def deliver(self, pick: int, doubled: bool) -> None:
        message = self.messages[pick % len(self.messages)]
        if not doubled:
            self.messages.remove(message)
        self.hand_over(*message)

    @precondition(lambda self: self.messages)
    @rule(pick=which)
    def lose_a_message(self, pick: int) -> None:
        self.messages.pop(pick % len(self.messages))

    def deliver_all(self, kind: str) -> None:
        for message in [message for message in self.messages if message[0] == kind]:
            self.messages.remove(message)
            self.hand_over(*message)

    def hand_over(self, kind: str, key: int) -> None:
        {"sync": self.take_up, "fetch": self.claim, "finalize": self.finalize}[kind](key)

    def take_up(self, sync_id: int) -> None:
        expected = self.model.claimable(sync_id)
        claimed = self.do(ledger.claim_sync, sync_id)
        assert (claimed is not None) == expected
        if claimed is not None:
            run = self.model.runs[sync_id]
            reader = Reader(claimed, self.model.pilots[run.user_id].complete)
            self.model.claimed(run, reader)
            self.readers.append(reader)

    def claim(self, killmail_id: int) -> None:
        row = self.model.rows.get(killmail_id)
        claim = self.do(ledger.claim, killmail_id)
        assert (claim is not None) == (row is not None and row.state == "sent")
        if claim is not None and row is not None:
            worker = Worker(claim)
            row.put("fetching")
            row.holder = worker
            self.workers.append(worker)

    def finalize(self, sync_id: int) -> None:
        run = self.model.runs.get(sync_id)
        finished = self.do(ledger.finalize, sync_id, COOLDOWN)
        assert (finished is not None) == (run is not None and self.model.is_complete(run))
        if finished is not None and run is not None:
            self.model.finished(run)
            assert run.found + run.foreign >= len(run.listed), "every killmail listed was counted"

    def finish_if_complete(self, sync_ids: Any) -> None:
        complete = set(self.do(ledger.ready_to_finish, sync_ids))
        assert complete == self.model.complete_runs() & set(sync_ids)
        self.messages += [("finalize", sync_id) for sync_id in complete]

    # Reading

    @rule(pick=which)
    def read(self, pick: int) -> None:
        """One page as it is now, or the end."""
        reader = self.a_reader(pick)
        if reader is not None:
            self.read_on(reader)

    def read_on(self, reader: Reader) -> None:
        run = self.model.runs.get(reader.sync.sync_id)
        if run is None or run.holder is not reader:
            self._notice_the_loss(reader)
        elif reader.at_end:
            assert self.do(ledger.end_listing, reader.sync, etag=ETAG, complete=True)
            self.model.listing_ended(run, full=reader.sync.full)
            self.readers.remove(reader)
            self.finish_if_complete([reader.sync.sync_id])
        else:
            self._read_page(reader, run)

    def a_reader(self, pick: int) -> Reader | None:
        """One of those at work; somebody takes up a list where nobody is."""
        if not self.readers:
            self.ask(pick % CHARACTERS, Trigger.SCHEDULE, full=False, force=True)
            self.deliver_all("sync")
        return self.readers[pick % len(self.readers)] if self.readers else None

    def _read_page(self, reader: Reader, run: Any) -> None:
        number = self.users.index(run.user_id)
        listed, page = self.lists[number], reader.sync.page
        ids = listed[(page - 1) * PAGE : page * PAGE]
        added = self._add_page(reader, ids)
        assert added is not None
        assert added.written == (run.next_page == page)
        reader.sync = added.sync
        if not added.written:
            self.model.sent_back(run)
            reader.known.clear()
            return
        foreign = self.model.foreign(run, ids)
        new = self.model.page_added(run, ids, reader.known)
        assert (added.new, added.known, added.foreign) == (len(new), len(ids) - len(new), len(foreign))
        reader.known.update(ids)
        known_whole = not reader.sync.full and reader.may_stop and not new and not foreign
        reader.at_end = page * PAGE >= len(listed) or known_whole

    def _add_page(self, reader: Reader, ids: list[int]) -> ledger.PageAdded | None:
        added: ledger.PageAdded | None = self.do(
            ledger.add_page, reader.sync, references(ids), reading=Reading(pages=1), etag=ETAG, seen=reader.seen
        )
        return added

    def _notice_the_loss(self, reader: Reader) -> None:
        """Thought dead, replaced, or its pilot left: whatever it tries, it writes nothing."""
        assert self._add_page(reader, KILLMAILS) is None
        assert not self.do(ledger.end_listing, reader.sync, etag=ETAG, complete=True)
        assert not self.do(ledger.wait_with_sync, reader.sync, utcnow(), "nothing")
        assert not self.do(ledger.fail_sync, reader.sync.sync_id, "nothing", lease=reader.sync.lease)
        self.readers.remove(reader)

    @rule(pick=which)
    def the_list_is_unchanged(self, pick: int) -> None:
        """304: a sync that wants nothing ends where it is read, and any other is left as it is."""
        reader = self.a_reader(pick)
        if reader is None:
            return
        run = self.model.runs.get(reader.sync.sync_id)
        asked_for = (reader.sync.full, reader.sync.priority)
        simple = run is not None and run.holder is reader and run.next_page == 1 and not run.items
        simple = simple and run is not None and (run.full, run.priority) == asked_for and not run.distrusted
        assert self.do(ledger.finish_unchanged, reader.sync, fresh_for=0.0, cooldown=COOLDOWN) == simple
        if simple and run is not None:
            self.readers.remove(reader)
            self.model.finished_unchanged(run)

    @rule(pick=which, failed=st.booleans())
    def esi_asks_a_reader_to_wait(self, pick: int, failed: bool) -> None:
        reader = self.a_reader(pick)
        if reader is None:
            return
        run = self.model.runs.get(reader.sync.sync_id)
        holds = run is not None and run.holder is reader
        assert self.do(ledger.wait_with_sync, reader.sync, utcnow() + HOUR, "ESI", failed=failed) == holds
        self.readers.remove(reader)
        if holds and run is not None:
            run.holder, run.expired, run.waiting = None, False, True
            run.attempts += failed

    @rule(pick=which)
    def a_list_cannot_be_read(self, pick: int) -> None:
        reader = self.a_reader(pick)
        if reader is None:
            return
        self.readers.remove(reader)
        run = self.model.runs.get(reader.sync.sync_id)
        holds = run is not None and run.holder is reader
        assert self.do(ledger.fail_sync, reader.sync.sync_id, "ESI", lease=reader.sync.lease) == holds
        if holds and run is not None:
            self.model.failed(run)
