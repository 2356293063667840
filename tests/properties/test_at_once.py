"""Two or three steps at once, cut into statements and mixed in any order, keep every promise, and all comes to its end.

What each of them does alone is the business of `test_ledger_machine.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ledger
from database import execute, utcnow
from ledger import Allowed
from ledger.reading import Reading
from models import Fetch, Sync, SyncState, Trigger
from tests.properties.budget import budget
from tests.properties.stepping import interleave
from tests.properties.table import Snapshot, wipe
from tests.unit.ledger.world import (
    COOLDOWN,
    ETAG,
    HOUR,
    claimed,
    dispatch_all,
    lose_leases,
    lose_messages,
    make_killmail,
    make_user,
    opened,
    references,
    send_syncs,
)

pytestmark = pytest.mark.parametrize("any_db_url", ["postgres"], indirect=True)

#: What became of a listed killmail before the two or three things happen at once.
FATES = ("pending", "sent", "fetching", "fetching", "fetching", "fails", "failed", "rejected", "stored", "stored")
KILLMAILS = 6
NEXT_PAGE = [6, 5, 7, 8]


@dataclass
class Scene:
    """Two pilots whose lists overlap: one's sync is read, the other's is fetched."""

    fates: list[str]
    full: bool
    lists: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wipe()
        self.reads, self.waits = make_user(last_sync_complete=True), make_user()
        listed = list(range(1, KILLMAILS + 1))
        self.lists = {self.reads.id: [*listed[2:], 7, 8], self.waits.id: listed}
        waiting = claimed(opened(self.waits))
        self._end(self._page(waiting, listed))
        self.waiting = waiting.sync_id
        reader = claimed(opened(self.reads, full=self.full))
        self.reader = self._page(reader, [3, 4])
        dispatch_all()
        self.claims = [claim for number in listed if (claim := ledger.claim(number)) is not None]
        for claim, fate in zip(self.claims, self.fates, strict=True):
            self._befall(claim, fate)
        held = [claim for claim, fate in zip(self.claims, self.fates, strict=True) if fate in ("fetching", "fails")]
        # Best those that stand on the page which is read next.
        self.claims = [claim for claim in held if claim.killmail_id in NEXT_PAGE] or held or self.claims

    def _page(self, sync: ledger.ClaimedSync, ids: list[int]) -> ledger.ClaimedSync:
        added = ledger.add_page(sync, references(ids), reading=Reading(pages=2), etag=ETAG, seen=set())
        assert added is not None
        return added.sync

    def _end(self, sync: ledger.ClaimedSync) -> None:
        assert ledger.end_listing(sync, etag=ETAG, complete=True)

    def _befall(self, claim: ledger.Claim, fate: str) -> None:
        row = Fetch.killmail_id == claim.killmail_id
        match fate:
            case "pending":
                ledger.release(claim)
            case "sent":
                Fetch.update(state="sent").where(row).execute()
            case "fails":  # for the fourth time, soon
                Fetch.update(attempts=3).where(row).execute()
            case "failed":
                Fetch.update(attempts=3).where(row).execute()
                ledger.defer(claim, "500")
            case "rejected":
                ledger.reject(claim, "422")
            case "stored":
                ledger.settle(claim, make_killmail(claim.killmail_id))

    # What may happen at once

    def read_on(self, at: int) -> None:
        added = ledger.add_page(self.reader, references(NEXT_PAGE), reading=Reading(pages=2), etag=ETAG, seen={3, 4})
        if added is not None and added.written and at % 2:
            self._finish_if(ledger.end_listing(added.sync, etag=ETAG, complete=True), [added.sync.sync_id])

    def end_list(self, _at: int) -> None:
        self._finish_if(ledger.end_listing(self.reader, etag=ETAG, complete=True), [self.reader.sync_id])

    def fail_list(self, _at: int) -> None:
        ledger.fail_sync(self.reader.sync_id, "500", lease=self.reader.lease)

    def take_over(self, _at: int) -> None:
        execute("UPDATE syncs SET claimed_until = ? WHERE state = 'LISTING'", (utcnow() - HOUR,))
        ledger.fail_abandoned()
        for sync in send_syncs():
            ledger.claim_sync(sync.sync_id)

    def ask(self, at: int) -> None:
        user = (self.reads, self.waits)[at % 2]
        trigger = (Trigger.WEB, Trigger.SCHEDULE, Trigger.MANUAL)[at % 3]
        ledger.open_sync(user.id, trigger, cooldown=COOLDOWN, full=at % 5 < 3, force=at % 7 < 3)

    def look_for_due(self, _at: int) -> None:
        ledger.open_due_syncs(10)

    def retry(self, at: int) -> None:
        ledger.retry_given_up((self.reads, self.waits)[at % 2].id, 8)

    def settle(self, at: int) -> None:
        claim = self.claims[at % len(self.claims)]
        self._finish(ledger.settle(claim, make_killmail(claim.killmail_id)).sync_ids)

    def defer(self, at: int) -> None:
        self._finish(ledger.defer(self.claims[at % len(self.claims)], "500"))

    def reject(self, at: int) -> None:
        self._finish(ledger.reject(self.claims[at % len(self.claims)], "422"))

    def fetch(self, at: int) -> None:
        for out in ledger.dispatch(Allowed(3, 2), 3):
            claim = ledger.claim(out.killmail_id)
            if claim is not None and at % 2:
                self._finish(ledger.settle(claim, make_killmail(claim.killmail_id)).sync_ids)

    def take_back(self, _at: int) -> None:
        execute(
            """UPDATE ledger SET claimed_until = ? WHERE killmail_id IN (
                   SELECT killmail_id FROM ledger WHERE claimed_until IS NOT NULL ORDER BY killmail_id FOR UPDATE)""",
            (utcnow() - HOUR,),
        )
        ledger.take_back_expired()

    def finish(self, _at: int) -> None:
        self._finish(ledger.ready_to_finish())

    def unlink(self, at: int) -> None:
        leaver = (self.reads, self.waits)[at % 2]
        self.lists.pop(leaver.id, None)
        ledger.unlink(leaver.id)

    def _finish_if(self, ended: bool, sync_ids: list[int]) -> None:
        if ended:
            self._finish(sync_ids)

    def _finish(self, sync_ids: tuple[int, ...] | list[int]) -> None:
        for sync_id in ledger.ready_to_finish(sync_ids):
            ledger.finalize(sync_id, COOLDOWN)

    # Afterwards nothing goes wrong any more

    def calm_down(self) -> None:
        for _ in range(6):
            if not Sync.select().where(Sync.finished_at.is_null()).exists() and not Fetch.select().exists():
                break
            lose_leases()
            lose_messages()
            execute("UPDATE ledger SET not_before = ? WHERE not_before IS NOT NULL", (utcnow() - HOUR,))
            ledger.take_back_expired()
            ledger.fail_abandoned()
            for sync in send_syncs(timedelta(0)):
                self._read_whole(sync.sync_id)
            for out in dispatch_all():
                claim = ledger.claim(out.killmail_id)
                assert claim is not None
                assert ledger.settle(claim, make_killmail(claim.killmail_id)).stored
            self._finish(ledger.ready_to_finish())

    def ask_everybody(self) -> None:
        for user_id in self.lists:
            asked = ledger.open_sync(user_id, Trigger.MANUAL, cooldown=COOLDOWN, full=True, force=True)
            assert asked.outcome is ledger.Outcome.CREATED, "every sync ended"

    def _read_whole(self, sync_id: int) -> None:
        sync = ledger.claim_sync(sync_id)
        if sync is None:
            return
        listed = self.lists[sync.user_id]
        while sync.page == 1 or (sync.page - 1) * 3 < len(listed):
            sync = self._page(sync, listed[(sync.page - 1) * 3 : sync.page * 3])
        self._end(sync)


Happening = Callable[[Scene, int], None]
#: One of these, one of those, and perhaps a third of either kind: most others leave each other alone.
THESE: list[Happening] = [Scene.read_on] * 4 + [Scene.unlink] * 2 + [Scene.finish, Scene.ask, Scene.take_over]
THOSE: list[Happening] = (
    [Scene.settle] * 4
    + [Scene.unlink] * 2
    + [
        Scene.ask,
        Scene.look_for_due,
        Scene.retry,
        Scene.defer,
        Scene.reject,
        Scene.fetch,
        Scene.take_back,
        Scene.end_list,
        Scene.fail_list,
    ]
)

this = st.tuples(st.sampled_from(THESE), st.integers(0, 11))
that = st.tuples(st.sampled_from(THOSE), st.integers(0, 11))


#: One is stopped somewhere, and the other goes on to its end; or they take turns.
one_change = st.tuples(st.integers(0, 1), st.integers(1, 10)).map(lambda at: [at, (1 - at[0], 30)])


@given(
    fates=st.lists(st.sampled_from(FATES), min_size=KILLMAILS, max_size=KILLMAILS),
    full=st.booleans(),
    at_once=st.tuples(this, that) | st.tuples(this, that, this | that),
    turns=one_change | st.lists(st.tuples(st.integers(0, 2), st.integers(1, 12)), max_size=6),
)
@budget(examples=120)
def test_steps_at_once_keep_every_promise(
    quick_db: object,
    fates: list[str],
    full: bool,
    at_once: tuple[tuple[Happening, int], ...],
    turns: list[tuple[int, int]],
) -> None:
    scene = Scene(fates, full)
    # Few changes of turn, at any statement: that is what races are made of, and most orders of single steps are not.
    order = [who for who, steps in turns for _ in range(steps)]
    interleave([lambda work=work, at=at: work(scene, at) for work, at in at_once], order)  # type: ignore[misc]
    Snapshot.taken().keeps_the_promises()
    scene.calm_down()
    scene.ask_everybody()
    scene.calm_down()
    now = Snapshot.taken()
    now.keeps_the_promises()
    assert now.ledger == {}, "nothing is left to be done"
    for user_id, listed in scene.lists.items():
        assert now.links[user_id] == set(listed)
    assert not Sync.select().where(Sync.state.not_in([SyncState.FINISHED, SyncState.FAILED])).count()
