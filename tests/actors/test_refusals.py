"""Killmails that ESI refuses are their pilot's problem: they cost the others neither their turn nor ESI's errors."""

from __future__ import annotations

import time
from datetime import timedelta

import events
import runtime
from actors.dispatching import REFUSED
from actors.middleware import THIS_ADDRESS
from actors.sync_dispatching import killmails_first
from api import syncs
from database import execute, utcnow
from esi.rate_limit import ERRORS, KILLMAIL, Doubt
from ledger.rules import LAST_TURN
from models import Gate, Sync, SyncState
from tests.actors.asking import ask, only_sync, rows, stored


def refuse_all(simulated, pilot) -> None:
    for killmail_id in simulated.list_of(pilot):
        simulated.fault("killmail", "status:422", killmail_id=killmail_id)


def refusals(simulated) -> int:
    return sum(entry.status == 422 for entry in simulated.asked("killmail"))


def is_open() -> bool:
    return runtime.limiter().allowance(KILLMAIL, THIS_ADDRESS, background=False).reopens_at is None


def test_a_pilot_whose_killmails_are_all_refused_delays_no_other_pilot_and_closes_no_gate(simulated, crew, later, tick):
    # Given a pilot with 100 newer killmails that ESI refuses, and one with 20 good ones
    good, bad = simulated.pilot(20), simulated.pilot(100)
    refuse_all(simulated, bad)
    asked = ask(bad)
    ask(good)
    # When both are fetched, without a wait
    crew.drain(threads=4)
    # Then the good ones are stored, and most of the errors that may be made in a minute are left
    assert stored() == simulated.list_of(good)
    assert refusals(simulated) <= ERRORS.allowance // 2 + 4
    assert is_open()
    # And the other sync ends, too, at the pace that the errors allow
    for _ in range(16):
        later(61)
        before = refusals(simulated)
        tick()
        assert refusals(simulated) - before <= ERRORS.allowance - Doubt.MUCH + 4
        assert is_open()
    done = Sync.get_by_id(asked.sync_id)
    assert (done.state, done.failed) == (SyncState.FINISHED, 100)
    assert refusals(simulated) <= 200 + 8, "two tries each"


def test_the_button_gives_what_was_refused_one_try_behind_everything_else(simulated, crew, later, tick):
    good, bad = simulated.pilot(20), simulated.pilot(10)
    refuse_all(simulated, bad)
    ask(bad)
    crew.drain()
    later(61)
    tick()
    before = refusals(simulated)
    assert {row.attempts for row in rows().values()} == {4}
    ask(bad)
    ask(good)
    crew.drain(threads=2)
    assert stored() == simulated.list_of(good)
    later(61)
    tick()
    assert refusals(simulated) - before == 10


def test_a_killmail_that_another_pilot_wants_as_well_keeps_its_turn(simulated, crew):
    bad, other = simulated.pilot(20), simulated.pilot()
    refuse_all(simulated, bad)
    shared = simulated.fight(bad, 1, other, late=True)
    simulated.fault("killmail", "status:500", killmail_id=shared[0])
    ask(other)
    ask(bad)
    crew.drain()
    turns = {killmail_id: row.turn for killmail_id, row in rows().items()}
    assert turns.pop(shared[0]) < LAST_TURN
    assert any(turn >= LAST_TURN for turn in turns.values())


def test_a_few_refusals_in_a_long_list_put_nothing_behind(simulated, crew):
    pilot = simulated.pilot(40)
    refused = simulated.list_of(pilot)[::10]
    for killmail_id in refused:
        simulated.fault("killmail", "status:422", killmail_id=killmail_id)
    ask(pilot)
    crew.drain()
    assert set(rows()) == set(refused)
    assert all(row.turn < LAST_TURN for row in rows().values())


def test_many_pilots_with_a_few_refused_killmails_each_close_no_gate(simulated, crew):
    """None of them is refused often; together they would use up all errors."""
    bad = [simulated.pilot(10) for _ in range(25)]
    for pilot in bad:
        for killmail_id in simulated.list_of(pilot)[:6]:
            simulated.fault("killmail", "status:422", killmail_id=killmail_id)
    good = simulated.pilot(30)
    for pilot in [*bad, good]:
        ask(pilot)
    crew.drain(threads=4)
    assert stored() >= simulated.list_of(good), "beside 150 killmails that are refused"
    assert refusals(simulated) < ERRORS.allowance
    assert is_open()


def test_one_pilots_refused_killmails_hold_back_neither_anothers_nor_lists(simulated, crew, later, tick):
    # Given a pilot whose killmails are all refused, as long as the errors last that those may make
    flood = simulated.pilot(60)
    refuse_all(simulated, flood)
    ask(flood)
    crew.drain(threads=4)
    # When another pilot's sync meets three refusals once
    other = simulated.pilot(10)
    refused = simulated.list_of(other)[:3]
    for killmail_id in refused:
        simulated.fault("killmail", "status:422", killmail_id=killmail_id, count=1)
    asked = ask(other)
    crew.drain()
    assert set(rows()) >= set(refused)
    later(7)
    tick()
    # Then it is complete seconds later
    assert Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED
    # And background's lists need not make room for what is refused
    assert killmails_first() is None


def test_doubtful_killmails_wait_while_half_of_the_errors_are_used_and_are_woken_for(
    simulated, crew, post, later, tick
):
    pilot = simulated.pilot(3)
    post.refuse("fetch_killmail")
    ask(pilot)
    crew.drain()
    post.mend()
    execute("UPDATE ledger SET turn = turn + ? WHERE killmail_id < ?", (LAST_TURN, simulated.list_of(pilot)[0]))
    for _ in range(ERRORS.allowance // 2):
        runtime.limiter().acquire(KILLMAIL, THIS_ADDRESS, background=False).answered(404, {})
    tick()
    assert stored() == simulated.list_of(pilot)[:1]
    assert [message for message in post.to("dispatch") if message.delay], "a dispatch is planned for when they may go"
    view = syncs.load([only_sync().id])[only_sync().id]
    assert (view.state, view.waiting_for) == ("WAITING", REFUSED)
    assert view.waiting_until is not None
    assert timedelta(0) < view.waiting_until - utcnow() <= timedelta(seconds=61)
    later(61)
    tick()
    assert stored() == simulated.list_of(pilot)


def test_killmails_that_fail_make_no_viewer_of_another_sync_look_again(simulated, crew, post, tick):
    """Their own pilot is told once, when nothing else is left to fetch; an error burst is no news for all others."""
    pilots = simulated.pilot(10), simulated.pilot(10)
    simulated.fault("killmail", "status:500")
    post.refuse("fetch_killmail")
    asked = [ask(pilot).sync_id or 0 for pilot in pilots]
    crew.drain()
    post.mend()
    told: list[object] = []
    events.subscribe(told.append)
    tick()
    events.close()
    assert {row.state for row in rows().values()} == {"deferred"}
    assert sorted(told, key=repr) == [events.SyncChanged(sync_id) for sync_id in asked]
    for sync_id in asked:
        assert syncs.load([sync_id])[sync_id].waiting_for == "ESI did not give 10 killmails; trying again"


def gates_closed_since(began: float) -> list[str]:
    return sorted(gate.name for gate in Gate.select().where(Gate.closed_until > began))


def test_killmails_of_one_pilot_that_are_told_to_wait_close_no_gate_for_the_others(simulated, sync, later, tick):
    """A 429 that is not the bucket's own concerns the pilot whose list holds the killmail, not each killmail's own."""
    # Given a pilot with eight killmails for which ESI asks to wait a quarter of an hour
    began = time.time()
    good, bad = simulated.pilot(3), simulated.pilot(8)
    simulated.fault("killmail", "429_bare_wait", seconds=900, character_id=bad.character_id)
    sync(bad)
    # Then no gate closes, also when they are asked for again
    assert gates_closed_since(began) == []
    assert {row.attempts for row in rows().values()} == {1}
    # And another pilot's are stored
    sync(good)
    assert stored() == simulated.list_of(good)
    later(1100)
    tick()
    assert {row.attempts for row in rows().values()} == {2}
    assert gates_closed_since(began - 1100) == []
