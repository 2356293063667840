"""The whole flow with everybody at work at once, in seeded random order, and what holds in the end whatever happened:
every user has every killmail of their list, each was stored once, and every sync has ended and counted right.

Readers, workers, dispatchers, ticks, pilots who ask again and one who leaves run as threads. Some die half-way: they
stop after a commit, without what they would have done next, and their leases run out.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

import ledger
from database import execute, lock_clause, utcnow
from ledger import Allowed
from ledger.reading import Reading
from models import Fetch, Sync, SyncState, Trigger, User
from tests.unit.ledger.at_once import together
from tests.unit.ledger.world import (
    COOLDOWN,
    ETAG,
    HOUR,
    ledger_ids,
    links,
    lose_messages,
    make_user,
    references,
    send_syncs,
    settle,
    stored_ids,
)

PAGE = 6
ROUNDS = 40


class Flow:
    """Everybody's lists, and what was stored by whom."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        dice = random.Random(seed)
        self.users = [make_user() for _ in range(4)]
        self.lists = {user.id: dice.sample(range(1, 60), 25) for user in self.users}
        self.stored: Counter[int] = Counter()

    def worker(self, number: int) -> None:
        """Does whatever there is to do, and now and then dies in the middle of it."""
        dice = random.Random(f"{self.seed} {number}")
        works: list[Callable[[random.Random], None]] = [
            self.dispatch,
            self.dispatch,
            self.fetch,
            self.fetch,
            self.fetch,
        ]
        works += [self.read, self.read, self.ask, self.tick, self.finish]
        for _ in range(ROUNDS):
            dice.choice(works)(dice)

    def ask(self, dice: random.Random) -> None:
        user, trigger = dice.choice(self.users), dice.choice(list(Trigger))
        ledger.open_sync(user.id, trigger, cooldown=COOLDOWN, full=dice.random() < 0.2, force=dice.random() < 0.2)
        ledger.open_due_syncs(10)

    def read(self, dice: random.Random) -> None:
        waiting = [sync.id for sync in Sync.select().where(Sync.finished_at.is_null())]
        sync = ledger.claim_sync(dice.choice(waiting)) if waiting else None
        if sync is None:
            return
        ids, seen = self.lists[sync.user_id], set[int]()
        while (sync.page - 1) * PAGE < len(ids):
            if dice.random() < 0.1:
                return  # killed
            page = ids[(sync.page - 1) * PAGE : sync.page * PAGE]
            dice.shuffle(page)
            added = ledger.add_page(sync, references(page), reading=Reading(pages=5), etag=ETAG, seen=seen)
            if added is None:
                return
            sync = added.sync
        if ledger.end_listing(sync, etag=ETAG, fresh_for=0, complete=True) and dice.random() < 0.5:
            self.end(ledger.ready_to_finish([sync.sync_id]))

    def dispatch(self, dice: random.Random) -> None:
        sent = ledger.dispatch(Allowed(dice.randint(0, 20), dice.randint(0, 10)), 12)
        if dice.random() < 0.2:
            ledger.give_back([out.killmail_id for out in sent[1:]])

    def fetch(self, dice: random.Random) -> None:
        out = [row.killmail_id for row in Fetch.select().where(Fetch.state == "sent")]
        for killmail_id in dice.sample(out, min(3, len(out))):
            claim = ledger.claim(killmail_id)
            fate = dice.random()
            if claim is None or fate < 0.1:
                continue  # a doubled message; killed
            if fate < 0.2:
                ledger.release(claim)
            elif fate < 0.35:
                self.end(ledger.ready_to_finish(ledger.defer(claim, "ESI answered 500")))
            else:
                settled = settle(claim)
                if settled.stored:
                    self.stored[killmail_id] += 1
                    self.end(ledger.ready_to_finish(settled.sync_ids))

    def tick(self, dice: random.Random) -> None:
        """Some of what is out is taken for lost, dead or not."""
        lost = utcnow() - HOUR
        execute(
            f"""UPDATE ledger SET claimed_until = ? WHERE killmail_id IN (
                   SELECT killmail_id FROM ledger
                   WHERE claimed_until IS NOT NULL AND killmail_id - killmail_id / 3 * 3 = ?
                   ORDER BY killmail_id {lock_clause()})""",
            (lost, dice.randrange(3)),
        )
        ledger.take_back_expired()
        send_syncs()
        self.end(ledger.ready_to_finish())

    def finish(self, dice: random.Random) -> None:
        self.end(ledger.ready_to_finish())

    def end(self, sync_ids: list[int]) -> None:
        for sync_id in sync_ids:
            ledger.finalize(sync_id, COOLDOWN)

    def leave(self, user: User) -> None:
        ledger.unlink(user.id)

    def calm_down(self) -> None:
        """Nobody dies any more, and time passes."""
        sure = random.Random(1)
        sure.random = lambda: 1.0  # type: ignore[method-assign]
        for _ in range(8):
            past = utcnow() - HOUR
            execute("UPDATE ledger SET claimed_until = ? WHERE claimed_until IS NOT NULL", (past,))
            execute("UPDATE syncs SET claimed_until = ? WHERE claimed_until IS NOT NULL", (past,))
            execute("UPDATE ledger SET not_before = ? WHERE not_before IS NOT NULL", (past,))
            lose_messages()
            ledger.take_back_expired()
            for _ in self.users:
                self.read(sure)
            ledger.dispatch(Allowed(100, 100), 100)
            for _ in range(25):
                self.fetch(sure)
            self.end(ledger.ready_to_finish())


@pytest.mark.parametrize("seed", range(4))
def test_everybody_at_once(seed):
    flow = Flow(seed)
    leaver, *stayers = flow.users
    ledger.open_due_syncs(10)
    together(*[partial(flow.worker, number) for number in range(4)])
    together(*[partial(flow.worker, number) for number in range(4, 7)], partial(flow.leave, leaver))
    assert flow.stored
    flow.users = stayers
    flow.calm_down()
    # Then every list is complete
    assert ledger_ids() == set()
    for user in stayers:
        assert links(user) <= set(flow.lists[user.id])
        assert links(user) <= stored_ids()
    assert stored_ids() == {killmail_id for user in stayers for killmail_id in links(user)}
    # Nothing was stored twice, but for what went with the one who left
    gone = set(flow.lists[leaver.id])
    assert {killmail_id for killmail_id, times in flow.stored.items() if times > 1} <= gone
    # And every sync has ended and says how
    for sync in Sync.select():
        assert sync.state in (SyncState.FINISHED, SyncState.FAILED)
        assert min(sync.found, sync.saved, sync.skipped, sync.failed) >= 0
        if sync.state == SyncState.FINISHED:
            assert links(sync.user) == set(flow.lists[sync.user_id])
            assert sync.found == sync.saved + sync.skipped + sync.failed == len(flow.lists[sync.user_id])
