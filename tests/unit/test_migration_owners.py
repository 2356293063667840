"""Migration 0007 on a database with data: what should not be seen is hidden, and nothing else is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from peewee import Database
from playhouse.migrations import Runner

import database
import migrations
from database import db, execute
from tests import postgres


@pytest.fixture(params=["sqlite", "postgres"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database as it was before this migration."""
    if request.param == "postgres":
        postgres.require_server()
        with postgres.scratch_database() as url:
            yield from _without(url)
    else:
        yield from _without(f"sqlite:///{tmp_path}/before.db")


def _without(url: str) -> Iterator[Database]:
    made = database.connect(url)
    try:
        migrations.upgrade()
        with db.connection_context(), migrations._alone():
            list(Runner(made, str(migrations.DIRECTORY)).down("0007_owners"))
        yield made
    finally:
        cast(Any, made).close_all()


def _fill() -> None:
    for user_id, character_id in ((1, 90_000_001), (2, 90_000_002)):
        execute(
            """INSERT INTO users (id, character_id, character_name, owner_hash, scopes, token_version, session_epoch,
                   last_sync_complete, full_requested, consecutive_failures, created_at)
               VALUES (?, ?, 'A pilot', 'owner', '', 0, 0, FALSE, FALSE, 0, ?)""",
            (user_id, character_id, database.utcnow()),
        )
    for killmail_id, victim, attacker in ((1, 90_000_001, 90_000_002), (2, 90_000_002, None), (3, None, None)):
        execute(
            """INSERT INTO killmails (killmail_id, killmail_hash, killmail_time, solar_system_id, attacker_count,
                   is_npc, is_solo, created_at) VALUES (?, '', ?, 1, 1, FALSE, FALSE, ?)""",
            (killmail_id, database.utcnow(), database.utcnow()),
        )
        execute(
            "INSERT INTO victims (killmail_id, character_id, ship_type_id, damage_taken) VALUES (?, ?, 587, 1)",
            (killmail_id, victim),
        )
        execute(
            """INSERT INTO attackers (killmail_id, ordinal, character_id, damage_done, final_blow, security_status)
               VALUES (?, 0, ?, 1, TRUE, 0)""",
            (killmail_id, attacker),
        )
    for user_id in (1, 2):
        for killmail_id in (1, 2, 3, 4):  # 4 is not stored yet
            execute(
                "INSERT INTO user_killmails (user_id, killmail_id, linked_at) VALUES (?, ?, ?)",
                (user_id, killmail_id, database.utcnow()),
            )


def test_links_to_pilots_whom_a_killmail_does_not_name_are_deleted(before: Database) -> None:
    with db.connection_context():
        _fill()

    assert "0007_owners" in migrations.upgrade()

    with db.connection_context():
        links = set(execute("SELECT user_id, killmail_id FROM user_killmails").fetchall())
        assert links == {(1, 1), (2, 1), (2, 2), (1, 4), (2, 4)}
        assert execute("SELECT COUNT(*) FROM killmails").fetchone()[0] == 3
