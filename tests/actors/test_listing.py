"""How far a list is read, with which ETag, and when ESI is not asked at all."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from actors.syncs import finalize_sync
from actors.users import sync_user
from database import db, utcnow
from models import Fetch, Sync, SyncState, Trigger, User, UserKillmail
from tests.actors.asking import ask, only_sync, stored
from tests.actors.simulated import Simulated


def _conditional(simulated: Simulated) -> list[bool]:
    return [entry.conditional for entry in simulated.asked("recent")]


def test_an_unchanged_list_is_a_304_and_a_finished_sync(simulated, sync):
    pilot = simulated.pilot(3)
    first = sync(pilot)
    second = sync(pilot)
    assert [entry.status for entry in simulated.asked("recent")] == [200, 304]
    assert (second.state, second.found, second.saved, second.failed) == (SyncState.FINISHED, 0, 0, 0)
    assert first.id != second.id
    assert pilot.user.list_etag is not None, "the ETag is kept for the next time"


def test_an_unchanged_list_costs_eight_statements_and_one_message(simulated, sync, post, statements):
    """The scheduler asks for every pilot's list, and most have nothing new."""
    pilot = simulated.pilot(3)
    sync(pilot)
    before = len(post.messages)
    asked = ask(pilot, Trigger.SCHEDULE)
    statements.clear()
    assert asked.sync_id is not None
    sync_user.fn(asked.sync_id)
    spent = [sql for sql in statements if not sql.startswith(("BEGIN", "COMMIT"))]

    assert Sync.get_by_id(asked.sync_id).state == SyncState.FINISHED
    assert len(spent) <= 8
    assert [message.actor for message in post.messages[before:]] == ["sync_user"]


def test_a_full_sync_sends_no_etag_and_reads_every_page(simulated, sync):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    sync(pilot)
    again = sync(pilot, full=True)
    assert _conditional(simulated) == [False] * 6
    assert simulated.pages_asked() == [1, 2, 3, 1, 2, 3]
    assert (again.full, again.found, again.skipped) == (True, 6, 6)


def test_no_etag_and_no_early_stop_after_a_sync_that_did_not_read_to_the_end(simulated, sync, configure):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    configure(SYNC_MAX_PAGES="2")
    cut = sync(pilot)
    assert (cut.state, cut.found) == (SyncState.FINISHED, 4)
    assert "SYNC_MAX_PAGES" in cut.error
    assert (pilot.user.last_sync_complete, pilot.user.list_etag) == (False, None)

    configure(SYNC_MAX_PAGES="50")
    User.update(last_full_sync_at=utcnow()).execute()
    whole = sync(pilot)
    assert not whole.full
    assert simulated.pages_asked() == [1, 2, 1, 2, 3]
    assert _conditional(simulated) == [False] * 5
    assert stored() == simulated.list_of(pilot)


def test_a_list_as_long_as_sync_max_pages_is_not_cut(simulated, sync, configure):
    simulated.configure(page_size=2)
    configure(SYNC_MAX_PAGES="3")
    done = sync(simulated.pilot(6))
    assert (done.found, done.error) == (6, None)


def test_paging_stops_at_the_first_page_that_is_known_whole(simulated, sync):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    sync(pilot)
    simulated.fight(pilot, 1)
    again = sync(pilot)
    assert simulated.pages_asked() == [1, 2, 3, 1, 2]
    assert (again.found, again.saved, again.skipped) == (4, 1, 3)


def test_paging_does_not_stop_at_a_page_with_one_unknown_killmail(simulated, sync):
    simulated.configure(page_size=3)
    pilot = simulated.pilot(6)
    sync(pilot)
    simulated.fight(pilot, 1, late=True)
    again = sync(pilot)
    assert again.saved == 1
    assert simulated.pages_asked() == [1, 2, 1, 2]
    assert stored() == simulated.list_of(pilot)


def test_a_killmail_given_up_is_not_known(simulated, sync, later, tick):
    """Its page is read on past, and it is asked for again: a cursor would have lost it."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    newest = simulated.list_of(pilot)[0]
    simulated.fault("killmail", "status:500", killmail_id=newest, count=4)
    sync(pilot)
    for _ in range(3):
        later(100)
        tick()
    assert (only_sync().state, only_sync().failed) == (SyncState.FINISHED, 1)
    simulated.fight(pilot, 1)
    again = sync(pilot)
    assert (again.state, again.saved, again.failed) == (SyncState.FINISHED, 2, 0)
    assert stored() == simulated.list_of(pilot)


def test_the_cache_of_esi_is_respected_and_the_pilot_sees_it(simulated, sync, crew, post):
    simulated.configure(cache_seconds=300)
    pilot = simulated.pilot(2)
    sync(pilot)
    waiting = sync(pilot)

    assert len(simulated.asked("recent")) == 1
    assert waiting.state == SyncState.LISTING
    assert timedelta(seconds=200) < waiting.waiting_until - utcnow() <= timedelta(seconds=301)
    assert "copy of your killmail list" in waiting.waiting_for
    assert (waiting.attempts, waiting.claimed_until) == (0, None)
    [message] = [message for message in post.to("dispatch_syncs") if message.delay]
    assert 200_000 < message.delay < 302_000

    sync_user.send(waiting.id)
    crew.drain()
    assert len(simulated.asked("recent")) == 1, "a message that comes too early changes nothing"


def test_after_the_cache_has_expired_the_sync_goes_on(simulated, sync, later, tick):
    simulated.configure(cache_seconds=300)
    pilot = simulated.pilot(2)
    sync(pilot)
    sync(pilot)
    later(600)
    tick()
    assert [row.state for row in Sync.select()] == [SyncState.FINISHED] * 2
    assert len(simulated.asked("recent")) == 2


def test_a_list_read_in_two_goes_keeps_esis_cache_time_and_etag(simulated, sync, later, tick):
    """Page 1 told both; a 429 on page 2 must not make us forget them."""
    simulated.configure(page_size=2, cache_seconds=300)
    pilot = simulated.pilot(4)
    simulated.fault("recent", "status:500", page=2, count=1)
    sync(pilot)
    later(200)
    tick()
    assert only_sync().state == SyncState.FINISHED
    assert simulated.pages_asked() == [1, 2, 2]
    assert pilot.user.list_etag is not None
    assert pilot.user.list_fresh_until > utcnow() + timedelta(seconds=50)


def test_a_list_that_moves_while_it_is_read_loses_nothing_and_counts_once(simulated, crew, configure):
    """New killmails push old ones to later pages. Overlap is harmless: nothing is restarted, nothing counted twice."""
    simulated.configure(page_size=3)
    pilot = simulated.pilot(9)
    seen: list[int] = []

    def grow(state):
        # Between page 1 and page 2: the answer to page 1 is on its way when two more fights happen.
        real = state.lists.get

        def get(world, one, settings, now):
            snapshot = real(world, one, settings, now)
            if not seen:
                seen.append(one.character_id)
                for number in range(2):
                    state.fleet.fight(one, None, number)
                state.lists.bust(one.character_id)
            return snapshot

        state.lists.get = get

    simulated.call(grow)
    asked = ask(pilot)
    crew.drain()

    done = Sync.get_by_id(asked.sync_id)
    old = simulated.list_of(pilot)[2:]
    assert len(simulated.list_of(pilot)) == 11
    assert set(old) <= set(stored())
    assert (done.state, done.found, done.saved) == (SyncState.FINISHED, 9, 9)
    later_sync = ask(pilot)
    crew.drain()
    assert Sync.get_by_id(later_sync.sync_id).saved == 2
    assert stored() == simulated.list_of(pilot)


def test_a_list_that_moves_between_two_workers_counts_once(simulated, sync, later, tick):
    """Page 2 is read by another worker than page 1, and what has moved there meanwhile was counted already."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    simulated.fault("recent", "status:500", page=2, count=1)
    first = sync(pilot)
    assert (first.state, first.next_page) == (SyncState.LISTING, 2)
    simulated.fight(pilot, 1)
    later(300)
    tick()

    done = Sync.get_by_id(first.id)
    assert (done.state, done.found, done.saved, done.skipped) == (SyncState.FINISHED, 4, 4, 0)
    assert not pilot.user.last_sync_complete, "what slipped over the border is looked for next time"
    sync(pilot)
    assert stored() == simulated.list_of(pilot)


def test_a_known_list_that_moves_between_its_readers_is_read_to_its_end_next_time(simulated, sync, later, tick):
    """Each page has another reader. Nothing is linked anew: only ESI's Last-Modified tells that it has moved."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    sync(pilot)
    later(4_000)
    simulated.unchanged_for(pilot, 60)
    for page in (2, 3):
        simulated.fault("recent", "status:500", page=page, count=1)
    first = sync(pilot, full=True)
    assert (first.state, first.next_page) == (SyncState.LISTING, 2)
    simulated.fight(pilot, 1)
    for _ in range(2):
        later(300)
        tick()
    assert Sync.get_by_id(first.id).state == SyncState.FINISHED
    assert not pilot.user.last_sync_complete
    assert pilot.user.list_etag is None, "with it page 1 is answered 304, and what slipped over the border missed"


def test_a_character_without_killmails(simulated, sync):
    done = sync(simulated.pilot())
    assert (done.state, done.found, done.saved, done.error) == (SyncState.FINISHED, 0, 0, None)


def test_a_character_without_killmails_whose_list_is_a_404(simulated, sync):
    simulated.configure(empty_list_status=404)
    pilot = simulated.pilot()
    done = sync(pilot)
    assert (done.state, done.found, done.error) == (SyncState.FINISHED, 0, None)
    assert pilot.user.last_sync_complete


def test_a_page_that_is_gone_when_it_is_asked_for_ends_the_list(simulated, sync, later, tick):
    """The list shrank by a page between two requests."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(3)
    simulated.fault("recent", "status:500", page=2, count=1)
    sync(pilot)
    oldest = simulated.list_of(pilot)[-1]
    simulated.call(lambda state: state.world.pilots[pilot.character_id].killmail_ids.remove(oldest))
    later(200)
    tick()
    assert (only_sync().state, only_sync().saved) == (SyncState.FINISHED, 2)


def test_full_asked_for_while_the_list_is_read_starts_again_at_page_one(simulated, crew):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    first = ask(pilot, Trigger.SCHEDULE)
    Sync.update(full=False, next_page=2).execute()
    ask(pilot, Trigger.MANUAL, full=True)
    crew.drain()
    done = Sync.get_by_id(first.sync_id)
    assert (done.state, done.full, done.found) == (SyncState.FINISHED, True, 4)
    assert simulated.pages_asked() == [1, 2]


def test_full_asked_for_while_the_list_is_read_waits_until_esis_cache_has_expired(simulated, crew, later, tick):
    simulated.configure(page_size=2, cache_seconds=300)
    pilot = simulated.pilot(4)
    User.update(last_full_sync_at=utcnow()).execute()
    asked = ask(pilot, Trigger.SCHEDULE)
    simulated.call(partial(_when_page_two_is_asked_for, lambda: ask(pilot, Trigger.MANUAL, full=True)))

    crew.drain()
    assert simulated.pages_asked() == [1, 2]
    waiting = Sync.get_by_id(asked.sync_id)
    assert (waiting.state, waiting.full, waiting.next_page) == (SyncState.LISTING, True, 1)
    assert "copy of your killmail list" in waiting.waiting_for

    later(600)
    tick()
    done = Sync.get_by_id(asked.sync_id)
    assert (done.state, done.full, done.found) == (SyncState.FINISHED, True, 4)
    assert simulated.pages_asked() == [1, 2, 1, 2]
    assert stored() == simulated.list_of(pilot)


def _when_page_two_is_asked_for(act, state):
    """Once, before the simulator answers, in its own thread."""
    real, calls = state.lists.get, []

    def get(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            with db.connection_context():
                act()
        return real(*arguments)

    state.lists.get = get


def test_links_say_whose_lists_a_killmail_stood_in(simulated, sync):
    one, other = simulated.pilot(), simulated.pilot()
    shared, alone = simulated.fight(one, 1, other), simulated.fight(one, 1)
    sync(one)
    sync(other)
    links = set(UserKillmail.select(UserKillmail.user, UserKillmail.killmail_id).tuples())
    assert links == {(one.user_id, shared[0]), (one.user_id, alone[0]), (other.user_id, shared[0])}


def test_a_second_message_for_a_sync_in_other_hands_reads_nothing(simulated, crew):
    pilot = simulated.pilot(2)
    asked = ask(pilot)
    Sync.update(state="LISTING", claimed_until=utcnow() + timedelta(seconds=60)).execute()
    sync_user.send(asked.sync_id or 0)
    crew.drain()
    assert simulated.asked("recent") == []


def test_a_message_for_a_sync_that_is_gone_does_nothing(simulated, crew):
    sync_user.send(4711)
    crew.drain()
    assert crew.dead == []


def test_a_pilot_who_joins_while_a_304_is_on_its_way_gets_a_fresh_try_of_what_was_given_up(simulated, sync, crew):
    pilot = simulated.pilot(2)
    poisoned = simulated.list_of(pilot)[0]
    simulated.fault("killmail", "status:500", killmail_id=poisoned)
    sync(pilot)
    Fetch.update(state="deferred", attempts=8, not_before=utcnow() + timedelta(hours=20)).execute()
    finalize_sync.fn(only_sync().id)
    simulated.mend()
    background = ask(pilot, Trigger.SCHEDULE)

    def join(state):
        real = state.lists.get

        def get(world, one, settings, now):
            state.lists.get = real
            with db.connection_context():
                ask(pilot, Trigger.WEB)
            return real(world, one, settings, now)

        state.lists.get = get

    simulated.call(join)
    crew.drain()

    assert Sync.get_by_id(background.sync_id).priority == 8
    assert [entry.status for entry in simulated.asked("recent")] == [200, 304]
    assert poisoned in stored()
