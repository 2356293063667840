"""A sync whose killmails ESI keeps refusing: what is left of it goes behind every other sync's, and is asked for with
care.

ESI counts errors for everyone at this address, and closes every route when there are too many. So one sync may cost a
few of them; after that its rows are doubtful (`rules.DOUBTFUL`), and share a fifth of the budget with all such rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from database import db, execute, lock_clause, utcnow
from ledger.rules import LAST_TURN

#: Refusals of one sync's killmails within this time that are no accident: a twelfth of the errors we allow ourselves a
#: minute (`esi/rate_limit.py`). While errors are short, because of many syncs that are refused a little, it is one.
REFUSALS_ALLOWED = 5
REFUSALS_WITHIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class PutBehind:
    """A sync whose fresh killmails went behind those of all other syncs, and how many they were."""

    sync_id: int
    killmails: int


def count_refusal(killmail_id: int, *, allowed: int = REFUSALS_ALLOWED) -> list[PutBehind]:
    """ESI refused this killmail: count it for the syncs that want it, and put those behind that have had `allowed`.

    A killmail that another active sync wants as well stays where it is: its pilot has nothing to do with this.
    """
    now = utcnow()
    with db.atomic():
        # Order of locks, here as everywhere: syncs by id, then ledger rows by id.
        wanting = f"""
            SELECT s.id FROM syncs s JOIN sync_items i ON i.sync_id = s.id
            WHERE i.killmail_id = ? AND s.finished_at IS NULL ORDER BY s.id {lock_clause(of="s")}
        """
        rows = execute(
            f"""
            UPDATE syncs SET refused = CASE WHEN refused_since > ? THEN refused + 1 ELSE 1 END,
                             refused_since = CASE WHEN refused_since > ? THEN refused_since ELSE ? END
            WHERE id IN ({wanting}) RETURNING id, refused
            """,
            (now - REFUSALS_WITHIN, now - REFUSALS_WITHIN, now, killmail_id),
        ).fetchall()
        put = [PutBehind(sync_id, _put_behind(sync_id)) for sync_id, refused in rows if refused >= allowed]
    return [each for each in put if each.killmails]


def _put_behind(sync_id: int) -> int:
    """Also rows whose messages are out: their workers look at the turn when they claim them."""
    # One index range of the sync's items, then a look by primary key for each; few are left after the first time.
    only_its_own = f"""
        SELECT l.killmail_id FROM sync_items i JOIN ledger l ON l.killmail_id = i.killmail_id
        WHERE i.sync_id = ? AND l.turn < {LAST_TURN} AND l.state IN ('pending', 'sent')
              AND NOT EXISTS (SELECT 1 FROM sync_items o JOIN syncs s ON s.id = o.sync_id
                              WHERE o.killmail_id = i.killmail_id AND o.sync_id <> i.sync_id AND s.finished_at IS NULL)
        ORDER BY l.killmail_id {lock_clause(of="l")}
    """
    rows = execute(
        f"UPDATE ledger SET turn = turn + {LAST_TURN} WHERE turn < {LAST_TURN} AND killmail_id IN ({only_its_own})",
        (sync_id,),
    )
    return int(rows.rowcount)
