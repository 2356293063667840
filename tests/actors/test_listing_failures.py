"""What may go wrong while a list is read: who waits, who fails, what is spent, and what the pilot is told."""

from __future__ import annotations

from datetime import timedelta

import jwt
import peewee
import pytest
from cryptography.fernet import Fernet

import ledger
import runtime
from accounts import TokenState, token_state
from actors.users import _take_failure as take_failure
from actors.users import sync_user
from database import utcnow
from esi.errors import EsiDowntime, EsiErrorLimited
from ledger.rules import LIST_BACKOFF
from models import Sync, SyncState, Trigger, User
from tests.actors.asking import ask, only_sync, stored


def _waits(row: Sync) -> float:
    assert row.state == SyncState.LISTING
    assert row.claimed_until is None, "nobody holds it while it waits"
    return float((row.waiting_until - utcnow()).total_seconds())


def test_a_401_forgets_the_access_token_and_the_next_try_has_another(simulated, sync, later, tick):
    pilot = simulated.pilot(2)
    before = pilot.user.access_token
    simulated.fault("recent", "status:401", count=1)
    row = sync(pilot)
    assert pilot.user.access_token is None
    assert row.attempts == 1
    assert _waits(row) < 10
    later(200)
    tick()
    assert pilot.user.access_token not in (None, before)
    assert only_sync().state == SyncState.FINISHED
    assert len([entry for entry in simulated.asked("token") if entry.grant_type == "refresh_token"]) == 1


def test_a_403_that_passes_costs_seconds_and_another_access_token(simulated, sync, later, tick):
    """ESI's own check of tokens may be what fails, for a moment and for everyone."""
    pilot = simulated.pilot(2)
    simulated.fault("recent", "status:403", count=1)
    row = sync(pilot)
    assert _waits(row) < 10
    assert (row.attempts, pilot.user.access_token) == (1, None)
    later(10)
    tick()
    assert only_sync().state == SyncState.FINISHED
    assert pilot.user.consecutive_failures == 0


def test_a_403_each_time_fails_the_sync_and_says_so(simulated, sync, later, tick):
    pilot = simulated.pilot(2)
    simulated.fault("recent", "status:403")
    sync(pilot)
    fail_at_last(later, tick)
    row = only_sync()
    assert (row.state, row.claimed_until, row.waiting_until) == (SyncState.FAILED, None, None)
    assert "does not accept this character's login for the killmail list (403)" in row.error
    assert (pilot.user.consecutive_failures, pilot.user.needs_login_reason) == (1, None)
    assert pilot.user.next_sync_at > utcnow() + timedelta(minutes=10)
    assert len(simulated.asked("recent")) == len(LIST_BACKOFF) + 1, "each costs five of thirty tokens"


def fail_at_last(later, tick) -> None:
    for _ in LIST_BACKOFF:
        later(400)
        tick()


@pytest.mark.parametrize("kind", ["429", "429_bare", "420"])
def test_told_to_wait_on_page_two_it_waits_and_goes_on_at_page_two(simulated, sync, later, tick, post, kind):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", kind, page=2, count=1, seconds=3)
    row = sync(pilot)
    # Without the bucket's headers it may be this list's own: others are read meanwhile, and it is not tried for ever.
    assert (row.next_page, row.attempts, row.found) == (2, int(kind == "429_bare"), 2)
    assert 0 < _waits(row) < 70
    assert "wait" in row.waiting_for or "trying again" in row.waiting_for
    assert [message.args for message in post.to("dispatch_syncs") if message.delay] == [()], "one wake-up"
    if kind != "420":  # which closes all routes
        assert stored() == simulated.list_of(pilot)[:2], "the first page's killmails are fetched meanwhile"

    for _ in range(3):
        later(1000)
        tick()
    assert simulated.pages_asked() == [1, 2, 2, 3]
    done = only_sync()
    assert (done.state, done.found, done.saved) == (SyncState.FINISHED, 6, 6)


@pytest.mark.parametrize("kind", ["429", "429_bare"])
def test_after_a_429_on_the_list_it_waits_about_as_long_as_it_was_told(simulated, sync, crew, kind):
    """Three seconds are three seconds, and not the minute that stands for "nobody said how long"; and where ESI does
    not say, the limiter knows when it will let the next one through (five seconds after the first)."""
    pilot = simulated.pilot(2)
    simulated.fault("recent", kind, count=1, seconds=3)
    row = sync(pilot)
    assert _waits(row) < 8
    # What the retry would meet: the limiter must not turn it away for another minute.
    Sync.update(waiting_until=None).execute()
    sync_user.send(row.id)
    crew.drain()
    row = Sync.get_by_id(row.id)
    assert row.state == SyncState.FINISHED or _waits(row) < 10


@pytest.mark.parametrize("kind", ["status:502", "html", "reset"])
def test_one_502_on_the_list_is_tried_again_within_seconds(simulated, sync, kind):
    """One of five in a row that would mean downtime: a pilot who has just logged in does not wait a minute for it."""
    simulated.fault("recent", kind, count=1)
    row = sync(simulated.pilot(2))
    assert _waits(row) < 10


@pytest.mark.parametrize("kind", ["status:502", "status:503"])
def test_downtime_waits_for_the_gate_and_spends_nothing(simulated, sync, later, tick, kind):
    pilot = simulated.pilot(2)
    simulated.fault("recent", kind)
    sync(pilot)
    for _ in range(8):
        later(70)
        tick()
    assert only_sync().state == SyncState.LISTING, "an outage fails no sync"
    simulated.mend()
    for _ in range(3):
        later(200)
        tick()
    assert only_sync().state == SyncState.FINISHED


@pytest.mark.parametrize("kind", ["status:504", "reset"])
def test_a_list_that_never_comes_fails_alone(simulated, sync, later, tick, kind):
    """It never looks like a downtime, because others' lists succeed: it must not wait for one for ever."""
    poisoned, other = simulated.pilot(2), simulated.pilot(2)
    simulated.fault("recent", kind)
    first = sync(poisoned)
    for _ in range(6):
        simulated.mend()
        simulated.fight(other, 1)
        sync(other, force=True)
        simulated.fault("recent", kind)
        later(400)
        tick()
    row = Sync.get_by_id(first.id)
    assert row.state == SyncState.FAILED
    assert "could not be read" in row.error
    assert set(stored()) == set(simulated.list_of(other)), "and keeps nobody else"


@pytest.mark.parametrize("kind", ["status:500", "reset", "invalid_json", "truncated", "not_found", "status:400"])
def test_other_failures_are_tried_again_with_growing_waits_and_then_fail(simulated, sync, later, tick, kind):
    pilot = simulated.pilot(2)
    simulated.fault("recent", kind)
    row = sync(pilot)
    waits = []
    for _ in range(8):
        row = only_sync()
        if row.state == SyncState.FAILED:
            break
        waits.append(_waits(row))
        later(1000)
        tick()
    assert row.state == SyncState.FAILED
    assert len(waits) == 4
    assert waits == sorted(waits)
    assert waits[0] < 10
    assert row.attempts == 4
    assert row.error.startswith("The killmail list could not be read: ESI ")
    assert str(pilot.character_id) not in row.error, "the detail is for the log"
    assert pilot.user.last_sync_complete is False


def test_a_page_that_was_read_gives_the_next_one_all_its_tries(simulated, sync, later, tick):
    simulated.configure(page_size=2)
    pilot = simulated.pilot(4)
    simulated.fault("recent", "status:500", page=1, count=3)
    simulated.fault("recent", "status:500", page=2, count=3)
    sync(pilot)
    for _ in range(8):
        later(1000)
        tick()
    assert (only_sync().state, only_sync().saved) == (SyncState.FINISHED, 4)


def test_a_key_that_is_missing_fails_the_sync_and_keeps_the_token(simulated, sync, configure):
    pilot = simulated.pilot(2)
    configure(TOKEN_KEYS=Fernet.generate_key().decode())
    row = sync(pilot)
    assert row.state == SyncState.FAILED
    assert "TOKEN_KEYS" in row.error
    assert pilot.user.refresh_token is not None
    assert pilot.user.needs_login_reason is None


def test_background_leaves_a_quarter_of_the_list_bucket_to_logins(simulated, sync, crew):
    """30 tokens, 2 a request: after twelve scheduled requests six tokens are left, and they are a login's."""
    simulated.configure(limits={"char-killmail": "30/15m"})
    pilot = simulated.pilot(1)
    for _ in range(12):
        row = sync(pilot, trigger=Trigger.SCHEDULE, full=True)
        if row.state != SyncState.FINISHED:
            break
    assert row.state == SyncState.LISTING
    assert "allowance" in row.waiting_for
    before = len(simulated.asked("recent"))
    Sync.update(waiting_until=None, priority=8).execute()
    sync_user.send(row.id)
    crew.drain()
    assert before == 11
    assert Sync.get_by_id(row.id).state == SyncState.FINISHED


def test_a_pilot_who_unlinks_while_the_message_is_on_its_way(simulated, crew):
    pilot = simulated.pilot(2)
    ask(pilot)
    ledger.unlink(pilot.user_id)
    crew.drain()
    assert (crew.dead, simulated.asked("recent")) == ([], [])


def test_no_token_is_in_a_message_or_in_what_the_pilot_is_told(simulated, sync, post, caplog):
    pilot = simulated.pilot(2)
    simulated.fault("recent", "status:401", count=1)
    row = sync(pilot)
    assert all(isinstance(arg, int) for message in post.messages for arg in message.args)
    assert "eyJ" not in caplog.text + (row.waiting_for or "")


def test_a_list_that_alone_gets_a_bare_429_fails_alone(simulated, sync, later, tick):
    poisoned, other = simulated.pilot(2), simulated.pilot(2)
    simulated.fault("recent", "429_bare", seconds=3)
    first = sync(poisoned)
    for _ in range(6):
        simulated.mend()
        later(70)
        # The fault is this pilot's own: its list is not read while it is mended.
        Sync.update(waiting_until=utcnow() + timedelta(hours=1)).where(Sync.id == first.id).execute()
        simulated.fight(other, 1)
        sync(other)
        simulated.fault("recent", "429_bare", seconds=3)
        later(4000)
        tick()
    row = Sync.get_by_id(first.id)
    assert (row.state, row.attempts) == (SyncState.FAILED, 4)
    assert set(stored()) == set(simulated.list_of(other))


def test_a_bare_429_of_one_list_lets_every_other_list_be_read_at_once(simulated, sync):
    # Given a pilot for whose list ESI asks to wait an hour
    poisoned, other = simulated.pilot(2), simulated.pilot(2)
    simulated.fault("recent", "429_bare_wait", seconds=3600)
    waiting = sync(poisoned)
    simulated.mend()
    # When another pilot's list is due, without any time in between
    row = sync(other)
    # Then it is read, and the first waits as it was told
    assert row.state == SyncState.FINISHED
    assert set(stored()) == set(simulated.list_of(other))
    assert Sync.get_by_id(waiting.id).waiting_until > utcnow() + timedelta(minutes=55)


def test_a_403_about_the_scope_is_not_believed_while_fresh_tokens_hold_it(simulated, sync, later, tick):
    """ESI's own check of tokens may be what fails: the pilot is not disabled for it."""
    pilot = simulated.pilot(2)
    simulated.fault("recent", "scope")
    row = sync(pilot)
    assert (row.state, row.attempts) == (SyncState.LISTING, 1)
    for _ in range(6):
        later(1000)
        tick()
    assert only_sync().state == SyncState.FAILED
    assert "scope" in only_sync().error
    assert token_state(pilot.user) is TokenState.OK
    assert pilot.user.next_sync_at is not None
    assert pilot.user.recheck_at is None

    simulated.mend()
    assert sync(pilot).state == SyncState.FINISHED


def test_a_403_about_the_scope_makes_the_sso_tell(simulated, sync, later, tick):
    """Given a login whose tokens have lost the scope, Then the refresh after ESI's 403 tells."""
    pilot = simulated.pilot(2)
    claims = jwt.decode(runtime.cipher().decrypt(pilot.user.access_token), options={"verify_signature": False})
    without_scope = simulated.call(lambda state: state.keys.sign(claims | {"scp": "publicData"}))
    User.update(access_token=runtime.cipher().encrypt(without_scope)).execute()
    refresh_token = runtime.cipher().decrypt(pilot.user.refresh_token)
    simulated.call(lambda state: setattr(state.grants._tokens[refresh_token], "scopes", ("publicData",)))
    row = sync(pilot)
    assert (row.state, row.attempts, pilot.user.access_token) == (SyncState.LISTING, 1, None)
    later(200)
    tick()
    assert only_sync().state == SyncState.FAILED
    assert token_state(pilot.user) is TokenState.MISSING_SCOPE
    assert (pilot.user.next_sync_at, pilot.user.refresh_token is None) == (None, False)
    assert pilot.user.recheck_at > utcnow()


def test_a_failed_sync_does_not_come_back_before_the_cool_down(simulated, sync, configure, later, tick):
    configure(SYNC_COOLDOWN_MINUTES="240")
    pilot = simulated.pilot(1)
    simulated.fault("recent", "status:403")
    sync(pilot)
    fail_at_last(later, tick)
    assert only_sync().state == SyncState.FAILED
    assert pilot.user.next_sync_at > utcnow() + timedelta(minutes=239)


def test_a_list_that_alone_is_told_to_come_back_later_fails_alone(simulated, later):
    """A 503 with Retry-After, each time and for this list only: the wait is kept, and it is not for ever."""
    pilot = simulated.pilot(2)
    asked = ledger.open_sync(pilot.user.id, Trigger.WEB, cooldown=timedelta(0))

    def read_in_vain() -> None:
        claimed = ledger.claim_sync(asked.sync_id or 0)
        assert claimed is not None
        take_failure(claimed, EsiDowntime("the list: ESI is down (503)", retry_after=400.0, status=503))

    for _ in LIST_BACKOFF:
        read_in_vain()
        assert 390 < _waits(only_sync()) <= 400
        later(500)
    read_in_vain()
    assert only_sync().state == SyncState.FAILED


def test_a_deadlock_is_tried_again_in_seconds_and_is_no_dead_letter(simulated, sync, later, tick, crew, monkeypatch):
    pilot = simulated.pilot(2)
    add_page, failures = ledger.add_page, [peewee.OperationalError("deadlock detected")]

    def deadlock_once(*args, **options):
        if failures:
            raise failures.pop()
        return add_page(*args, **options)

    monkeypatch.setattr(ledger, "add_page", deadlock_once)
    row = sync(pilot)
    assert _waits(row) < 10
    assert (row.attempts, row.waiting_for) == (1, "the database did not answer; trying again")
    assert crew.dead == []
    later(301)  # ESI's cache, too
    tick()
    assert stored() == simulated.list_of(pilot)


def test_a_pilot_who_unlinks_while_a_failure_is_handled_leaves_no_dead_letter(simulated, sync, crew, monkeypatch):
    pilot = simulated.pilot(2)
    simulated.fault("recent", "420", count=1)
    told = runtime.esi().recent_killmails

    def unlinked_in_the_meantime(*args, **options):
        try:
            return told(*args, **options)
        except EsiErrorLimited as error:
            User.delete().execute()
            error.retry_after = None
            raise

    monkeypatch.setattr(runtime.esi(), "recent_killmails", unlinked_in_the_meantime)
    ask(pilot)
    crew.drain()
    assert crew.dead == []
    assert Sync.select().count() == 0


@pytest.mark.parametrize("step", ["claim_sync", "links_of"])
def test_a_database_error_before_the_list_is_read_costs_seconds_and_is_no_dead_letter(
    simulated, sync, later, tick, crew, post, monkeypatch, step
):
    """The message is gone: without another one the sync would wait until its lease ends, or its message counts as
    lost."""
    real, failures = getattr(ledger, step), [peewee.OperationalError("lock timeout")]

    def fail_once(*args, **options):
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(ledger, step, fail_once)
    row = sync(simulated.pilot(2))
    assert (row.claimed_until, row.sent_at, crew.dead) == (None, None, [])
    assert [message.delay < 10_000 for message in post.to("dispatch_syncs")] == [True]
    later(10)
    tick()
    assert only_sync().state == SyncState.FINISHED


def test_a_sync_whose_claim_always_fails_is_tried_a_few_times_and_ends(simulated, sync, later, tick, crew, monkeypatch):
    """Pending at once, it would be sent by the very message that failed: hundreds of times a second, without end."""
    tries: list[int] = []

    def always(sync_id: int) -> None:
        tries.append(sync_id)
        assert len(tries) < 50, "a loop without end"
        raise peewee.OperationalError("lock timeout")

    monkeypatch.setattr(ledger, "claim_sync", always)
    row = sync(simulated.pilot(2))
    assert len(tries) == 1
    assert (row.state, row.attempts, row.sent_at) == (SyncState.QUEUED, 1, None)
    assert row.waiting_for == "the database did not answer; trying again"
    assert timedelta(0) < row.waiting_until - utcnow() < timedelta(seconds=10)
    for _ in range(len(LIST_BACKOFF) + 1):
        later(1000)
        tick()
    row = only_sync()
    assert (row.state, len(tries), crew.dead) == (SyncState.FAILED, len(LIST_BACKOFF) + 1, [])
    assert "database" in row.error


def test_a_claim_that_succeeded_though_its_answer_was_lost_is_left_to_its_lease(simulated, sync, monkeypatch):
    claim_sync = ledger.claim_sync

    def lost(sync_id: int) -> None:
        claim_sync(sync_id)
        raise peewee.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(ledger, "claim_sync", lost)
    row = sync(simulated.pilot(2))
    assert (row.state, row.attempts, row.waiting_until) == (SyncState.LISTING, 0, None)
    assert row.claimed_until > utcnow()


def test_a_database_error_while_a_failure_is_handled_costs_seconds_and_no_lease(
    simulated, sync, later, tick, crew, monkeypatch
):
    """Given a page that was read, and with it another lease than the first."""
    simulated.configure(page_size=2)
    pilot = simulated.pilot(6)
    simulated.fault("recent", "status:500", page=2, count=1)
    wait_with_sync, failures = ledger.wait_with_sync, [peewee.OperationalError("deadlock detected")]

    def fail_once(*args, **options):
        if failures:
            raise failures.pop()
        return wait_with_sync(*args, **options)

    monkeypatch.setattr(ledger, "wait_with_sync", fail_once)
    row = sync(pilot)
    assert _waits(row) < 10
    assert (row.attempts, row.waiting_for) == (1, "the database did not answer; trying again")
    later(10)
    tick()
    assert (only_sync().state, crew.dead) == (SyncState.FINISHED, [])
    assert simulated.pages_asked() == [1, 2, 2, 3]


def test_a_sync_that_always_meets_a_database_error_ends(simulated, sync, later, tick, crew, monkeypatch):
    def always(*args, **options):
        raise peewee.OperationalError("deadlock detected")

    monkeypatch.setattr(ledger, "add_page", always)
    sync(simulated.pilot(2))
    for _ in range(len(LIST_BACKOFF) + 1):
        later(1000)
        tick()
    row = only_sync()
    assert (row.state, row.attempts, crew.dead) == (SyncState.FAILED, len(LIST_BACKOFF), [])
    assert "database" in row.error
