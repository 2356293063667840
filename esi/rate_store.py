"""The limiter's rows: slots, buckets and gates, shared by every process.

Each function is one statement in its own short transaction, or part of the caller's where it says so. The invariant:
a row changes only by a conditional update, so that of two processes deciding at once one decides again. What to decide
is left to `rate_limit.py`, `limiter.py` and `permit.py`.

The clock is PostgreSQL's, so that several machines agree, and this machine's on SQLite, where there is no other.
PostgreSQL is told not to wait for the disk: what a crash of the server loses is a fraction of a second of spends, of
which ESI's next answer reminds us.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import database
from clock import DatabaseClock
from database import db, execute, is_sqlite, lock_clause, placeholders
from esi.rate_headers import MAX_WAIT_SECONDS
from esi.rate_limit import CLOCK_SLACK_SECONDS, ERRORS, Bucket, RateGroup

#: The one row of slots: ESI counts requests, whatever their route.
SLOTS = "esi"
#: The bucket that errors are counted in: one for this address.
ERRORS_KEY = f"{ERRORS.name}:ip"
#: A slot this many seconds ahead was given by a clock that has been set back since.
_FARTHEST_SLOT = 60.0
#: And so was a closure for longer than any header may close a road.
LONGEST_CLOSURE_SECONDS = MAX_WAIT_SECONDS + CLOCK_SLACK_SECONDS

_NOW = "extract(epoch FROM clock_timestamp())::float8"
#: True, and for this statement's transaction: its commit does not wait for the disk.
_UNSYNCED = "set_config('synchronous_commit', 'off', true) = 'off'"

#: clock_timestamp() stands inline: after a wait for the row's lock PostgreSQL evaluates it again.
_SLOT_POSTGRESQL = f"""
    UPDATE rate_slots
    SET next_at = greatest(CASE WHEN next_at > {_NOW} + ? THEN 0 ELSE next_at END, {_NOW}) + ?
    WHERE name = ? AND (next_at < {_NOW} + ? OR next_at > {_NOW} + ?) AND {_UNSYNCED}
    RETURNING next_at - ?
"""
_SLOT_SQLITE = """
    UPDATE rate_slots
    SET next_at = max(CASE WHEN next_at > ? THEN 0 ELSE next_at END, ?) + ?
    WHERE name = ? AND (next_at < ? OR next_at > ?)
    RETURNING next_at - ?
"""


@dataclass(frozen=True, slots=True)
class Gate:
    """A road that may be closed; open once `closed_until` has passed. `failures` in a row."""

    closed_until: float
    reason: str
    failures: int


@dataclass(frozen=True, slots=True)
class View:
    """Everything that decides on a request, at one moment: `now` in seconds since the epoch.

    `bucket` is None where its row does not exist; `row` is what `swap_bucket` compares: its spends, window and closure
    as they were read. `errors` is the bucket that errors are counted in.
    """

    now: float
    next_slot_at: float
    bucket: Bucket | None
    row: tuple[str, int, float]
    errors: Bucket
    gates: Mapping[str, Gate]


def read(bucket_key: str, clock: DatabaseClock) -> View:
    """Slot, bucket and gates in one statement, which sets the clock, too."""
    sent, now_here = time.monotonic(), clock.now()
    now = "?" if is_sqlite() else _NOW
    rows = execute(
        f"""
        SELECT '' AS name, '' AS text, 0 AS number, 0 AS window_seconds, next_at AS at, {now} AS now,
               0 AS refusals, 0 AS doubts, 0 AS tried_every
        FROM rate_slots WHERE name = ?
        UNION ALL SELECT name, reason, failures, 0, closed_until, 0, 0, 0, 0 FROM gates
        UNION ALL SELECT CASE bucket WHEN ? THEN '*' ELSE '!' END, spends, allowance, window_seconds, closed_until, 0,
                         refusals, doubts, tried_every
                  FROM rate_buckets WHERE bucket IN (?, ?)
        """,
        ([now_here] if is_sqlite() else []) + [SLOTS, bucket_key, bucket_key, ERRORS_KEY],
    ).fetchall()
    slot = next((row for row in rows if row[0] == ""), None)
    if slot is None:
        _create_slots()
        return read(bucket_key, clock)
    now_there = float(slot[5])
    if not is_sqlite():
        clock.observe(sent, now_there, time.monotonic())
    bucket, stored, errors = None, ("", 0, 0.0), Bucket(ERRORS.allowance, ERRORS.window_seconds)
    gates: dict[str, Gate] = {}
    for name, text, number, window_seconds, at, _, *counts in rows:
        if name == "*":
            bucket, stored = _settled(bucket_key, number, (text, window_seconds, at), counts, now_there)
        elif name == "!":
            errors, _ = _settled(ERRORS_KEY, number, (text, window_seconds, at), counts, now_there)
        elif name:
            gates[name] = Gate(believable(at, now_there), text, int(_number(number)))
    next_slot_at = slot[4] if slot[4] <= now_there + _FARTHEST_SLOT else 0.0
    return View(now_there, next_slot_at, bucket, stored, errors, gates)


def _settled(
    bucket_key: str, allowance: int, row: tuple[str, int, float], counts: Sequence[int], now: float
) -> tuple[Bucket, tuple[str, int, float]]:
    """A bucket as it is to be read now, and its row. `counts`: its refusals, doubts and `tried_every`.

    Written down where a clock has been set back: what every look draws to its own now would never return.
    """
    spends, window_seconds, closed_until = row
    bucket = Bucket.unpack(allowance, window_seconds, spends, closed_until, *(int(_number(each)) for each in counts))
    settled = bucket.settled(now, MAX_WAIT_SECONDS)
    if settled == bucket:
        return bucket, row
    swap_bucket(bucket_key, row, settled)
    return settled, (settled.pack(), window_seconds, settled.closed_until)


def believable(closed_until: object, now: float) -> float:
    """0 for a time that no header could have set: the clock was set back since, or a hand has written it."""
    closed_until = _number(closed_until)
    return closed_until if closed_until <= now + LONGEST_CLOSURE_SECONDS else 0.0


def _number(value: object) -> float:
    """0 for text, which SQLite keeps in any column."""
    return value if isinstance(value, int | float) else 0.0


def read_gate(name: str) -> tuple[float, Gate]:
    """Now (seconds since the epoch), and one gate; open where there is no such row."""
    [(now, *row)] = execute(
        f"SELECT {'?' if is_sqlite() else _NOW}, gates.closed_until, gates.reason, gates.failures "
        "FROM (SELECT 1 AS one) AS one LEFT JOIN gates ON gates.name = ?",
        ([database.clock.now()] if is_sqlite() else []) + [name],
    ).fetchall()
    closed_until, reason, failures = row
    if failures is None:
        return float(now), Gate(0.0, "", 0)
    return float(now), Gate(believable(closed_until, float(now)), reason, int(_number(failures)))


def take_slot(interval: float, horizon: float) -> float | None:
    """Reserve the next slot and return its time; None, and nothing taken, if it is `horizon` seconds away."""
    if is_sqlite():
        now = database.clock.now()
        far = now + _FARTHEST_SLOT + interval
        parameters = (far, now, interval, SLOTS, now + horizon, far, interval)
        rows = execute(_SLOT_SQLITE, parameters).fetchall()
    else:
        far = _FARTHEST_SLOT + interval
        rows = execute(_SLOT_POSTGRESQL, (far, interval, SLOTS, horizon, far, interval)).fetchall()
    return float(rows[0][0]) if rows else None


def create_bucket(bucket_key: str, group: RateGroup) -> None:
    """Make the row of a bucket that nothing was spent of."""
    execute(
        "INSERT INTO rate_buckets (bucket, allowance, window_seconds, spends, closed_until) VALUES (?, ?, ?, '', 0) "
        "ON CONFLICT (bucket) DO NOTHING",
        (bucket_key, group.allowance, group.window_seconds),
    )


def count_error(now: float) -> Bucket:
    """One error more, in a transaction of its own; returns what is left of their bucket."""
    with transaction():
        create_bucket(ERRORS_KEY, ERRORS)
        lock_bucket(ERRORS_KEY)
        row = execute(
            "SELECT allowance, window_seconds, spends, closed_until FROM rate_buckets WHERE bucket = ?", (ERRORS_KEY,)
        ).fetchone()
        after = Bucket.unpack(*row).settled(now, MAX_WAIT_SECONDS).spend(now, ERRORS.cost)
        store_bucket(ERRORS_KEY, after)
    return after


def lock_bucket(bucket_key: str) -> None:
    """Hold the row until the end of the caller's transaction."""
    execute(f"SELECT 1 FROM rate_buckets WHERE bucket = ? {lock_clause()}", (bucket_key,)).fetchall()


def swap_bucket(bucket_key: str, row: tuple[str, int, float], after: Bucket) -> bool:
    """Store what was spent, and the closure, unless the row is no longer what was read. Leaves the rule alone."""
    return _changed(
        "UPDATE rate_buckets SET spends = ?, closed_until = ? "
        f"WHERE bucket = ? AND spends = ? AND window_seconds = ? AND closed_until = ? {_unsynced()}",
        (after.pack(), after.closed_until, bucket_key, *row),
    )


def store_bucket(bucket_key: str, bucket: Bucket) -> None:
    """Store all of it. Only with the row locked."""
    execute(
        "UPDATE rate_buckets SET allowance = ?, window_seconds = ?, spends = ?, closed_until = ?, refusals = ?, "
        f"doubts = ?, tried_every = ? WHERE bucket = ? {_unsynced()}",
        (
            bucket.allowance,
            bucket.window_seconds,
            bucket.pack(),
            bucket.closed_until,
            bucket.refusals,
            bucket.doubts,
            bucket.tried_every,
            bucket_key,
        ),
    )


def close_gate(name: str, now: float, until: float, reason: str) -> bool:
    """Close a road, one failure more in a row; False if it is closed already and no longer than a second less."""
    return _changed(
        "INSERT INTO gates (name, closed_until, reason, failures) VALUES (?, ?, ?, 1) "
        "ON CONFLICT (name) DO UPDATE SET closed_until = excluded.closed_until, reason = excluded.reason, "
        "failures = gates.failures + 1 "
        "WHERE gates.closed_until <= ? OR gates.closed_until < ? OR gates.closed_until > ?",
        (name, until, reason, now, until - 1.0, now + LONGEST_CLOSURE_SECONDS),
    )


def count_failure(name: str, limit: int, until: float, reason: str, weight: int = 1) -> bool:
    """`weight` failures more in a row; the `limit`th closes the road (True), and those behind it change nothing."""
    rows = execute(
        "INSERT INTO gates (name, closed_until, reason, failures) VALUES (?, 0, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET reason = excluded.reason, "
        "failures = CASE WHEN gates.failures + ? >= ? THEN ? ELSE gates.failures + ? END, "
        "closed_until = CASE WHEN gates.failures + ? >= ? THEN ? ELSE 0 END "
        "WHERE gates.failures < ? RETURNING failures",
        (name, reason, weight, weight, limit, limit, weight, weight, limit, until, limit),
    ).fetchall()
    return bool(rows) and rows[0][0] >= limit


def note_failure(name: str, reason: str) -> None:
    """A failure that does not close the gate: its row tells the next success that there is something to forget."""
    execute(
        "INSERT INTO gates (name, closed_until, reason, failures) VALUES (?, 0, ?, 1) "
        "ON CONFLICT (name) DO UPDATE SET failures = 1 WHERE gates.failures < 1",
        (name, reason),
    )


def take_probe(name: str, now: float, until: float) -> bool:
    """Become the one who tries a road whose time has passed; for others it stays closed until `until`."""
    return _changed(
        "UPDATE gates SET closed_until = ? WHERE name = ? AND (closed_until <= ? OR closed_until > ?)",
        (until, name, now, now + LONGEST_CLOSURE_SECONDS),
    )


def take_question(name: str, until: float, asking: str, reason: str) -> bool:
    """Like `take_probe`, of a gate that is closed for the reason `asking`; that reason is `reason` then."""
    return _changed(
        "UPDATE gates SET closed_until = ?, reason = ? WHERE name = ? AND reason = ?", (until, reason, name, asking)
    )


def keep_closed(name: str, until: float, reason: str | None = None, *, at_least: int = 1) -> None:
    """A probe failed: one failure more, closed until then; for the same reason as before if none is given.

    Only with `at_least` so many failures: with less, another one has found the road open since this one left.
    """
    execute(
        "UPDATE gates SET failures = failures + 1, closed_until = ?, reason = COALESCE(?, reason) "
        "WHERE name = ? AND failures >= ?",
        (until, reason, name, at_least),
    )


def reopen(name: str, at: float = 0.0, *, at_least: int = 0) -> None:
    """Let the next one try the road then, or at once; its failures stay, so that it is a probe.

    Only with `at_least` so many failures: with less, another one has found the road open.
    """
    execute("UPDATE gates SET closed_until = ? WHERE name = ? AND failures >= ?", (at, name, at_least))


def forget_failures(name: str, *, fewer_than: int | None = None, closed_before: float | None = None) -> bool:
    """A success: the next failure is the first again, and the road is open.

    `fewer_than`: only with fewer failures than that. `closed_before`: only if the road was to open by then anyway.
    """
    return _changed(
        "UPDATE gates SET failures = 0, closed_until = 0 "
        "WHERE name = ? AND failures > 0 AND failures < ? AND closed_until <= ?",
        (name, fewer_than or 2**31 - 1, math.inf if closed_before is None else closed_before),
    )


_COLUMNS = "bucket, allowance, window_seconds, spends, closed_until, refusals, doubts, tried_every"


def closed_buckets(now: float, limit: int) -> dict[str, Bucket]:
    """By key: those that ESI has closed until after `now`, the longest first. Read through their index."""
    return _buckets("WHERE closed_until > 0 AND closed_until > ? ORDER BY closed_until DESC LIMIT ?", (now, limit))


def buckets_of(keys: Sequence[str]) -> dict[str, Bucket]:
    """Those with these keys, as far as they exist."""
    return _buckets(f"WHERE bucket IN ({placeholders(keys)})", keys)


def buckets_behind(after: str, limit: int) -> dict[str, Bucket]:
    """The next `limit` buckets by key, in the database's order."""
    return _buckets("WHERE bucket > ? ORDER BY bucket LIMIT ?", (after, limit))


def _buckets(condition: str, parameters: Sequence[object]) -> dict[str, Bucket]:
    rows = execute(f"SELECT {_COLUMNS} FROM rate_buckets {condition}", parameters).fetchall()
    return {key: Bucket.unpack(*rest) for key, *rest in rows}


def count_buckets(limit: int) -> dict[str, int]:
    """How many there are by group, `limit` of all groups together at most."""
    group = "substr(bucket, 1, instr(bucket, ':') - 1)" if is_sqlite() else "split_part(bucket, ':', 1)"
    return dict(
        execute(
            f"SELECT {group}, COUNT(*) FROM (SELECT bucket FROM rate_buckets LIMIT ?) AS few GROUP BY 1", (limit,)
        ).fetchall()
    )


def forget_idle(prefix: str, after: str, now: float, limit: int) -> tuple[str, int]:
    """Delete what is idle among the next `limit` buckets behind the key `after`.

    Returns the key to go on behind ('' at the end) and how many were deleted. Only keys that begin with `prefix`. A
    bucket that is spent from at the same time is no longer what was read, or is locked, and stays.
    """
    rows = execute(
        "SELECT bucket, allowance, window_seconds, spends, closed_until FROM rate_buckets "
        "WHERE bucket > ? ORDER BY bucket LIMIT ?",
        (after, limit),
    ).fetchall()
    idle = [
        (key, *row)
        for key, allowance, *row in rows
        if key.startswith(prefix) and Bucket.unpack(allowance, *row).is_idle(now)
    ]
    deleted = 0
    if idle:
        keys = [key for key, *_ in idle]
        marks = ", ".join(["(?, ?, ?, ?)"] * len(idle))
        # The keys are named alone as well: no engine looks up the rows of a list in the index.
        deleted = execute(
            f"DELETE FROM rate_buckets WHERE bucket IN (SELECT bucket FROM rate_buckets "
            f"WHERE bucket IN ({placeholders(keys)}) "
            f"AND (bucket, window_seconds, spends, closed_until) IN (VALUES {marks}) "
            f"{lock_clause(skip_locked=True)}) {_unsynced()}",
            [*keys, *(value for row in idle for value in row)],
        ).rowcount
    return (str(rows[-1][0]) if len(rows) == limit else ""), int(deleted)


def in_transaction() -> bool:
    """Whether this thread is in a transaction."""
    return bool(db.in_transaction())


@contextmanager
def transaction() -> Iterator[None]:
    """For `lock_bucket` and what follows it."""
    with db.atomic():
        yield


def _create_slots() -> None:
    execute("INSERT INTO rate_slots (name, next_at) VALUES (?, 0) ON CONFLICT (name) DO NOTHING", (SLOTS,))


def _unsynced() -> str:
    return "" if is_sqlite() else f"AND {_UNSYNCED}"


def _changed(sql: str, parameters: tuple[object, ...]) -> bool:
    return bool(execute(sql, parameters).rowcount > 0)
