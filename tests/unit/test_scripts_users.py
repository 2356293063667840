"""`scripts/users.py`, as an operator meets it: who needs a login, and a second try for those who were turned away;
and a sale that was none."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from peewee import Database

from accounts import TokenState, token_state
from ledger import former_owners
from models import User, UserKillmail
from settings import KILLMAIL_SCOPE
from tests.unit.test_scripts import error_of, run
from tests.web_app import make_killmail, make_user
from tokens.errors import NO_SCOPE, OWNER_CHANGED, REFUSED

REFUSED_ID, NO_SCOPE_ID, ERASED_ID, HEALTHY_ID = 90_000_002, 90_000_003, 90_000_004, 90_000_005


@pytest.fixture
def url(sqlite_db: Database, database_file: Path) -> str:
    """A database with a pilot of each kind."""
    away = {"next_sync_at": None, "refresh_token": "kept", "access_token": "old", "scopes": KILLMAIL_SCOPE}
    make_user(REFUSED_ID, **away | {"needs_login_reason": REFUSED, "recheck_at": datetime(2027, 1, 1, 12, 30)})
    make_user(NO_SCOPE_ID, **away | {"scopes": "publicData"})
    make_user(ERASED_ID, **away | {"needs_login_reason": OWNER_CHANGED, "refresh_token": None})
    make_user(HEALTHY_ID)
    return f"sqlite:///{database_file}"


def states() -> dict[int, TokenState]:
    return {user.character_id: token_state(user) for user in User.select()}


def test_it_lists_who_needs_a_login_and_why(url: str) -> None:
    ended = run("users", "list", DATABASE_URL=url)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert [str(each) in line for each, line in zip((REFUSED_ID, NO_SCOPE_ID, ERASED_ID), lines, strict=False)] == [
        True
    ] * 3
    assert REFUSED in lines[0]
    assert "2027-01-01 12:30:00" in lines[0]
    assert lines[1].startswith("MISSING_SCOPE")
    assert str(HEALTHY_ID) not in ended.stdout
    assert "retry-tokens" in lines[-1]
    assert "kept" not in ended.stdout


@pytest.mark.parametrize("arguments", [("list", "--json"), ("--json", "list"), ("--json",)])
def test_the_list_as_json(url: str, arguments: tuple[str, ...]) -> None:
    users = json.loads(run("users", *arguments, DATABASE_URL=url).stdout)["users"]
    assert [(user["character_id"], user["reason"], user["can_retry"]) for user in users] == [
        (REFUSED_ID, REFUSED, True), (NO_SCOPE_ID, NO_SCOPE, True), (ERASED_ID, OWNER_CHANGED, False),
    ]  # fmt: skip
    assert [user["recheck_at"] for user in users] == ["2027-01-01 12:30:00", None, None]


def test_all_who_still_have_a_refresh_token_are_eligible_again(url: str) -> None:
    ended = run("users", "retry-tokens", DATABASE_URL=url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("2 users are eligible again")
    assert states() == {
        REFUSED_ID: TokenState.OK, NO_SCOPE_ID: TokenState.OK,
        ERASED_ID: TokenState.NEEDS_LOGIN, HEALTHY_ID: TokenState.OK,
    }  # fmt: skip
    retried = User.get(User.character_id == REFUSED_ID)
    assert (retried.access_token, retried.refresh_token) == (None, "kept"), "the next sync has to ask the SSO"
    assert json.loads(run("users", "retry-tokens", "--json", DATABASE_URL=url).stdout) == {"eligible_again": 0}


def test_only_the_named_ones_are_eligible_again(url: str) -> None:
    ended = run("users", "retry-tokens", str(NO_SCOPE_ID), DATABASE_URL=url)
    assert ended.stdout.startswith("1 user is eligible again")
    assert states()[REFUSED_ID] is TokenState.NEEDS_LOGIN
    assert states()[NO_SCOPE_ID] is TokenState.OK


@pytest.mark.parametrize(
    ("character_id", "why"),
    [(1, "no user with character id 1"), (ERASED_ID, "only a login helps"), (HEALTHY_ID, "needs no login")],
)
def test_one_that_cannot_be_retried_is_told_and_nothing_is_done(url: str, character_id: int, why: str) -> None:
    line = error_of(run("users", "retry-tokens", str(REFUSED_ID), str(character_id), DATABASE_URL=url))
    assert why in line
    assert states()[REFUSED_ID] is TokenState.NEEDS_LOGIN


def test_an_id_that_is_none_is_bad_usage(url: str) -> None:
    ended = run("users", "retry-tokens", "Jita", DATABASE_URL=url)
    assert ended.returncode == 2
    assert "'Jita' is not an id" in ended.stderr


def test_where_all_is_well_it_says_so(url: str) -> None:
    User.delete().where(User.character_id != HEALTHY_ID).execute()
    assert run("users", DATABASE_URL=url).stdout == "No one needs a login.\n"
    assert run("users", "retry-tokens", DATABASE_URL=url).stdout.startswith("No one was turned away")


def sell(character_id: int) -> None:
    """The character's owner had a killmail; then another one logged in."""
    former = make_user(character_id, owner_hash="former")
    make_killmail(1, former)
    assert former_owners.hide(former.id, "former")
    make_user(character_id, owner_hash="present")


def test_the_present_owner_is_given_what_the_former_one_had(url: str) -> None:
    sell(90_000_006)
    ended = run("users", "restore-sold", "90000006", "--yes", DATABASE_URL=url)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "Pilot 90000006 (90000006): 1 killmails of the former owner are visible again.\n"
    present = User.get(User.character_id == 90_000_006)
    assert list(UserKillmail.select(UserKillmail.user, UserKillmail.killmail_id).tuples()) == [(present.id, 1)]
    again = run("users", "restore-sold", "90000006", "--yes", DATABASE_URL=url)
    assert error_of(again) == "no former owner of Pilot 90000006 (90000006) has data here"


def test_without_a_yes_nothing_is_restored(url: str) -> None:
    sell(90_000_006)
    ended = run("users", "restore-sold", "90000006", DATABASE_URL=url)
    assert ended.returncode == 1
    assert "had 1 killmails. Its present owner will see all of them." in ended.stderr
    assert "error: nothing was changed (use --yes to skip this question)" in ended.stderr
    assert UserKillmail.select().count() == 0


def test_a_character_without_a_user_cannot_be_restored(url: str) -> None:
    ended = run("users", "restore-sold", "90000099", "--yes", DATABASE_URL=url)
    assert error_of(ended) == "no user with character id 90000099: its present owner has to log in first"
