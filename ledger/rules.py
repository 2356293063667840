"""The ledger's numbers, and the conditions that several of its statements share."""

from __future__ import annotations

from datetime import timedelta
from random import uniform

#: Failures in a row after which a killmail no longer holds up the syncs that want it.
ATTEMPTS_BEFORE_DEFERRED = 4
#: So many 4xx in a row count as all of these failures: each costs 5 tokens and one of ESI's errors, and the second one
#: is seldom wrong. The ledger goes on trying, rarely.
REFUSALS_BEFORE_DEFERRED = 2

#: How long one worker may hold a killmail: ESI cuts its own calls at 10 s, the client waits 15 s at most.
FETCH_LEASE = timedelta(seconds=60)
#: How long a sent message may take to reach a worker; a window holds a few seconds of work.
SENT_LEASE = timedelta(seconds=90)
#: How long one worker may take for one page of the list, waiting for its slot included.
LIST_LEASE = timedelta(seconds=90)
#: A queued sync whose message did not arrive for so long is sent again.
SYNC_RESEND_AFTER = timedelta(minutes=2)
#: Even where nothing changed, all pages are read without an ETag this often: it heals what a moving list hid.
FULL_WALK_EVERY = timedelta(hours=24)

#: Waits before a failed killmail is tried again. Those past ATTEMPTS_BEFORE_DEFERRED no longer hold up a sync.
FETCH_BACKOFF = tuple(timedelta(seconds=s) for s in (5, 20, 60, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600))
#: Waits before a list that could not be read is tried again; after the last one the sync fails.
LIST_BACKOFF = tuple(timedelta(seconds=s) for s in (5, 30, 120, 300))
#: How far a user's next sync is pushed out after so many failed ones in a row.
FAILED_SYNC_BACKOFF = tuple(timedelta(minutes=m) for m in (15, 30, 60, 240, 1440))
#: The most by which the next sync is pushed out after one that ended because of the login service: with one pilot, an
#: outage of the SSO cannot be told from that pilot's own problem, and must not cost a day.
LOGIN_SERVICE_BACKOFF = timedelta(hours=1)

#: How the reason begins for a wait that ESI asked for by Retry-After. Nobody cuts it short, whoever asks.
ESI_ASKS_TO_WAIT = "ESI asks to wait"

#: How many turns a killmail that failed goes back: far enough that it does not hold up fresh ones, near enough that its
#: sync ends soon. A sync's killmails have the turns 0, 1, 2, … in the order of its list; the lowest turn goes first.
TURNS_LOST_BY_FAILURE = 50
#: Killmails whose worker went away with them twice or more come back within so long, each at a moment of its own. One
#: dead process leaves a killmail for each of its threads, and nothing tells which of them killed it: apart from each
#: other, it takes few of the same ones with it the next time. The first time is most often a restart, and waits for
#: nothing more than the lease.
DEATHS_APART = timedelta(seconds=30)

#: Turns from here on come after those of every list (SYNC_MAX_PAGES of 1,000 entries is 50,000): those of a sync whose
#: killmails ESI keeps refusing, and from twice this on killmails that were given up.
LAST_TURN = 1_000_000
#: Turns from here on are those of pilots whose killmails take many seconds to fail. Behind all others, and only so many
#: at a time are out: each may hold a worker thread for 15 s.
SLOW_TURN = 8 * LAST_TURN
SLOW_AT_ONCE = 3
#: SQL: the turn of a row after a failure, and of one that is given up.
TURN_AFTER_FAILURE = f"turn + {TURNS_LOST_BY_FAILURE}"
TURN_GIVEN_UP = f"turn - turn / {LAST_TURN} * {LAST_TURN} + 2 * {LAST_TURN}"
#: Of every ten rows sent, the fifth is the oldest of its class, and the tenth is the oldest background row, whatever
#: the turns say and however many logins there are: what is overtaken for ever would be lost with its list (90 days).
ROUND = 10
OLDEST_PLACE = 5
BACKGROUND_PLACE = 0

#: Priorities from here on may use all of ESI's allowance; those below leave a quarter of it to them.
INTERACTIVE_PRIORITY = 8
PRIORITY_OF_TRIGGER = {"LOGIN": 8, "WEB": 8, "MANUAL": 5, "SCHEDULE": 3}

#: SQL: the priority of a row whose message is out or whose killmail is fetched. One of background's share goes as a
#: login's, for as long as that: each row that is sent is marked again, so that whatever ends a message or a worker
#: leaves a background row behind.
SENT_PRIORITY = (
    f"CASE WHEN as_share AND priority < {INTERACTIVE_PRIORITY} THEN {INTERACTIVE_PRIORITY} ELSE priority END"
)

#: Ledger rows (alias l) that a sync still waits for.
UNSETTLED = f"l.attempts < {ATTEMPTS_BEFORE_DEFERRED} AND l.state <> 'rejected'"

#: Ledger rows that ESI may well refuse, at the price of an error: refused before, or of a sync that is refused often.
DOUBTFUL = f"(refusals > 0 OR turn >= {LAST_TURN})"

#: Ledger rows that may take many seconds to fail. They are doubtful as well.
SLOW = f"(turn >= {SLOW_TURN})"
#: The pilot who lists a ledger row's killmail: of several always the same one. NULL: all were unlinked.
PILOT = """(SELECT MIN(u.character_id) FROM user_killmails k JOIN users u ON u.id = k.user_id
            WHERE k.killmail_id = ledger.killmail_id)"""

#: Assignments that give a row that was given up its tries again, because a pilot asks for it. What ESI refused stays
#: refused once, and so gets one try, behind everything else: a pilot's button must not cost the others ESI's errors.
FRESH_TRY = f"""attempts = 0, not_before = NULL, refusals = CASE WHEN refusals > 0 THEN 1 ELSE 0 END,
    turn = CASE WHEN refusals = 0 THEN turn - turn / {LAST_TURN} * {LAST_TURN} ELSE turn END"""

#: Error texts are bounded: they come from outside.
MAX_ERROR_LENGTH = 300


def backoff(steps: tuple[timedelta, ...], failures: int) -> timedelta:
    """The wait after so many failures in a row (from 1), spread by ±20 % so that failures do not come back at once."""
    return steps[min(failures, len(steps)) - 1] * uniform(0.8, 1.2)  # noqa: S311 - not a secret
