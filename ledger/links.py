"""Links: in whose list a killmail appeared, which decides what a pilot sees and what unlinking deletes.

The invariant: a link to a *stored* killmail exists only where its body names the pilot's character as the victim or as
an attacker. A list that ESI answered for the wrong character therefore shows nobody another pilot's killmails. Before
a killmail is stored its body is unknown, and its link shows nothing; `withdraw_foreign` checks it when it is stored.
What that says about the list it stood in is left to `foreign_lists.py`.

A stored killmail that names none of the pilots who listed it keeps no link: no query finds it. It stays stored for a
week (`without_links.py`), so that a wrong list is not fetched again at each sync.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from functools import wraps
from typing import ParamSpec, TypeVar

from database import execute, insert_rows, lock_clause, placeholders
from killmails import Killmail, named_characters
from ledger.foreign_lists import UsersNotHeld

P = ParamSpec("P")
R = TypeVar("R")


class KillmailsDeleted(Exception):
    """A killmail was deleted (its last pilot unlinked) after this transaction saw it stored."""


def repeat_if_deleted(transaction: Callable[P, R]) -> Callable[P, R]:
    """Run the transaction again, from its start, for as long as it ends in KillmailsDeleted: now it sees them gone."""

    @wraps(transaction)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> R:
        while True:
            try:
                return transaction(*args, **kwargs)
            except KillmailsDeleted:
                continue

    return repeat


def link(user_id: int, killmail_ids: Collection[int], stored: Collection[int], now: datetime) -> tuple[int, set[int]]:
    """Link a page of the user's list; `stored` are those of it that are stored. Returns how many links are new, and the
    foreign ones of the stored.

    Call it after the ledger rows of the rest are locked: until the commit nothing here is deleted by an unlink. Raises
    KillmailsDeleted.
    """
    missing = set(killmail_ids) - _linked(user_id, killmail_ids)
    # What is linked already was checked when it was stored, or linked: a page of known killmails costs no check.
    unchecked = sorted(missing & set(stored))
    foreign = _foreign(user_id, unchecked) if unchecked else set()
    linked = insert_rows(
        "user_killmails",
        ("user_id", "killmail_id", "linked_at"),
        [(user_id, killmail_id, now) for killmail_id in sorted(missing - foreign)],
        "ON CONFLICT DO NOTHING",
    )
    return linked, foreign


def withdraw_foreign(killmail: Killmail, held: Collection[int]) -> list[int]:
    """Delete the links of a killmail, stored in this transaction, to pilots whom it does not name; returns their ids.

    `held`: the users whom this transaction has locked. Raises UsersNotHeld where others are concerned.
    A page that links it at the same time holds its ledger row, or waits for it and then finds it stored.
    """
    linked = execute(
        """SELECT l.user_id, u.character_id FROM user_killmails l JOIN users u ON u.id = l.user_id
           WHERE l.killmail_id = ?""",
        (killmail.killmail_id,),
    ).fetchall()
    named = named_characters(killmail)
    foreign = sorted(user_id for user_id, character_id in linked if character_id not in named)
    if not set(foreign) <= set(held):
        raise UsersNotHeld(foreign)
    if foreign:
        execute(
            f"DELETE FROM user_killmails WHERE killmail_id = ? AND user_id IN ({placeholders(foreign)})",
            (killmail.killmail_id, *foreign),
        )
    return foreign


def _linked(user_id: int, killmail_ids: Collection[int]) -> set[int]:
    rows = execute(
        f"SELECT killmail_id FROM user_killmails WHERE user_id = ? AND killmail_id IN ({placeholders(killmail_ids)})",
        (user_id, *killmail_ids),
    )
    return {killmail_id for (killmail_id,) in rows.fetchall()}


def _foreign(user_id: int, stored: list[int]) -> set[int]:
    """Which of these stored killmails do not name the user's character. Keeps all of them from being deleted."""
    marks = placeholders(stored)
    held = execute(
        f"SELECT killmail_id FROM killmails WHERE killmail_id IN ({marks}) ORDER BY killmail_id"
        f" {lock_clause(share=True)}",
        stored,
    ).fetchall()
    if len(held) < len(stored):
        raise KillmailsDeleted
    (character_id,) = execute("SELECT character_id FROM users WHERE id = ?", (user_id,)).fetchone()
    # By the primary keys, which begin with killmail_id: a pilot's other killmails are not read.
    named = execute(
        f"""SELECT killmail_id FROM victims WHERE killmail_id IN ({marks}) AND character_id = ?
            UNION SELECT killmail_id FROM attackers WHERE killmail_id IN ({marks}) AND character_id = ?""",
        (*stored, character_id, *stored, character_id),
    ).fetchall()
    return set(stored) - {killmail_id for (killmail_id,) in named}
