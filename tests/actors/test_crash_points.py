"""Between a commit and the message that follows it the process may die, the broker be away, or the message be lost.

At each such place the work is stopped exactly there; then one look of the clock, some minutes later, goes on. What is
asked for is always the same: everything stored once, asked for once, every sync ended, nothing left over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from actors.schedule import queue_due_users, tend
from models import Fetch, Killmail, Sync, SyncItem, SyncState
from tests.actors.asking import ask, rows, stored
from tests.actors.crew import Crew
from tests.actors.post import Died
from tests.actors.simulated import Pilot, Simulated

#: More than any lease and any wait for a message, less than the oldest message may be.
MINUTES_LATER = 300.0

#: (where, the actor whose message is not sent).
PLACES = [
    pytest.param("sync_user", id="request_sync: the sync is opened"),
    pytest.param("fetch_killmail", id="dispatch: rows are marked sent"),
    pytest.param("finalize_sync", id="settle, or end of the list: the sync is complete"),
    pytest.param("resolve_names", id="finalize: the sync is over"),
]


@pytest.fixture(params=["lose", "die_at", "refuse"])
def stop_at(request, post):
    """Stops the first message to an actor: lost by the broker, never sent by a process that died, or refused."""

    def stop(actor: str) -> None:
        getattr(post, request.param)(actor, times=1)

    return stop


def _all_is_well(simulated: Simulated, *pilots: Pilot) -> None:
    wanted = sorted({killmail_id for pilot in pilots for killmail_id in simulated.list_of(pilot)}, reverse=True)
    assert stored() == wanted
    answered = [entry.killmail_id or 0 for entry in simulated.asked("killmail") if entry.status == 200]
    assert sorted(answered, reverse=True) == wanted, "each is asked for once"
    assert {row.state for row in Sync.select()} == {SyncState.FINISHED}
    assert {row.user_id for row in Sync.select()} == {pilot.user_id for pilot in pilots}
    assert rows() == {}
    assert SyncItem.select().count() == 0


def _work(crew: Crew, action: Callable[[], object]) -> None:
    """A process that dies in the test's own thread is over; what is in the queues is worked on by others."""
    with contextlib.suppress(Died):
        action()
    crew.drain()


@pytest.mark.parametrize("actor", PLACES)
def test_one_look_of_the_clock_repairs_it(simulated, crew, post, later, stop_at, actor):
    pilot = simulated.pilot(5)
    stop_at(actor)
    _work(crew, lambda: ask(pilot))
    post.mend()

    later(MINUTES_LATER)
    tend()
    crew.drain()

    _all_is_well(simulated, pilot)


def test_the_message_after_a_later_page_is_lost(simulated, crew, post, later):
    """add_page has committed page 2, and its killmails' messages never arrive."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    real, pages = post.loses, []

    def from_page_two_on(actor: str) -> bool:
        if actor == "fetch_killmail" and Sync.get().next_page > 2:
            pages.append(actor)
            return True
        return bool(real(actor))

    post.loses = from_page_two_on
    _work(crew, lambda: ask(pilot))
    assert pages
    del post.loses
    later(MINUTES_LATER)
    tend()
    crew.drain()
    _all_is_well(simulated, pilot)


def test_the_worker_dies_between_a_page_and_its_dispatch(simulated, crew, post, later):
    """The page is written down, nothing of it is sent, and the lease of the list runs out."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    post.die_at("fetch_killmail")
    _work(crew, lambda: ask(pilot))
    assert Sync.get().state == SyncState.LISTING
    assert Sync.get().next_page == 2
    post.mend()
    later(MINUTES_LATER)
    tend()
    crew.drain()
    _all_is_well(simulated, pilot)
    assert simulated.pages_asked() == [1, 2], "it goes on where it was"


def test_the_end_of_a_list_with_nothing_new_is_not_told(simulated, sync, crew, post, later, stop_at):
    """end_listing has committed, and it is the only one who could send finalize_sync."""
    pilot = simulated.pilot(2)
    sync(pilot)
    stop_at("finalize_sync")
    _work(crew, lambda: ask(pilot))
    assert Sync.select().order_by(Sync.id.desc()).get().state == SyncState.FETCHING
    post.mend()
    later(MINUTES_LATER)
    tend()
    crew.drain()
    _all_is_well(simulated, pilot)


def test_the_last_two_killmails_of_a_sync_settle_at_once(simulated, crew):
    """Each looks in a statement of its own after its commit, so that at least one of them sees the sync complete."""
    for _ in range(5):
        ask(simulated.pilot(2))
        crew.drain(threads=4)
    assert {row.state for row in Sync.select()} == {SyncState.FINISHED}


def test_due_users_are_opened_and_not_told_of(simulated, crew, post, later, stop_at):
    pilots = [simulated.pilot(2) for _ in range(3)]
    stop_at("sync_user")
    _work(crew, queue_due_users)
    post.mend()
    later(MINUTES_LATER)
    tend()
    crew.drain()
    _all_is_well(simulated, *pilots)


def test_a_worker_dies_while_it_fetches(simulated, crew, post, later):
    """The row is claimed, and nobody comes back."""
    pilot = simulated.pilot(2)
    post.lose("fetch_killmail", times=9)
    _work(crew, lambda: ask(pilot))
    Fetch.update(state="fetching").execute()
    post.mend()
    later(MINUTES_LATER)
    tend()
    crew.drain()
    assert stored() == simulated.list_of(pilot)
    assert Sync.get().state == SyncState.FINISHED


def test_the_retry_of_a_waiting_sync_is_lost(simulated, sync, crew, post, later):
    pilot = simulated.pilot(2)
    simulated.fault("recent", "status:500", count=1)
    ask(pilot)
    crew.drain()  # the delayed message is forgotten with the workers that held it
    assert Sync.get().state == SyncState.LISTING
    later(MINUTES_LATER)
    tend()
    crew.drain()
    _all_is_well(simulated, pilot)


def test_every_message_is_doubled(simulated, crew, post):
    """At least once means: now and then twice. Nothing is asked for twice, stored twice or ended twice."""
    pilot = simulated.pilot(6)
    queues = dict(crew.broker.queues)
    for queue in queues.values():
        put = queue.put

        def twice(item, *rest, put=put):
            put(item, *rest)
            put(item, *rest)

        queue.put = twice
    ask(pilot)
    crew.drain(threads=3)
    assert len(simulated.asked("recent")) == 1
    _all_is_well(simulated, pilot)
    assert Killmail.select().count() == 6


def test_all_first_messages_are_lost_and_time_heals_it(simulated, crew, post, later, tick):
    one, other = simulated.pilot(3), simulated.pilot(2)
    simulated.fight(one, 2, other)
    for actor in ("sync_user", "fetch_killmail", "finalize_sync", "resolve_names"):
        post.lose(actor, times=2)
    ask(one)
    ask(other)
    crew.drain()
    for _ in range(6):
        later(MINUTES_LATER)
        tick()
    _all_is_well(simulated, one, other)
