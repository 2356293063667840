"""Which ledger rows are sent next: syncs take turns, and the oldest rows of each class keep a share.

Two classes: interactive (a pilot waits) and background. The interactive class goes first. Within a priority the lowest
turn goes first, so that the sync that was served least is next; of every ten rows one is the oldest of its class, and
one is the oldest background row, so that nothing is overtaken for ever. What happens to a row after it is sent is left
to `fetching.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from database import as_datetime, db, execute, lock_clause, utcnow
from ledger.rules import (
    BACKGROUND_PLACE,
    DOUBTFUL,
    INTERACTIVE_PRIORITY,
    LAST_TURN,
    OLDEST_PLACE,
    PILOT,
    ROUND,
    SENT_LEASE,
    SENT_PRIORITY,
    SLOW,
    SLOW_AT_ONCE,
)

#: Further ahead than this, the tick is soon enough.
SOON = timedelta(seconds=90)

#: True for a row whose message is out. The first term is the index's own, word for word: SQLite takes a partial index
#: for nothing less.
_SENT = "state IN ('sent', 'fetching') AND state = 'sent'"

#: The pending rows of each class, in the words of the indexes.
_INTERACTIVE = f"state = 'pending' AND priority >= {INTERACTIVE_PRIORITY}"
_BACKGROUND = f"state = 'pending' AND priority < {INTERACTIVE_PRIORITY}"

#: Orders of picking. The first is that of the index `ledger_pending`, the second that of the indexes `ledger_oldest`.
_BY_TURN = "priority DESC, turn, killmail_id DESC"
_OLDEST = "created_at, turn, killmail_id DESC"
#: Among so many rows that would be next anyway, a probe is looked for: they are sorted by what stands in no index.
_PROBES_CONSIDERED = 1_000


@dataclass(frozen=True, slots=True)
class Allowed:
    """How many requests may be made now: by anyone, and by background work. From the limiter, at one moment.

    `probe`: one request, which finds out whether a gate may open. `failing`: characters whose requests closed it; the
    probe is another pilot's, if any other has something to fetch, or `others_only`. `doubtful`: how many of the
    requests may be ones that ESI is likely to refuse, and `behind`: how many of those may be of syncs that it refuses
    often (`refusals.py`); what is out is not subtracted yet.
    """

    interactive: int
    background: int
    probe: bool = False
    doubtful: int = sys.maxsize
    behind: int = sys.maxsize
    failing: Sequence[int] = ()
    others_only: bool = False


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A row that was marked sent, and now has to be sent."""

    killmail_id: int
    priority: int


@dataclass(frozen=True, slots=True)
class Shares:
    """How the interactive allowance is shared out: rows by turn, the oldest interactive ones, the oldest background
    ones."""

    by_turn: int
    oldest: int
    background: int


@dataclass(frozen=True, slots=True)
class _Out:
    """Rows that are out: messages in all, of the interactive class, and (with those being fetched) doubtful and slow
    ones."""

    messages: int
    urgent: int
    doubtful: int
    slow: int


@dataclass(frozen=True, slots=True)
class _Doubtful:
    """How many rows may go that ESI is likely to refuse (`count`), and how many of them are of a sync put behind."""

    count: int
    behind: int

    def without(self, gone: int) -> _Doubtful:
        return _Doubtful(max(0, self.count - gone), max(0, self.behind - gone))


@dataclass(frozen=True, slots=True)
class _Row:
    killmail_id: int
    priority: int
    turn: int
    doubtful: bool


def dispatch(allowed: Allowed, window: int) -> list[Outgoing]:
    """Mark rows sent and return them, highest priority and lowest turn first.

    At most `window` messages are out at a time, counting for each class only what is not below it: a login's killmails
    never wait for a window full of background work. A probe goes first to a pilot whose requests have not failed, and
    to what has failed least: one pilot's killmails must not keep ESI closed for the others. Of killmails that may take
    many seconds to fail, few are out at a time, and only where nothing else may go.
    """
    with db.atomic():
        # One dispatcher at a time: two would each see the same room in the window and fill it twice.
        counted = execute(f"SELECT sent FROM locks WHERE name = 'dispatch' {lock_clause()}").fetchone()
        _promote_due()
        out = _count_out()
        doubtful = _Doubtful(allowed.doubtful, allowed.behind).without(out.doubtful)
        if allowed.probe:
            rows = _pick_probe(allowed, window, out, doubtful)
        else:
            rows = _pick(allowed, window, out, doubtful, 0 if counted is None else int(counted[0]))
            rows += _pick_slow(allowed, window, out, rows)
    rows.sort(key=lambda row: (-row.priority, row.turn, -row.killmail_id))
    return [Outgoing(row.killmail_id, row.priority) for row in rows]


def split(sent: int, room: int, interactive: int, background: int) -> Shares:
    """Share out `room` requests on the interactive allowance, after `sent` rows.

    `interactive`, `background`: pending rows of each class. A class without rows gives its share away. A background row
    goes on this allowance only beside logins, one for nine of theirs: else it would use up what is reserved for them.
    """
    by_turn = oldest = floor = 0
    for place in range(sent + 1, sent + 1 + max(0, room)):
        if place % ROUND == BACKGROUND_PLACE and background > floor:
            floor += 1
        elif interactive == by_turn + oldest:
            break
        elif place % ROUND == OLDEST_PLACE:
            oldest += 1
        else:
            by_turn += 1
    return Shares(by_turn, oldest, floor)


def upcoming() -> int:
    """Messages that are out: requests that will be made, and are not counted by the limiter yet."""
    return int(execute(f"SELECT COUNT(*) FROM ledger WHERE {_SENT}").fetchone()[0])


def has_pending(*, interactive: bool, doubtful: bool = True) -> bool:
    """Whether anything may go now, of this class; without `doubtful`, anything that ESI is not likely to refuse."""
    pending = (_INTERACTIVE if interactive else _BACKGROUND) + ("" if doubtful else f" AND NOT {DOUBTFUL}")
    return execute(f"SELECT 1 FROM ledger WHERE {pending} ORDER BY {_BY_TURN} LIMIT 1").fetchone() is not None


def next_due() -> datetime | None:
    """When the next deferred row becomes pending, if that is soon enough not to be left to the tick."""
    soon = utcnow() + SOON
    row = execute(
        "SELECT not_before FROM ledger WHERE state = 'deferred' AND not_before <= ? ORDER BY not_before LIMIT 1",
        (soon,),
    ).fetchone()
    return None if row is None else as_datetime(row[0])


def set_wake(at: datetime) -> bool:
    """Note that a dispatch will be sent for `at`. False: one is on its way already, for then or before."""
    now = utcnow()
    rows = execute(
        "UPDATE locks SET wake_at = ? WHERE name = 'dispatch' AND (wake_at IS NULL OR wake_at < ? OR wake_at > ?)",
        (at, now, at + timedelta(seconds=1)),
    )
    return bool(rows.rowcount)


def forget_wake(at: datetime) -> None:
    """The dispatch that `set_wake` noted was not sent."""
    execute("UPDATE locks SET wake_at = NULL WHERE name = 'dispatch' AND wake_at = ?", (at,))


def _promote_due() -> None:
    """deferred -> pending where the time has come. Rows that another transaction holds are left for the next look."""
    execute(
        f"""
        WITH due AS MATERIALIZED (
            SELECT killmail_id FROM ledger
            WHERE state = 'deferred' AND (not_before IS NULL OR not_before <= ?) LIMIT 1000
            {lock_clause(skip_locked=True)})
        UPDATE ledger SET state = 'pending', not_before = NULL WHERE killmail_id IN (SELECT killmail_id FROM due)
        """,
        (utcnow(),),
    )


def _count_out() -> _Out:
    rows = execute(
        f"""
        SELECT {SENT_PRIORITY} >= {INTERACTIVE_PRIORITY}, SUM(CASE WHEN state = 'sent' THEN 1 ELSE 0 END),
               SUM(CASE WHEN {DOUBTFUL} THEN 1 ELSE 0 END), SUM(CASE WHEN {SLOW} THEN 1 ELSE 0 END)
        FROM ledger WHERE state IN ('sent', 'fetching') GROUP BY 1
        """
    ).fetchall()
    return _Out(
        messages=sum(int(sent) for _, sent, _, _ in rows),
        urgent=sum(int(sent) for urgent, sent, _, _ in rows if urgent),
        doubtful=sum(int(doubtful) for _, _, doubtful, _ in rows),
        slow=sum(int(slow) for *_, slow in rows),
    )


def _pick_probe(allowed: Allowed, window: int, out: _Out, doubtful: _Doubtful) -> list[_Row]:
    room = min(allowed.interactive, window - out.urgent)
    background_too = min(allowed.background, window - out.messages) > 0
    pending = "state = 'pending'" if background_too else _INTERACTIVE
    if not doubtful.behind:
        pending += f" AND NOT {DOUBTFUL}"
    next_ones = f"SELECT killmail_id FROM ledger WHERE {pending} ORDER BY {_BY_TURN} LIMIT {_PROBES_CONSIDERED}"
    wanted = f"state = 'pending' AND killmail_id IN ({next_ones})"
    order = f"attempts, {_BY_TURN}"
    if allowed.failing:
        failing = f"{PILOT} IN ({', '.join(str(int(character_id)) for character_id in allowed.failing)})"
        order = f"CASE WHEN {failing} THEN 1 ELSE 0 END, {order}"
        wanted += f" AND NOT COALESCE({failing}, FALSE)" if allowed.others_only else ""
    return _mark_sent(wanted, f"CASE WHEN {SLOW} THEN 1 ELSE 0 END, {order}", room)


def _pick(allowed: Allowed, window: int, out: _Out, doubtful: _Doubtful, sent: int) -> list[_Row]:
    """Interactive rows and their floors, then background rows; notes how many were sent."""
    room = min(allowed.interactive, window - out.urgent)
    rows = _pick_interactive(room, doubtful, sent) if room > 0 else []
    room = min(allowed.background, window - out.messages) - len(rows)
    if room > 0:
        rows += _pick_background(room, doubtful.without(sum(row.doubtful for row in rows)), sent + len(rows))
    if rows:
        execute("UPDATE locks SET sent = ? WHERE name = 'dispatch'", ((sent + len(rows)) % ROUND,))
    return rows


def _pick_interactive(room: int, doubtful: _Doubtful, sent: int) -> list[_Row]:
    interactive, background = _certain(_INTERACTIVE, room, doubtful), _certain(_BACKGROUND, room, doubtful)
    # In an index's order: of a class that has just become empty PostgreSQL would else read the whole table.
    counts = [
        f"(SELECT COUNT(*) FROM (SELECT 1 FROM ledger WHERE {pending} ORDER BY {_BY_TURN} LIMIT ?) AS waiting)"
        for pending in (interactive, background)
    ]
    waiting = execute(f"SELECT {', '.join(counts)}", (room, room // ROUND + 1)).fetchone()
    shares = split(sent, room, *map(int, waiting))
    rows = _mark_sent(interactive, _OLDEST, shares.oldest)
    # As rows of a login while they are out: for the broker, for the limiter, and for what counts rows that are out.
    rows += _mark_sent(background, _OLDEST, shares.background, as_share=True)
    rows += _mark_sent(interactive, _BY_TURN, shares.by_turn)
    return rows + _pick_doubtful(_INTERACTIVE, room - len(rows), room, doubtful)


def _pick_background(room: int, doubtful: _Doubtful, sent: int) -> list[_Row]:
    background = _certain(_BACKGROUND, room, doubtful)
    places = range(sent + 1, sent + 1 + room)
    rows = _mark_sent(background, _BY_TURN, room - sum(place % ROUND == OLDEST_PLACE for place in places))
    rows += _mark_sent(background, _OLDEST, room - len(rows))
    return rows + _pick_doubtful(_BACKGROUND, room - len(rows), room, doubtful)


def _certain(pending: str, room: int, doubtful: _Doubtful) -> str:
    """The rows to pick from: all that are not slow where `room` doubtful ones may go, else those not doubtful."""
    return f"{pending} AND NOT {SLOW if doubtful.behind >= room else DOUBTFUL}"


def _pick_doubtful(pending: str, left: int, room: int, doubtful: _Doubtful) -> list[_Row]:
    """As many of those that `_certain` left out as may go, where nothing else does."""
    if doubtful.behind >= room:
        return []
    own = f"{pending} AND {DOUBTFUL} AND turn < {LAST_TURN}"
    rows = _mark_sent(own, _BY_TURN, min(left, doubtful.count))
    behind = min(left, doubtful.behind) - len(rows)
    return rows + _mark_sent(f"{pending} AND turn >= {LAST_TURN} AND NOT {SLOW}", _BY_TURN, behind)


def _pick_slow(allowed: Allowed, window: int, out: _Out, rows: list[_Row]) -> list[_Row]:
    """A few of those that may take many seconds to fail, where the window has room beside `rows`."""
    count = min(SLOW_AT_ONCE - out.slow, allowed.behind - out.doubtful - sum(row.doubtful for row in rows))
    room = min(count, allowed.interactive - len(rows), window - out.urgent - len(rows))
    slow = _mark_sent(f"{_INTERACTIVE} AND {SLOW}", _BY_TURN, room)
    room = min(count, allowed.background - len(rows), window - out.messages - len(rows)) - len(slow)
    return slow + _mark_sent(f"{_BACKGROUND} AND {SLOW}", _BY_TURN, room)


def _mark_sent(pending: str, order: str, count: int, *, as_share: bool = False) -> list[_Row]:
    """Mark the first `count` rows sent, with the priority they are sent at."""
    if count <= 0:
        return []
    # MATERIALIZED: as a plain sub-select PostgreSQL may run it again for every row, and so past its limit.
    rows: Any = execute(
        f"""
        WITH picked AS MATERIALIZED (
            SELECT killmail_id FROM ledger WHERE {pending}
            ORDER BY {order} LIMIT ? {lock_clause(skip_locked=True)})
        UPDATE ledger SET state = 'sent', claimed_until = ?, as_share = ?
        WHERE killmail_id IN (SELECT killmail_id FROM picked)
        RETURNING killmail_id, {SENT_PRIORITY}, turn, {DOUBTFUL}
        """,
        (count, utcnow() + SENT_LEASE, as_share),
    ).fetchall()
    return [_Row(*row) for row in rows]
