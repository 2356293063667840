"""Everything that may happen to the ledger, in any order, beside a model of it (`model.py`).

Three characters with lists that change all the time; syncs asked for, read, left and taken up again; messages that are
late, lost, or come twice; workers that fail, die, or come back after they were given up; pilots who leave. Every step
is done on one of two connections in turn and compared with the model; at the end of each example the faults stop, and
then everything has to come to its end.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

import ledger
from database import execute, utcnow
from ledger import Allowed
from models import Trigger
from tests.properties.lists import CHARACTERS, Lists, Reader, Worker, character, long_lists, which
from tests.properties.model import FOREIGN
from tests.properties.table import Snapshot
from tests.unit.ledger.world import FIRST_CHARACTER, HOUR, make_killmail, send_syncs

late_answers = st.sampled_from(["answer", "answer", "release", "defer", "reject"])


class LedgerMachine(Lists):
    @initialize(first=long_lists, second=long_lists, known=st.booleans(), steps=st.integers(0, 30))
    def begin(self, first: list[int], second: list[int], known: bool, steps: int) -> None:
        """Two pilots whose lists overlap are in the middle of their syncs."""
        self.lists[:2] = [first, second]
        for number in range(2):
            self.link(number, known)
            self.ask(number, Trigger.SCHEDULE, full=False, force=False)
        self.all_goes_well(steps)

    # Fetching

    @rule(
        interactive=st.integers(0, 8),
        background=st.integers(0, 8),
        window=st.integers(1, 8),
        refused=which,
        doubtful=st.integers(-2, 9),
        behind=st.integers(-2, 9),
    )
    def dispatch(
        self,
        interactive: int,
        background: int,
        window: int,
        refused: int = 20,
        doubtful: int = 1_000,
        behind: int = 1_000,
    ) -> None:
        doubtful = max(0, doubtful)
        behind = min(doubtful, max(0, behind))
        expected = self.model.to_dispatch(interactive, background, window, doubtful, behind)
        sent = self.do(ledger.dispatch, Allowed(interactive, background, doubtful=doubtful, behind=behind), window)
        assert [out.killmail_id for out in sent] == expected
        for killmail_id in expected:
            self.model.rows[killmail_id].put("sent")
        given_back = expected[refused:]  # the broker went away in the middle
        self.do(ledger.give_back, given_back)
        for killmail_id in given_back:
            self.model.rows[killmail_id].put("pending")
        self.messages += [("fetch", killmail_id) for killmail_id in expected[:refused]]

    @rule(pick=which)
    def esi_answers(self, pick: int) -> None:
        worker = self.a_worker(pick)
        if worker is None:
            return
        self.workers.remove(worker)
        claim = worker.claim
        row = self.model.rows.get(claim.killmail_id)
        named = [n for n in range(CHARACTERS) if (claim.killmail_id, n) not in FOREIGN]
        body = make_killmail(claim.killmail_id, [FIRST_CHARACTER + n for n in named])
        settled = self.do(ledger.settle, claim, body)
        assert settled.stored == (row is not None), "in whatever state it is"
        if settled.stored:
            waited = {s for s, run in self.model.runs.items() if claim.killmail_id in run.items}
            assert set(settled.sync_ids) == waited
            self.model.settled(claim.killmail_id)
            self.finish_if_complete(settled.sync_ids)

    @rule(pick=which, how=st.sampled_from(["release", "defer", "refuse", "reject"]))
    def esi_does_not_answer(self, pick: int, how: str) -> None:
        worker = self.a_worker(pick)
        if worker is not None:
            self._no_answer(worker, how)

    def _no_answer(self, worker: Worker, how: str) -> None:
        self.workers.remove(worker)
        claim = worker.claim
        row = self.model.rows.get(claim.killmail_id)
        done: tuple[int, ...] = ()
        if how == "release":
            self.do(ledger.release, claim)
        elif how == "reject":
            done = self.do(ledger.reject, claim, "422")
        else:
            done = self.do(ledger.defer, claim, "500", refused=how == "refuse")
        self._put_off()
        if row is not None and row.holder is worker:
            if how == "release":
                row.put("pending")
            elif how == "reject":
                self.model.rejected(row)
            else:
                self.model.put_off(row, refused=how == "refuse")
            if not row.unsettled:
                assert set(done) == {s for s, run in self.model.runs.items() if claim.killmail_id in run.items}
        self.finish_if_complete(done)

    @rule(pick=which, times=st.integers(1, 4))
    def a_killmail_goes_on_failing(self, pick: int, times: int) -> None:
        for _ in range(times):
            self.time_passes()
            self.dispatch(20, 20, 20)
            self.deliver_all("fetch")
            if self.workers:
                self.workers.sort(key=lambda worker: -worker.claim.killmail_id)
                self.esi_does_not_answer(pick, "defer")

    def a_worker(self, pick: int) -> Worker | None:
        """One of those at work; some take up what is sent where nobody is."""
        if not self.workers:
            self.dispatch(8, 8, 3)
            self.deliver_all("fetch")
        return self.workers[pick % len(self.workers)] if self.workers else None

    # Time, death and repair

    @precondition(lambda self: self.workers or self.readers)
    @rule(pick=which)
    def somebody_dies(self, pick: int) -> None:
        everybody: list[Any] = [*self.workers, *self.readers]
        dead = everybody[pick % len(everybody)]
        (self.workers if isinstance(dead, Worker) else self.readers).remove(dead)

    @rule(pick=which)
    def a_lease_runs_out(self, pick: int) -> None:
        """Its worker may be dead, or only slow: then it goes on, and does not know."""
        out: list[int] = [w for w, row in self.model.rows.items() if row.state in ("sent", "fetching")]
        reading = [s for s, run in self.model.runs.items() if run.holder is not None]
        if not out + reading:
            return
        chosen = pick % len(out + reading)
        if chosen < len(out):
            self._claim_runs_out(out[chosen])
        else:
            self._reading_runs_out(reading[chosen - len(out)])

    @rule(pick=which, how=late_answers)
    def a_worker_that_was_given_up_comes_back(self, pick: int, how: str) -> None:
        slow = self._given_up(pick)
        if slow is not None:
            self._comes_back(slow, how)

    @rule(pick=which, how=late_answers)
    def a_worker_that_was_replaced_comes_back(self, pick: int, how: str) -> None:
        slow = self._given_up(pick)
        if slow is not None:
            self.dispatch(20, 20, 20)
            self.deliver_all("fetch")
            self._comes_back(slow, how)

    def _given_up(self, pick: int) -> Worker | None:
        """A worker whose lease ran out, and whose killmail was taken back."""
        slow = self.a_worker(pick)
        row = self.model.rows.get(slow.claim.killmail_id) if slow else None
        if slow is None or row is None or row.holder is not slow:
            return None
        self._claim_runs_out(slow.claim.killmail_id)
        self.tick()
        return slow

    def _comes_back(self, slow: Worker, how: str) -> None:
        if how == "answer":
            self.esi_answers(self.workers.index(slow))
        else:
            self._no_answer(slow, how)

    @rule(pick=which)
    def a_slow_reader_is_replaced(self, pick: int) -> None:
        slow = self.a_reader(pick)
        run = self.model.runs.get(slow.sync.sync_id) if slow else None
        if slow is None or run is None or run.holder is not slow:
            return
        self._reading_runs_out(slow.sync.sync_id)
        self.tick()
        self.deliver_all("sync")
        self.read_on(slow)

    def _claim_runs_out(self, killmail_id: int) -> None:
        past = utcnow() - HOUR
        self._expire("ledger", "killmail_id", killmail_id, past)
        row = self.model.rows[killmail_id]
        row.expired = True
        if isinstance(row.holder, Worker):
            row.holder.claim = replace(row.holder.claim, lease=past)

    def _reading_runs_out(self, sync_id: int) -> None:
        past = utcnow() - HOUR
        self._expire("syncs", "id", sync_id, past)
        run = self.model.runs[sync_id]
        run.expired = True
        assert isinstance(run.holder, Reader)
        run.holder.sync = replace(run.holder.sync, lease=past)

    @rule()
    def time_passes(self) -> None:
        """Waits are over, cool-downs too, and whatever was sent was sent long ago."""
        past = utcnow() - HOUR
        execute("UPDATE ledger SET not_before = ? WHERE state = 'deferred'", (past,))
        execute("UPDATE syncs SET sent_at = ? WHERE sent_at IS NOT NULL", (past,))
        execute("UPDATE syncs SET waiting_until = ? WHERE waiting_until IS NOT NULL", (past,))
        execute("UPDATE users SET last_killmail_sync_at = ?, next_sync_at = ?", (past, past))
        for row in self.model.rows.values():
            row.due = row.state == "deferred"
        for run in self.model.runs.values():
            run.waiting = False
        for pilot in self.model.pilots.values():
            pilot.cooling_down, pilot.due = False, True

    @rule()
    def tick(self) -> None:
        assert self.do(ledger.take_back_expired) == self.model.taken_back()
        self._put_off()
        listing = [(s, run) for s, run in self.model.runs.items() if run.expired]
        failed = self.do(ledger.fail_abandoned)
        assert set(failed) == {sync_id for sync_id, run in listing if run.attempts >= 4}
        for sync_id in failed:
            self.model.failed(self.model.runs[sync_id])
        self.model.taken_from_dead_readers()
        self.messages += [("sync", sync.sync_id) for sync in self.do(send_syncs)]
        ready = set(self.do(ledger.ready_to_finish))
        assert ready == self.model.complete_runs()
        self.messages += [("finalize", sync_id) for sync_id in ready]

    @rule(sure=st.integers(0, 7))
    def the_only_process_starts_again(self, sure: int) -> None:
        if sure < 7:
            return  # it stops everything, so seldom
        self.do(ledger.reset_unfinished)
        self._put_off()
        self.readers, self.workers, self.messages = [], [], []
        self.model.restarted()

    # How it goes when nothing goes wrong

    @rule(steps=st.integers(1, 12))
    def all_goes_well(self, steps: int) -> None:
        """So many steps as they follow from one another: without it, few examples would get anywhere."""
        for _ in range(steps):
            if self.workers:
                self.esi_answers(0)
            elif self.readers:
                self.read(0)
            elif self.messages:
                self.deliver(0, False)
            else:
                self.dispatch(8, 8, 8)

    @rule(number=character)
    def a_pilot_comes_back(self, number: int) -> None:
        self.link(number, True)
        self.ask(number, Trigger.LOGIN, full=False, force=True)

    @invariant()
    def the_database_is_what_the_model_says(self) -> None:
        now = Snapshot.taken()
        now.keeps_the_promises(may_be_hidden={killmail_id for killmail_id, _ in FOREIGN})
        now.compare(self.model)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.come_to_an_end()
        finally:
            self.connections.close()

    def come_to_an_end(self) -> None:
        """The faults stop. Nobody lends a hand but the clock."""
        self.readers, self.workers = [], []
        self._calm_down()
        for number in range(CHARACTERS):
            self.ask(number, Trigger.MANUAL, full=True, force=True)
        self._calm_down()
        for number, user_id in enumerate(self.users):
            if user_id is not None:
                assert set(self.lists[number]) <= Snapshot.taken().stored, "everything listed is stored"

    def _calm_down(self) -> None:
        for _ in range(10):
            past = utcnow() - HOUR - timedelta(seconds=1)
            for name in ("ledger", "syncs"):
                execute(f"UPDATE {name} SET claimed_until = ? WHERE claimed_until IS NOT NULL", (past,))
            for row in self.model.rows.values():
                row.expired = row.state in ("sent", "fetching")
            for run in self.model.runs.values():
                run.expired = run.holder is not None
            self.time_passes()
            self.tick()
            self.dispatch(100, 100, 100)
            while self.workers or self.readers or self.messages:
                self.all_goes_well(1)
            self.the_database_is_what_the_model_says()
        assert not [run for run in self.model.runs.values() if run.active], "every sync ends"
        assert {row.state for row in self.model.rows.values()} <= {"rejected"}, "every row comes to its end"

    def _expire(self, name: str, key: str, value: int, past: Any) -> None:
        execute(f"UPDATE {name} SET claimed_until = ? WHERE {key} = ?", (past, value))

    def _put_off(self) -> None:
        """What was deferred just now stays so until `time_passes`, however slow this machine is."""
        now = utcnow()
        execute("UPDATE ledger SET not_before = ? WHERE state = 'deferred' AND not_before > ?", (now + HOUR, now))
