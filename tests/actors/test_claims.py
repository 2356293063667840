"""The claim middleware: what a message costs before the actor runs, and what is left when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

import actors
import ledger
from actors.killmails import fetch_killmail
from actors.middleware import FetchClaims
from actors.queues import KILLMAILS, SECOND
from actors.syncs import finish_if_complete
from database import db, execute
from killmails import Killmail, parse_killmail
from models import Fetch, RateSlot, SyncState
from tests.actors.asking import age_leases, ask, only_row, only_sync, rows, stored, wake
from tests.actors.simulated import Pilot


@pytest.fixture
def listed(simulated, crew, post) -> Callable[[int], Pilot]:
    """A pilot whose list is read and none of whose killmails is fetched yet: their messages went astray."""

    def make(killmails: int) -> Pilot:
        pilot: Pilot = simulated.pilot(killmails)
        post.lose("fetch_killmail", times=1_000)
        ask(pilot)
        crew.drain()
        post.mend()
        return pilot

    return make


def _slots() -> float:
    return float(RateSlot.get_by_id("esi").next_at)


def test_a_doubled_message_costs_one_statement_and_no_slot(listed, simulated, crew, statements):
    listed(1)
    fetch_killmail.send(only_row().killmail_id)
    crew.drain()
    [killmail_id] = stored()
    slot = _slots()
    statements.clear()

    fetch_killmail.send(killmail_id)
    crew.drain()

    assert len([sql for sql in statements if not sql.startswith(("PRAGMA", "BEGIN", "COMMIT"))]) == 1, statements
    assert _slots() == slot
    assert len(simulated.asked("killmail")) == 1
    assert crew.dead == []


@pytest.mark.parametrize("state", ["pending", "fetching", "deferred", "rejected"])
def test_a_stale_message_does_nothing_to_a_row_in_another_state(listed, simulated, crew, state):
    listed(1)
    Fetch.update(state=state).execute()
    fetch_killmail.send(only_row().killmail_id)
    crew.drain()
    assert only_row().state == state
    assert simulated.asked("killmail") == []


#: Arguments of a version before or after this one, or of nobody.
SHAPES: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((1, "a" * 40), {}),
    (("1",), {}),
    ((None,), {}),
    ((1.5,), {}),
    ((2**70,), {}),
    ((), {"killmail_id": 1}),
]


@pytest.mark.parametrize(("args", "kwargs"), SHAPES)
def test_a_message_of_another_version_is_skipped(listed, simulated, crew, args, kwargs):
    """What it meant is in the ledger. It is no failure, and hurts nobody else."""
    pilot = listed(1)
    fetch_killmail.send_with_options(args=args, kwargs=kwargs)
    fetch_killmail.send(only_row().killmail_id)
    crew.drain()
    assert crew.dead == []
    assert stored() == simulated.list_of(pilot)


@pytest.fixture
def mistaken(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Killmails on which the parser makes a mistake: a ValueError, which no actor expects."""
    ids: set[int] = set()

    def parse(body: dict[str, Any]) -> Killmail:
        if body["killmail_id"] in ids:
            raise ValueError("a mistake")
        return parse_killmail(body)

    monkeypatch.setattr("actors.killmails.parse_killmail", parse)
    return ids


def test_an_exception_in_the_actor_defers_the_row_and_nothing_leaks(listed, simulated, crew, mistaken):
    pilot = listed(2)
    good, bad = simulated.list_of(pilot)
    mistaken.add(bad)

    fetch_killmail.send(bad)
    fetch_killmail.send(good)
    crew.drain()

    assert [line.partition(":")[0] for line in crew.dead] == ["fetch_killmail"]
    row = only_row()
    assert (row.killmail_id, row.state, row.attempts, row.claimed_until) == (bad, "deferred", 1, None)
    assert row.last_error == "internal error: ValueError"
    assert stored() == [good], "the next message on this thread goes by its own claim"


def test_no_claim_is_left_on_the_thread_for_what_runs_next(listed, simulated, crew, mistaken):
    """After a message that went well, one that failed and one that was skipped, on the one thread there is."""
    pilot = listed(2)
    good, bad = simulated.list_of(pilot)
    mistaken.add(bad)
    claims = next(m for m in actors.broker.middleware if isinstance(m, FetchClaims))
    found: list[object] = []

    @dramatiq.actor(broker=actors.broker, queue_name=KILLMAILS, priority=SECOND, max_retries=0)
    def look() -> None:
        try:
            found.append(claims.held().claim)
        except RuntimeError:
            found.append(None)

    try:
        for killmail_id in (good, bad, good):
            fetch_killmail.send(killmail_id)
            look.send()
        crew.drain(threads=1)
    finally:
        del actors.broker.actors["look"]
    assert found == [None, None, None]
    assert len(simulated.asked("killmail")) == 2


def test_an_exception_completes_the_sync_when_it_was_the_last_attempt(listed, crew, mistaken):
    listed(1)
    Fetch.update(attempts=3).execute()
    mistaken.add(only_row().killmail_id)
    fetch_killmail.send(only_row().killmail_id)
    crew.drain()
    assert (only_sync().state, only_sync().failed) == (SyncState.FINISHED, 1)


def test_a_database_that_fails_before_the_claim_leaves_the_row_to_its_lease(listed, simulated, crew, tick):
    pilot = listed(1)
    db.execute_sql("ALTER TABLE ledger RENAME TO gone")
    fetch_killmail.send(simulated.list_of(pilot)[0])
    crew.drain()
    db.execute_sql("ALTER TABLE gone RENAME TO ledger")

    assert crew.dead == [], "it is skipped, not failed"
    assert simulated.asked("killmail") == []
    assert only_row().state == "sent"
    age_leases()
    tick()
    assert stored() == simulated.list_of(pilot)


def test_a_database_that_fails_after_the_claim_leaves_the_row_to_its_lease(listed, simulated, crew, tick):
    """The limiter's row cannot be read: the claim is given back, and the message is skipped."""
    pilot = listed(1)
    db.execute_sql("ALTER TABLE rate_slots RENAME TO gone")
    fetch_killmail.send(simulated.list_of(pilot)[0])
    crew.drain()
    db.execute_sql("ALTER TABLE gone RENAME TO rate_slots")

    assert simulated.asked("killmail") == []
    assert (only_row().state, only_row().attempts) == ("pending", 0)
    tick()
    assert stored() == simulated.list_of(pilot)


def test_whatever_goes_wrong_before_the_actor_skips_the_message(listed, simulated, crew):
    """A limiter's row that nobody can compute with (a time that is no number) is no PeeweeException: without its claim
    the actor must not run, and the message is not the one to blame."""
    listed(1)
    execute("INSERT OR REPLACE INTO rate_slots (name, next_at) VALUES ('esi', 'soon')")
    fetch_killmail.send(only_row().killmail_id)
    crew.drain()
    assert crew.dead == []
    assert (only_row().state, only_row().attempts) == ("pending", 0)


def _close_the_road() -> None:
    execute("INSERT INTO gates (name, closed_until, reason, failures) VALUES ('killmail', ?, 'told to', 1)",
            (time.time() + 30.0,))  # fmt: skip


def test_on_a_closed_road_rows_go_back_and_one_wake_up_is_planned(listed, simulated, crew, post, tick, later):
    pilot = listed(6)
    ids = simulated.list_of(pilot)
    _close_the_road()
    slot = _slots()

    for killmail_id in ids:
        fetch_killmail.send(killmail_id)
    crew.drain(threads=3)

    assert {(row.state, row.attempts, row.claimed_until) for row in rows().values()} == {("pending", 0, None)}
    assert simulated.asked("killmail") == []
    assert _slots() == slot
    assert crew.dead == []
    assert wake() is not None
    assert len(post.to("dispatch")) == 1
    assert [message for message in post.to("fetch_killmail") if message.delay] == []

    later(60)
    tick()
    assert stored() == ids


def test_two_workers_with_one_message_make_one_request(listed, simulated, crew):
    pilot = listed(1)
    [killmail_id] = simulated.list_of(pilot)
    for _ in range(8):
        fetch_killmail.send(killmail_id)
    crew.drain(threads=4)
    assert len(simulated.asked("killmail")) == 1
    assert stored() == [killmail_id]


def test_a_message_whose_row_is_gone_does_nothing(simulated, crew):
    fetch_killmail.send(123)
    crew.drain()
    assert simulated.asked("killmail") == []
    assert crew.dead == []


def test_a_low_ceiling_does_not_send_the_same_killmails_round_and_round(simulated, sync, configure, post):
    """At 3 requests a second 8 threads cannot all have a slot within two seconds. Those that get none put their rows
    back; sending them again at once would keep workers and broker busy with nothing."""
    configure(ESI_REQUESTS_PER_SECOND="3")
    pilot = simulated.pilot(8)
    sync(pilot, threads=8)
    assert stored() == simulated.list_of(pilot) or wake() is not None
    assert len(post.to("fetch_killmail")) <= 3 * 8


def test_release_after_the_lease_is_lost_changes_nothing(listed):
    listed(1)
    first = ledger.claim(only_row().killmail_id)
    assert first is not None
    age_leases()
    ledger.take_back_expired()
    ledger.release(first)
    assert (only_row().state, only_row().attempts) == ("pending", 1)


def test_whether_a_sync_is_complete_is_asked_after_the_commit():
    """Within it, two last workers on PostgreSQL would not see each other's row go, and nobody would end the sync."""
    with db.atomic(), pytest.raises(RuntimeError, match="after the commit"):
        finish_if_complete([1])
