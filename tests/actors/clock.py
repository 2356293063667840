"""Time passes by moving everything that is written down into the past: the code goes on using the real clock."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, cast

from peewee import DateTimeField

from database import db, execute
from esi.rate_limit import SLICES
from models import TABLES, FailingOwner, Gate, Killmail, RateBucket, RateSlot, RefreshSlot


def shift_database(seconds: float) -> None:
    """Every time in every table, and every spend of the limiter's, becomes so much older."""
    with db.atomic():
        for model in TABLES:
            if model is Killmail:
                continue
            fields = [field for field in model._meta.sorted_fields if isinstance(field, DateTimeField)]
            if not fields:
                continue
            for row in list(model.select()):
                moved = {
                    field.name: getattr(row, field.name) - timedelta(seconds=seconds)
                    for field in fields
                    if getattr(row, field.name) is not None
                }
                if moved:
                    model.update(**moved).where(cast(Any, row)._pk_expr()).execute()
        Gate.update(closed_until=Gate.closed_until - seconds).where(Gate.closed_until > 0).execute()
        FailingOwner.update(failed_at=FailingOwner.failed_at - seconds).execute()
        RefreshSlot.update(held_until=RefreshSlot.held_until - seconds).where(RefreshSlot.held_until > 0).execute()
        RateSlot.update(next_at=RateSlot.next_at - seconds).execute()
        for bucket in list(RateBucket.select()):
            _shift_bucket(bucket, seconds)


def _shift_bucket(bucket: RateBucket, seconds: float) -> None:
    spends = bucket.spends.split()
    if spends:
        slices = math.floor(seconds / (bucket.window_seconds / SLICES))
        spends[0] = str(int(spends[0]) - slices)
    closed_until = max(0.001, bucket.closed_until - seconds) if bucket.closed_until else 0.0
    execute(
        "UPDATE rate_buckets SET spends = ?, closed_until = ? WHERE bucket = ?",
        (" ".join(spends), closed_until, bucket.bucket),
    )
