"""Slots for refreshes: four over all processes, the last for interactive syncs, and none lost for good."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

import database
from esi import refresh_slots
from esi.refresh_slots import KEPT_FOR_INTERACTIVE, LEASE_SECONDS, SLOTS, Slot
from models import Gate, RefreshSlot

PROCESSES, THREADS, TURNS = 2, 6, 8
NO_FAILURES = ("none", "none")


def take(*, interactive: bool = True) -> Slot | None:
    return refresh_slots.take(None, NO_FAILURES, interactive=interactive)


def take_all(*, interactive: bool) -> list[Slot]:
    return list(iter(lambda: take(interactive=interactive), None))


def test_two_processes_never_hold_more_than_four(any_db_url):
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        held = [span for part in pool.map(_hold_in_turn, [any_db_url] * PROCESSES) for span in part]
    assert len(held) == PROCESSES * THREADS * TURNS
    edges = sorted([(begin, 1) for begin, _ in held] + [(end, -1) for _, end in held])
    at_once, most = 0, 0
    for _, step in edges:
        at_once += step
        most = max(most, at_once)
    assert 1 <= most <= SLOTS


def test_the_background_leaves_one_to_interactive_syncs(any_db):
    assert len(take_all(interactive=False)) == SLOTS - KEPT_FOR_INTERACTIVE
    assert not refresh_slots.any_free(interactive=False)
    assert refresh_slots.any_free(interactive=True)
    assert len(take_all(interactive=True)) == KEPT_FOR_INTERACTIVE
    assert not refresh_slots.any_free(interactive=True)


@pytest.mark.parametrize("interactive", [False, True])
def test_users_known_to_fail_have_one_together_which_the_others_take_last(any_db, interactive):
    failing = refresh_slots.take(None, NO_FAILURES, interactive=interactive, fails=True)
    assert failing is not None
    assert refresh_slots.take(None, NO_FAILURES, interactive=interactive, fails=True) is None
    assert not refresh_slots.any_free(interactive=interactive, fails=True)
    assert len(take_all(interactive=False)) == SLOTS - KEPT_FOR_INTERACTIVE - 1
    refresh_slots.release(failing)
    assert refresh_slots.any_free(interactive=interactive, fails=True)
    last = take(interactive=False)
    assert last is not None
    assert last.id == failing.id


def test_a_slot_is_given_back_once_and_by_its_holder(any_db):
    first, *_ = take_all(interactive=True)
    refresh_slots.release(first)
    again = take()
    assert again is not None
    assert again.id == first.id
    refresh_slots.release(first)
    assert take() is None, "the second release was of a lease that had ended"


def test_the_slot_of_a_process_that_died_is_free_when_its_lease_ends(any_db):
    held = take_all(interactive=True)
    RefreshSlot.update(held_until=RefreshSlot.held_until - LEASE_SECONDS - 1).execute()
    assert len(take_all(interactive=True)) == SLOTS
    assert refresh_slots.renew(held[0]) is None


def test_a_renewed_lease_is_the_only_one_that_counts(any_db):
    first = take()
    assert first is not None
    renewed = refresh_slots.renew(first)
    assert renewed is not None
    assert renewed.held_until > first.held_until
    refresh_slots.release(first)
    assert RefreshSlot.get_by_id(first.id).held_until == renewed.held_until


@pytest.mark.parametrize(
    "trouble", ["DELETE FROM refresh_slots", "UPDATE refresh_slots SET held_until = 33000000000.0"]
)
def test_rows_that_are_gone_or_held_for_a_thousand_years_are_slots_again(any_db, trouble):
    database.execute(trouble)
    assert refresh_slots.any_free(interactive=False)
    assert len(take_all(interactive=True)) == SLOTS


@pytest.mark.parametrize(("failures", "taken"), [(0, True), (1, False)])
def test_behind_a_gate_that_is_not_open_no_slot_is_taken(any_db, failures, taken):
    Gate.create(name="login service", failures=failures, force_insert=True)
    assert (refresh_slots.take("login service", NO_FAILURES, interactive=True) is not None) is taken


def _hold_in_turn(url: str) -> list[tuple[float, float]]:
    """What one process does: all its threads take, hold and give back. Returns from when until when each was held."""
    database.connect(url)
    spans: list[tuple[float, float]] = []

    def work() -> None:
        with database.db.connection_context():
            for _ in range(TURNS):
                while (slot := take()) is None:
                    pass
                begin = time.monotonic()
                for _ in range(20):  # takes a moment, as a request does
                    refresh_slots.any_free(interactive=True)
                spans.append((begin, time.monotonic()))
                refresh_slots.release(slot)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return spans
