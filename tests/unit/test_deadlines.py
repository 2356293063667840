"""Stored times further ahead than anything sets them: a clock that ran ahead and was set back, or an edit by hand."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from peewee import Database, DateTimeField

import actors.dispatching
import actors.names
import actors.solar_systems
import ledger
import periodic_runs
import prices
from database import as_datetime, db, execute, utcnow
from deadlines import (
    DAY,
    HOURLY,
    NAME_RETRY,
    UNINDEXED,
    WAKE,
    Deadline,
    deadlines,
    expire_implausible_deadlines,
    hourly_deadlines,
)
from ledger.rules import FAILED_SYNC_BACKOFF, FETCH_BACKOFF
from models import (
    TABLES,
    Fetch,
    FormerOwner,
    Lock,
    Name,
    PeriodicRun,
    PriceList,
    RecentUnlink,
    SolarSystem,
    Sync,
    Wait,
)  # fmt: skip
from tests.unit.ledger.world import (
    claimed,
    dispatch_all,
    failed,
    listed,
    make_user,
    opened,
    reading,
    row_state,
    send_syncs,
    stored,
    sync_row,
    taken,
    user_row,
)

COOLDOWN = timedelta(minutes=15)
#: Of `periodic_runs`: the look at what a tick has no index for.
TURN = "implausible deadlines"
#: Times that say when something was, and that nothing waits for.
PAST = {
    *("users.expires_at", "users.last_killmail_sync_at", "users.created_at", "users.list_changed_at"),
    "users.refresh_fails_since",
    "users.list_counted_at",
    *("user_killmails.linked_at", "former_killmails.linked_at", "recent_unlinks.last_sync_at"),
    *(
        "syncs.queued_at",
        "syncs.refused_since",
        "syncs.started_at",
        "syncs.finished_at",
        "ledger.created_at",
        "killmails.created_at",
    ),
    *("killmails.killmail_time", "names.updated_at", "prices.updated_at", "row_counts.counted_at"),
}


@pytest.fixture(autouse=True)
def _connected(any_db: Database) -> Iterator[None]:
    """This hour's look is over: what a test finds, a tick finds."""
    assert periodic_runs.begin(TURN, HOURLY)
    yield


def an_hour_later() -> None:
    periodic_runs.put_off(TURN, -timedelta(seconds=1))


@pytest.fixture
def world() -> None:
    """One row in every table of the list, such that each deadline concerns it once its condition is met."""
    sync_id = opened(make_user())
    Sync.update(state="LISTING").where(Sync.id == sync_id).execute()
    Fetch.create(killmail_id=1, killmail_hash="0" * 40, priority=3, force_insert=True)
    Name.create(id=1, force_insert=True)
    SolarSystem.create(id=1, force_insert=True)
    PriceList.create(name="esi", force_insert=True)
    Wait.create(name="background", force_insert=True)
    PeriodicRun.create(name="count", due_at=utcnow(), force_insert=True)
    FormerOwner.create(character_id=1, character_name="A pilot", owner_hash="former", sold_at=utcnow())
    RecentUnlink.create(character_key="key", forget_at=utcnow(), force_insert=True)
    Lock.update(wake_at=None).execute()


def meet(deadline: Deadline) -> None:
    """Make the row such that the deadline's condition holds, but for the column itself."""
    if deadline.table == "ledger":
        state = "deferred" if deadline.column == "not_before" else "fetching"
        execute("UPDATE ledger SET state = ?", (state,))
    for column, number in re.findall(r"(attempts|consecutive_failures) (?:<=|=|>=) (\d+)", deadline.only):
        execute(f"UPDATE {deadline.table} SET {column} = ?", (int(number),))


def put(deadline: Deadline, value: datetime) -> None:
    where = WHERE.get(deadline.table, "")
    execute(f"UPDATE {deadline.table} SET {deadline.column} = ? {where}", (value,))


#: Of the table's one row that the tests change.
WHERE = {"locks": "WHERE name = 'dispatch'", "periodic_runs": "WHERE name = 'count'"}


def value_of(deadline: Deadline) -> datetime | None:
    where = WHERE.get(deadline.table, "")
    [value] = execute(f"SELECT {deadline.column} FROM {deadline.table} {where}").fetchone()
    return None if value is None else as_datetime(value)


def name_of(deadline: Deadline) -> str:
    return f"{deadline.name} where {deadline.only}"


@pytest.mark.parametrize("deadline", deadlines(COOLDOWN), ids=name_of)
@pytest.mark.usefixtures("world")
def test_what_lies_beyond_the_horizon_is_over_and_what_lies_within_is_kept(deadline: Deadline) -> None:
    meet(deadline)
    within = deadline.far(utcnow()) - timedelta(seconds=10)
    put(deadline, within)
    assert expire_implausible_deadlines(COOLDOWN) == {}
    assert value_of(deadline) == within

    put(deadline, deadline.far(utcnow()) + timedelta(minutes=1))
    assert expire_implausible_deadlines(COOLDOWN) == {deadline.name: 1}
    ended = value_of(deadline)
    assert ended is None if deadline.clear else ended is not None and ended <= utcnow()


@pytest.mark.parametrize("deadline", hourly_deadlines(COOLDOWN), ids=name_of)
@pytest.mark.usefixtures("world")
def test_what_a_tick_has_no_index_for_is_over_within_the_hour(deadline: Deadline) -> None:
    meet(deadline)
    within = deadline.far(utcnow()) - timedelta(seconds=10)
    put(deadline, within)
    an_hour_later()
    assert expire_implausible_deadlines(COOLDOWN) == {}
    assert value_of(deadline) == within

    beyond = deadline.far(utcnow()) + timedelta(minutes=1)
    put(deadline, beyond)
    assert expire_implausible_deadlines(COOLDOWN) == {}
    assert value_of(deadline) == beyond

    an_hour_later()
    assert expire_implausible_deadlines(COOLDOWN) == {deadline.name: 1}
    ended = value_of(deadline)
    assert ended is None if deadline.clear else ended is not None and ended <= utcnow()


@pytest.mark.parametrize("deadline", UNINDEXED, ids=name_of)
@pytest.mark.usefixtures("world")
def test_what_no_index_finds_is_looked_at_when_something_else_was_found(deadline: Deadline) -> None:
    put(deadline, utcnow() + timedelta(days=9))
    execute("UPDATE users SET next_sync_at = ?", (utcnow() + timedelta(days=9),))
    assert expire_implausible_deadlines(COOLDOWN) == {"users.next_sync_at": 1, deadline.name: 1}


def test_every_stored_time_is_a_deadline_or_says_when_something_was() -> None:
    """A new column has to be put in one of the two lists."""
    times = {
        f"{model._meta.table_name}.{field.column_name}"
        for model in TABLES
        for field in model._meta.sorted_fields
        if isinstance(field, DateTimeField)
    }
    watched = {deadline.name for deadline in (*deadlines(COOLDOWN), *hourly_deadlines(COOLDOWN))}
    assert (times, watched & PAST) == (watched | PAST, set())


def test_no_horizon_is_nearer_than_what_the_writers_set() -> None:
    assert actors.names.LONGEST_RETRY <= NAME_RETRY
    assert actors.solar_systems.UNKNOWN_RETRY <= DAY
    assert actors.dispatching.FARTHEST_WAKE <= WAKE


def test_while_there_is_nothing_to_do_it_reads_twice_and_writes_nothing(any_db: Any) -> None:
    seen: list[str] = []

    def note(query: Any) -> None:
        seen.append(str(getattr(query, "sql", query)))

    any_db.query_hooks.append(note)
    assert expire_implausible_deadlines(COOLDOWN) == {}
    any_db.query_hooks.remove(note)
    assert [statement.split()[0] for statement in seen] == ["SELECT", "SELECT"]


@pytest.mark.parametrize("any_db_url", ["sqlite"], indirect=True)
def test_what_a_tick_costs_does_not_grow_with_what_waits(any_db: Any) -> None:
    """In steps of SQLite's machine: Given killmails that failed often, users whose syncs failed often, and syncs that
    wait, all of them for as long as they may, Then a hundred times as many cost the same."""
    costs = []
    for number in (10, 1_000):
        wait_properly(number)
        assert expire_implausible_deadlines(COOLDOWN) == {}
        costs.append(sqlite_steps(any_db))
    assert costs[1] < 1.5 * costs[0]


def wait_properly(number: int) -> None:
    """So many more of each, which wait for what their failures ask for."""
    now = utcnow()
    with db.atomic():
        Fetch.insert_many(
            {
                "killmail_id": 1_000_000 * number + each,
                "killmail_hash": "0" * 40,
                "priority": 3,
                "state": "deferred",
                "attempts": 8,
                "not_before": now + FETCH_BACKOFF[-1],
            }
            for each in range(number)
        ).execute()
        for _ in range(number):
            user = make_user(consecutive_failures=5, next_sync_at=now + FAILED_SYNC_BACKOFF[-1])
            Sync.create(
                user=user, trigger="SCHEDULE", priority=3, sent_at=now, waiting_until=now + timedelta(minutes=30)
            )
    execute("ANALYZE")


def sqlite_steps(any_db: Any) -> int:
    """What a look takes, in hundreds of instructions."""
    steps: list[None] = []

    def count() -> None:
        steps.append(None)

    connection = any_db.connection()
    connection.set_progress_handler(count, 100)
    expire_implausible_deadlines(COOLDOWN)
    connection.set_progress_handler(None, 0)
    return 1 + len(steps)


def test_a_clock_that_was_set_back_by_two_days_pauses_nobody_for_two_days() -> None:
    """Given syncs that ended, well or badly, while the clock was ahead, Then all are due; a real backoff goes on."""
    step = timedelta(days=2)
    well, badly, really = make_user(), make_user(consecutive_failures=1), make_user(consecutive_failures=5)
    backoff = utcnow() + FAILED_SYNC_BACKOFF[-1] * 1.2
    execute("UPDATE users SET next_sync_at = ? WHERE id = ?", (utcnow() + step + COOLDOWN, well.id))
    execute("UPDATE users SET next_sync_at = ? WHERE id = ?", (utcnow() + step + FAILED_SYNC_BACKOFF[0], badly.id))
    execute("UPDATE users SET next_sync_at = ? WHERE id = ?", (backoff, really.id))

    assert expire_implausible_deadlines(COOLDOWN) == {"users.next_sync_at": 2}

    ledger.open_due_syncs(10)
    assert {sync.user_id for sync in Sync.select()} == {well.id, badly.id}
    assert user_row(really).next_sync_at == backoff


def test_prices_asked_for_and_fetched_in_the_future_are_asked_for_again() -> None:
    """Given a list fetched when the clock was 60 days ahead, When it was set back, Then it is wanted an hour later."""
    prices.ask()
    prices.save({587: 1.0})
    ahead = utcnow() + timedelta(days=60)
    execute("UPDATE price_lists SET asked_at = ?, tried_at = ?, fetched_at = ?", (ahead, ahead, ahead))

    expire_implausible_deadlines(COOLDOWN)

    execute("UPDATE price_lists SET asked_at = ?, fetched_at = ?", (utcnow() - 2 * prices.FRESH,) * 2)
    assert not prices.wanted()
    prices.ask()
    assert prices.wanted()


def test_one_line_says_what_was_done(caplog: pytest.LogCaptureFixture) -> None:
    make_user(next_sync_at=utcnow() + timedelta(days=9))
    make_user(refresh_claimed_until=utcnow() + timedelta(days=9))
    caplog.set_level(logging.WARNING, logger="deadlines")
    expire_implausible_deadlines(COOLDOWN)
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        "expired 2 deadlines dated implausibly far ahead (clock skew?): users.next_sync_at 1, "
        "users.refresh_claimed_until 1; what waited for them is due now"
    )


def test_what_ends_in_a_thousand_years_is_over_now() -> None:
    far = "2999-01-01 00:00:00"
    sync_id = listed(make_user(), [1, 2])
    taken(1)
    execute("UPDATE ledger SET claimed_until = ? WHERE killmail_id = 1", (far,))
    execute("UPDATE ledger SET state = 'deferred', not_before = ? WHERE killmail_id = 2", (far,))
    assert sum(expire_implausible_deadlines().values()) == 2
    ledger.take_back_expired()
    assert {each.killmail_id for each in dispatch_all()} == {1, 2}
    assert expire_implausible_deadlines() == {}
    stored(1)
    stored(2)
    assert ledger.ready_to_finish() == [sync_id]


def test_a_sync_held_for_a_thousand_years_is_sent_again() -> None:
    sync = reading(make_user())
    execute("UPDATE syncs SET claimed_until = '2999-01-01 00:00:00'")
    assert send_syncs() == []
    assert sum(expire_implausible_deadlines().values()) == 1
    assert [each.sync_id for each in send_syncs()] == [sync.sync_id]
    assert claimed(sync.sync_id)


@pytest.mark.parametrize("ahead", [timedelta(hours=4), timedelta(days=365)])
def test_a_sync_that_waits_for_a_clock_that_was_set_back_is_sent_again(ahead: timedelta) -> None:
    sync = reading(make_user())
    assert ledger.wait_with_sync(sync, utcnow() + ahead, "the login service does not answer")
    assert send_syncs() == []
    assert sum(expire_implausible_deadlines().values()) == 1
    assert [each.sync_id for each in send_syncs()] == [sync.sync_id]
    assert claimed(sync.sync_id)


def test_leases_and_waits_of_ours_are_kept() -> None:
    listed(make_user(), [1])
    taken(1)
    listed(make_user(), [2])
    failed(2, times=8)
    make_user(consecutive_failures=5, next_sync_at=utcnow() + FAILED_SYNC_BACKOFF[-1] * 1.2)
    waiting = reading(make_user())
    ledger.wait_with_sync(waiting, utcnow() + timedelta(hours=1), "ESI asks to wait")
    assert expire_implausible_deadlines() == {}
    assert (row_state(1), sync_row(waiting.sync_id).claimed_until) == ("fetching", None)
