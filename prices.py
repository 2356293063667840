"""The stored price list: what a type is worth, when the list was asked for, and when it may be fetched again.

Invariants: the list is fetched at most once an hour and only after somebody looked at what it had become; of any number
of workers one fetches it, because the claim is a conditional update. Who looks is shown what is stored, at once.
The request itself is left to `actors/prices.py`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from database import MAX_PARAMETERS, db, execute, insert_rows, placeholders, utcnow
from models import PriceList

#: ESI's cache of /markets/prices (OpenAPI: x-client-cache-ttl 3600): asking earlier tells nothing new.
FRESH = timedelta(hours=1)
#: After a failure, or a worker that died with the claim.
RETRY = timedelta(minutes=5)

_NAME = "esi"
_WANTED = """
    name = ? AND asked_at IS NOT NULL AND (fetched_at IS NULL OR (fetched_at <= ? AND asked_at > fetched_at))
    AND (tried_at IS NULL OR tried_at <= ?)
"""


def ask() -> datetime | None:
    """Somebody looks: wish for a newer list if this one is stale. Returns when it was fetched; None: never yet."""
    now = utcnow()
    row = PriceList.get_or_none(PriceList.name == _NAME)
    fetched_at: datetime | None = None if row is None else row.fetched_at
    stale = fetched_at is None or fetched_at <= now - FRESH
    wished = row is not None and row.asked_at is not None and (fetched_at is None or row.asked_at > fetched_at)
    if stale and not wished:
        execute(
            "INSERT INTO price_lists (name, asked_at) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET asked_at = excluded.asked_at",
            (_NAME, now),
        )
    return fetched_at


def of_types(type_ids: Collection[int]) -> dict[int, float]:
    """ISK by type id; a type without a price is left out."""
    found: dict[int, float] = {}
    ordered = sorted(set(type_ids))
    for start in range(0, len(ordered), MAX_PARAMETERS):
        chunk = ordered[start : start + MAX_PARAMETERS]
        rows = execute(f"SELECT type_id, price FROM prices WHERE type_id IN ({placeholders(chunk)})", chunk)
        found.update(rows.fetchall())
    return found


def wanted() -> bool:
    """Whether somebody looked since the list went stale, and it is time to try."""
    return execute(f"SELECT 1 FROM price_lists WHERE {_WANTED}", _moments(utcnow())).fetchone() is not None


def claim() -> bool:
    """Become the one who fetches the list now; False where it is not wanted or another has it."""
    now = utcnow()
    return bool(execute(f"UPDATE price_lists SET tried_at = ? WHERE {_WANTED}", (now, *_moments(now))).rowcount)


def save(prices: dict[int, float]) -> None:
    """The whole list replaces the one before it: a type that has no price any more has none here."""
    now = utcnow()
    with db.atomic():
        insert_rows(
            "prices",
            ("type_id", "price", "updated_at"),
            [(type_id, price, now) for type_id, price in sorted(prices.items())],
            "ON CONFLICT (type_id) DO UPDATE SET price = excluded.price, updated_at = excluded.updated_at",
        )
        execute("DELETE FROM prices WHERE updated_at < ?", (now,))
        execute("UPDATE price_lists SET fetched_at = ? WHERE name = ?", (now, _NAME))


def _moments(now: datetime) -> tuple[object, ...]:
    return _NAME, now - FRESH, now - RETRY
