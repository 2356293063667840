"""Migration 0013 on a database with data: kills by players' structures are corrected, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from runpy import run_path
from typing import Any, cast

import pytest
from peewee import Database

import database
import migrations
from database import db
from models import Attacker, Killmail
from tests import postgres
from tests.web_app import make_killmail, make_user

MIGRATION = run_path(str(migrations.DIRECTORY / "0013_structures_are_no_npcs.py"))
#: Killmail id: (the attacker's character and corporation, is_npc as it was, is_npc as it should be).
CASES = {
    1: ((None, 98_818_433), True, False),  # an Astrahus
    2: ((None, 241_742_359), True, False),  # a control tower of 2009
    3: ((None, 1_000_125), True, True),
    4: ((None, None), True, True),
    5: ((90_000_001, 98_000_001), False, False),
}


@pytest.fixture(params=["sqlite", "postgres"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database as older code has filled it."""
    if request.param == "postgres":
        postgres.require_server()
        with postgres.scratch_database() as url:
            yield from _fill(url)
    else:
        yield from _fill(f"sqlite:///{tmp_path}/filled.db")


def _fill(url: str) -> Iterator[Database]:
    made = database.connect(url)
    try:
        migrations.upgrade()
        with db.connection_context():
            viewer = make_user()
            for killmail_id, ((character_id, corporation_id), was_npc, _) in CASES.items():
                make_killmail(killmail_id, viewer, is_npc=was_npc)
                Attacker.update(character_id=character_id, corporation_id=corporation_id).where(
                    Attacker.killmail == killmail_id
                ).execute()
            yield made
    finally:
        cast(Any, made).close_all()


def _marked() -> dict[int, bool]:
    query: Any = Killmail.select(Killmail.killmail_id, Killmail.is_npc)
    return dict(query.tuples())


def test_structures_are_no_npcs_any_more(filled: Database) -> None:
    MIGRATION["up"](None, filled)
    assert _marked() == {killmail_id: should for killmail_id, (_, _, should) in CASES.items()}
    MIGRATION["up"](None, filled)
    assert _marked() == {killmail_id: should for killmail_id, (_, _, should) in CASES.items()}


def test_the_way_back(filled: Database) -> None:
    MIGRATION["up"](None, filled)
    MIGRATION["down"](None, filled)
    assert _marked() == {killmail_id: was for killmail_id, (_, was, _) in CASES.items()}
