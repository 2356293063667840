"""A sold character: its former owner's killmails are hidden at once, and deleted thirty days later.

The row of `users` is always the current owner's. What the former owner had moves to tables that no query for pilots or
killmails reads, so that it cannot be found by mistake. Until it is deleted it can be given back: to the former owner,
when they log in again, or by the operator, should the sale have been EVE's mistake.

The invariant: a killmail that a former owner had is kept as long as it is linked to their row, whoever else unlinks.
After thirty days the links go in batches, each with its killmails in a transaction, and the row goes with the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from database import db, execute, lock_clause, utcnow
from ledger.unlinking import ONLY_THEIRS, delete_only_theirs, delete_user, lock_leaver, take_turns
from models import FormerOwner, User

#: How long a former owner's data is kept: time enough to notice that it was no sale.
KEPT_FOR = timedelta(days=30)
#: Former owners deleted by one tick.
DELETED_PER_TICK = 5
#: Killmails that one transaction deletes, each with dozens of attackers and items: a second, on a busy machine.
BATCH = 1_000
#: Transactions of one tick: half a minute of its five minutes at most, and what is left waits for the next tick.
BATCHES_PER_TICK = 20

#: The former owner's links that one transaction deletes. The same in all of its statements: no other transaction
#: changes them while this one has the row `links` locked.
_NEXT_LINKS = f"""
    SELECT former_owner_id, killmail_id FROM former_killmails
    WHERE former_owner_id = ? ORDER BY killmail_id LIMIT {BATCH}
"""
#: What of them only this former owner had.
_ONLY_FORMER = f"""
    SELECT mine.killmail_id FROM ({_NEXT_LINKS}) mine
    WHERE NOT EXISTS (SELECT 1 FROM user_killmails other WHERE other.killmail_id = mine.killmail_id)
      AND NOT EXISTS (SELECT 1 FROM former_killmails other
                      WHERE other.killmail_id = mine.killmail_id AND other.former_owner_id <> mine.former_owner_id)
"""


@dataclass(frozen=True, slots=True)
class Former:
    """A former owner's data, for the operator. `hidden`: what the present owner's list has not brought."""

    sold_at: datetime
    killmails: int
    hidden: int


def latest(character_id: int) -> Former | None:
    """What the latest former owner of a character had."""
    row = FormerOwner.select().where(FormerOwner.character_id == character_id).order_by(FormerOwner.sold_at.desc())
    former = row.first()
    if former is None:
        return None
    [(hidden,)] = execute(
        """SELECT COUNT(*) FROM former_killmails f WHERE f.former_owner_id = ? AND NOT EXISTS (
             SELECT 1 FROM user_killmails k JOIN users u ON u.id = k.user_id
             WHERE u.character_id = ? AND k.killmail_id = f.killmail_id)""",
        (former.id, character_id),
    ).fetchall()
    return Former(former.sold_at, former.links.count(), int(hidden))


@dataclass(frozen=True, slots=True)
class Sold:
    """A character whose owner changed, for the operator. `user_id`: of the present owner, None before they log in."""

    character_id: int
    character_name: str
    user_id: int | None
    killmails: int


def sold_since(since: datetime) -> list[Sold]:
    """The characters sold since then whose former owner's data is hidden here, those sold first at first."""
    rows = execute(
        """SELECT f.character_id, MAX(f.character_name), u.id, COUNT(DISTINCT k.killmail_id)
           FROM former_owners f LEFT JOIN users u ON u.character_id = f.character_id
                LEFT JOIN former_killmails k ON k.former_owner_id = f.id
           WHERE f.sold_at >= ? GROUP BY f.character_id, u.id ORDER BY MIN(f.sold_at), f.character_id""",
        (since,),
    ).fetchall()
    return [Sold(*row) for row in rows]


def count_due() -> int:
    """How many former owners' thirty days are over: what `delete_due` would delete in the end."""
    before = utcnow() - KEPT_FOR
    row = execute(
        """SELECT (SELECT COUNT(*) FROM former_owners WHERE sold_at < ?)
                + (SELECT COUNT(*) FROM users WHERE sold_at < ?)""",
        (before, before),
    ).fetchone()
    return int(row[0])


def hide(user_id: int, owner_hash: str, *, sold_before: datetime | None = None) -> bool:
    """The character has been sold by the owner with this hash: hide what they had, and delete their row of `users`.

    Their syncs end, and what only they still wanted is not fetched. False, and nothing is done: the row is another
    owner's by now, or (where `sold_before` is given) was not marked as sold before then.
    """
    with db.atomic():
        user = lock_leaver(user_id)
        if user is None or user.owner_hash != owner_hash:
            return False
        if sold_before is not None and (user.sold_at is None or user.sold_at >= sold_before):
            return False
        delete_only_theirs("ledger", ONLY_THEIRS, user_id)
        former_id = _former_row(user)
        execute(
            """INSERT INTO former_killmails (former_owner_id, killmail_id, linked_at)
               SELECT ?, l.killmail_id, l.linked_at
               FROM user_killmails l JOIN killmails k ON k.killmail_id = l.killmail_id
               WHERE l.user_id = ? ON CONFLICT DO NOTHING""",
            (former_id, user_id),
        )
        delete_user(user_id)
    return True


def restore(user_id: int, *, owner_hash: str | None = None, since: datetime | None = None) -> int | None:
    """Link to a user what a former owner of the same character had; returns how many killmails that were.

    `owner_hash`: only what the owner with this hash had, and only if the user is that owner. Without it (the operator
    says that there was no sale): what the latest former owner had. `since`: only if the sale was then or later. None:
    there is nothing to give back.
    """
    with db.atomic():
        take_turns()
        execute(f"SELECT id FROM users WHERE id = ? {lock_clause()}", (user_id,))
        user = User.get_or_none(User.id == user_id)
        if user is None or owner_hash not in (None, user.owner_hash):
            return None
        former = FormerOwner.select().where(FormerOwner.character_id == user.character_id)
        if owner_hash is not None:
            former = former.where(FormerOwner.owner_hash == owner_hash)
        if since is not None:
            former = former.where(FormerOwner.sold_at >= since)
        row = former.order_by(FormerOwner.sold_at.desc()).first()
        if row is None:
            return None
        links = execute(
            """INSERT INTO user_killmails (user_id, killmail_id, linked_at)
               SELECT ?, killmail_id, linked_at FROM former_killmails WHERE former_owner_id = ?
               ORDER BY killmail_id ON CONFLICT DO NOTHING""",
            (user_id, row.id),
        ).rowcount
        execute("DELETE FROM former_owners WHERE id = ?", (row.id,))
        execute(
            """UPDATE users SET last_killmail_id = (
                   SELECT MAX(l.killmail_id) FROM user_killmails l JOIN killmails k ON k.killmail_id = l.killmail_id
                   WHERE l.user_id = users.id) WHERE id = ?""",
            (user_id,),
        )
    return int(links)


def delete_due(limit: int = DELETED_PER_TICK, batches: int = BATCHES_PER_TICK) -> int:
    """Delete former owners whose thirty days are over, with the killmails that only they had; returns how many.

    A user whose owner change was seen by a refresh, and who has not logged in since, is one of them. Idempotent. At
    most `batches` transactions of BATCH killmails: what a call has deleted stays deleted, and the next one goes on.
    """
    before = utcnow() - KEPT_FOR
    unclaimed = execute(
        "SELECT id, owner_hash FROM users WHERE sold_at < ? ORDER BY sold_at LIMIT ?", (before, limit)
    ).fetchall()
    for user_id, owner_hash in unclaimed:
        hide(user_id, owner_hash, sold_before=before)
    deleted = 0
    for _ in range(batches):
        due = execute("SELECT id FROM former_owners WHERE sold_at < ? ORDER BY sold_at LIMIT 1", (before,)).fetchone()
        if due is None or deleted == limit:
            break
        deleted += _delete_batch(due[0], before)
    return deleted


def _former_row(user: User) -> int:
    """The row of this former owner, new or as it is from an earlier sale; the thirty days begin again."""
    sold_at = user.sold_at or utcnow()
    row = execute(
        """INSERT INTO former_owners (character_id, character_name, owner_hash, sold_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (character_id, owner_hash) DO UPDATE SET sold_at = excluded.sold_at RETURNING id""",
        (user.character_id, user.character_name, user.owner_hash, sold_at),
    ).fetchall()
    return int(row[0][0])


def _delete_batch(former_id: int, before: datetime) -> bool:
    """Delete the former owner's next links, and the killmails that only they had; with the last links, the row. Returns
    whether the row was deleted."""
    with db.atomic():
        take_turns()
        # Given back, or sold once more, since it was found.
        if execute("SELECT 1 FROM former_owners WHERE id = ? AND sold_at < ?", (former_id, before)).fetchone() is None:
            return False
        delete_only_theirs("killmails", _ONLY_FORMER, former_id)
        execute(
            f"""DELETE FROM former_killmails WHERE former_owner_id = ?
                AND killmail_id IN (SELECT killmail_id FROM ({_NEXT_LINKS}) AS gone)""",
            (former_id, former_id),
        )
        last = execute(
            """DELETE FROM former_owners WHERE id = ?
               AND NOT EXISTS (SELECT 1 FROM former_killmails WHERE former_owner_id = former_owners.id)""",
            (former_id,),
        )
    return bool(last.rowcount)
