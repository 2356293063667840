"""Rows by the million, straight into PostgreSQL: made by generate_series, as the system would have written them."""

from __future__ import annotations

from contextlib import suppress

import peewee

from database import execute

#: Ids of made-up killmails: below all that the simulator invents, so that real ones are newer.
FIRST_ID = 1_000_000
#: Character ids of made-up users.
FIRST_CHARACTER = 2_000_000_000


def users(count: int, due: int) -> None:
    """So many more users who can be synced, `due` of them now: evenly spread, so that no two share a page."""
    every = count // due if due else count + 1
    execute(
        """
        INSERT INTO users (character_id, character_name, owner_hash, scopes, refresh_token, token_version,
                           session_epoch, last_sync_complete, full_requested, last_full_sync_at,
                           last_killmail_sync_at, next_sync_at, consecutive_failures, created_at)
        SELECT ? + n, 'Pilot ' || n, 'owner', 'esi-killmails.read_killmails.v1', 'sealed', 0, 1, TRUE, FALSE,
               now(), now() - interval '20 minutes',
               now() + CASE WHEN mod(n, ?) = 0 THEN interval '-5 minutes' ELSE interval '1 hour' * (1 + mod(n, 24)) END,
               0, now()
        FROM generate_series(1, ?) n
        """,
        (FIRST_CHARACTER, every, count),
    )


def ended_syncs() -> None:
    """One that ended well for every user, as the scheduler's last round left it."""
    execute(
        """
        INSERT INTO syncs (user_id, trigger, priority, "full", state, next_page, found, skipped, saved, failed,
                           attempts, queued_at, finished_at)
        SELECT id, 'SCHEDULE', 3, FALSE, 'FINISHED', 1, 0, 0, 0, 0, 0, now(), now() FROM users
        """
    )


def killmails(count: int, user_id: int) -> None:
    """So many stored killmails in the lists of one user, each with four attackers and three items."""
    first, last = FIRST_ID, FIRST_ID + count - 1
    execute(
        """
        INSERT INTO killmails (killmail_id, killmail_hash, killmail_time, solar_system_id, attacker_count, is_npc,
                               is_solo, created_at)
        SELECT n, md5(n::text) || '00000000', timestamp '2026-01-01' + n * interval '1 second', 30000142 + mod(n, 50),
               4, FALSE, FALSE, now() FROM generate_series(?, ?) n
        """,
        (first, last),
    )
    execute(
        """
        INSERT INTO victims (killmail_id, character_id, corporation_id, ship_type_id, damage_taken)
        SELECT n, 95000000 + mod(n, 5000), 98000000 + mod(n, 200), 587 + mod(n, 40), 1000 FROM generate_series(?, ?) n
        """,
        (first, last),
    )
    execute(
        """
        INSERT INTO attackers (killmail_id, ordinal, character_id, corporation_id, ship_type_id, weapon_type_id,
                               damage_done, final_blow, security_status)
        SELECT n, o, 96000000 + mod(n + o, 5000), 98000000 + mod(n, 200), 621, 2488, 250, o = 0, -1.5
        FROM generate_series(?, ?) n, generate_series(0, 3) o
        """,
        (first, last),
    )
    execute(
        """
        INSERT INTO killmail_items (killmail_id, ordinal, item_type_id, flag, singleton, quantity_dropped)
        SELECT n, o, 34 + o, 5, 0, 10 FROM generate_series(?, ?) n, generate_series(0, 2) o
        """,
        (first, last),
    )
    links(user_id, count)


def names() -> None:
    """A name for everything that stands in a stored killmail, and a security status for its solar system."""
    execute(
        """
        INSERT INTO names (id, name, category, updated_at)
        SELECT id, 'Name ' || id, 'character', now() FROM (
            SELECT solar_system_id AS id FROM killmails
            UNION SELECT unnest(ARRAY[character_id, corporation_id, ship_type_id]) FROM victims
            UNION SELECT unnest(ARRAY[character_id, corporation_id, ship_type_id]) FROM attackers
        ) AS shown
        WHERE id IS NOT NULL ON CONFLICT (id) DO NOTHING
        """
    )
    execute(
        """
        INSERT INTO solar_systems (id, security_status)
        SELECT DISTINCT solar_system_id, 0.5 FROM killmails ON CONFLICT (id) DO NOTHING
        """
    )


def links(user_id: int, count: int) -> None:
    """The first so many made-up killmails stood in this user's lists, long ago."""
    execute(
        """
        INSERT INTO user_killmails (user_id, killmail_id, linked_at)
        SELECT ?, n, now() - interval '1 day' FROM generate_series(?, ?) n
        """,
        (user_id, FIRST_ID, FIRST_ID + count - 1),
    )


def pending(count: int, user_id: int) -> int:
    """A sync of this user that waits for so many background killmails, older than any the simulator knows; its id."""
    sync_id: int = execute(
        """
        INSERT INTO syncs (user_id, trigger, priority, "full", state, next_page, found, skipped, saved, failed,
                           attempts, queued_at)
        VALUES (?, 'SCHEDULE', 3, TRUE, 'FETCHING', 2, ?, 0, 0, 0, 0, now()) RETURNING id
        """,
        (user_id, count),
    ).fetchone()[0]
    # Turns behind those of what is fetched meanwhile, and the age of what was listed after it: of every ten rows that
    # are sent one is the oldest.
    execute(
        """
        INSERT INTO ledger (killmail_id, killmail_hash, priority, state, attempts, turn, created_at)
        SELECT n, md5(n::text) || '00000000', 3, 'pending', 0, 1000 + mod(n, 50000), now() + interval '1 day'
        FROM generate_series(?, ?) n
        """,
        (FIRST_ID, FIRST_ID + count - 1),
    )
    execute(
        "INSERT INTO sync_items (sync_id, killmail_id) SELECT ?, n FROM generate_series(?, ?) n",
        (sync_id, FIRST_ID, FIRST_ID + count - 1),
    )
    return sync_id


def settle() -> None:
    """As autovacuum would leave the tables, and all of it on the disk, so that no run meets either at work."""
    execute("VACUUM (ANALYZE)")
    with suppress(peewee.ProgrammingError):  # for superusers: without, it comes when it comes
        execute("CHECKPOINT")
