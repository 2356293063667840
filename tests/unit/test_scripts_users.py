"""`scripts/users.py`, as an operator meets it: who needs a login, and a second try for those who were turned away;
and a sale that was none."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from peewee import Database

import accounts
from accounts import TokenState, token_state
from database import execute
from ledger import former_owners
from models import FormerOwner, User, UserKillmail
from settings import KILLMAIL_SCOPE
from tests.unit.test_scripts import error_of, run
from tests.web_app import deletion_was_due_for_hours, make_killmail, make_user
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
    assert ended.stdout == "Pilot 90000006 (90000006): 1 killmail of the former owner visible again.\n"
    present = User.get(User.character_id == 90_000_006)
    assert list(UserKillmail.select(UserKillmail.user, UserKillmail.killmail_id).tuples()) == [(present.id, 1)]
    again = run("users", "restore-sold", "90000006", "--yes", DATABASE_URL=url)
    assert error_of(again) == "no former owner of Pilot 90000006 (90000006) has data here"


def test_without_a_yes_nothing_is_restored(url: str) -> None:
    sell(90_000_006)
    ended = run("users", "restore-sold", "90000006", DATABASE_URL=url)
    assert ended.returncode == 1
    assert "had 1 killmail. Its present owner sees all of them but 1, and will see those, too." in ended.stderr
    assert "error: nothing was changed (use --yes to skip this question)" in ended.stderr
    assert UserKillmail.select().count() == 0


def test_a_character_without_a_user_cannot_be_restored(url: str) -> None:
    ended = run("users", "restore-sold", "90000099", "--yes", DATABASE_URL=url)
    assert error_of(ended) == "no user with character id 90000099: its present owner has to log in first"


def killmails_of(character_id: int) -> set[int]:
    user = User.get(User.character_id == character_id)
    return {link.killmail_id for link in UserKillmail.select().where(UserKillmail.user == user.id)}


def sell_at(character_id: int, sold_at: str, *killmail_ids: int, logs_in: bool = True) -> None:
    """The character's owner had these killmails; the sale was seen then, and its present owner has logged in since."""
    known = User.get_or_none(User.character_id == character_id)
    former = known or make_user(character_id, owner_hash="first")
    for killmail_id in killmail_ids:
        make_killmail(killmail_id, former)
    assert former_owners.hide(former.id, former.owner_hash)
    FormerOwner.update(sold_at=datetime.fromisoformat(sold_at)).where(
        FormerOwner.owner_hash == former.owner_hash, FormerOwner.character_id == character_id
    ).execute()
    if logs_in:
        make_user(character_id, owner_hash=f"after {former.owner_hash}")


SINCE = "2026-01-31T18:30"
SALE, TWICE, ABSENT, LATER = 90_000_011, 90_000_012, 90_000_013, 90_000_014


@pytest.fixture
def incident(url: str) -> str:
    """One real sale before; then one character whose owner changed twice, one whose pilot is away, and one more."""
    sell_at(SALE, "2026-01-31 18:29:59", 1)
    sell_at(TWICE, "2026-01-31 18:30:00", 2, 3)
    sell_at(TWICE, "2026-02-02 01:00:00", 4)
    sell_at(ABSENT, "2026-02-01 01:00:00", 5, logs_in=False)
    sell_at(LATER, "2026-02-03 01:00:00", 6)
    return url


def test_all_whose_owner_changed_since_are_given_back_at_once(incident: str) -> None:
    ended = run("users", "restore-sold", "--all-since", SINCE, "--yes", DATABASE_URL=incident)
    assert error_of(ended) == "1 of 3 characters were not restored"
    assert ended.stdout.splitlines() == [
        f"not restored: Pilot {ABSENT} ({ABSENT}): its present owner has to log in first",
        "2 characters: 4 killmails of former owners are visible again.",
    ]
    assert [killmails_of(each) for each in (SALE, TWICE, LATER)] == [set(), {2, 3, 4}, {6}]
    assert {row.character_id for row in FormerOwner.select()} == {SALE, ABSENT}
    # And once more, when the last one has logged in
    make_user(ABSENT)
    again = run("users", "restore-sold", "--all-since", SINCE, "--yes", "--json", DATABASE_URL=incident)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == {
        "restored": [{"character_id": ABSENT, "restored": 1}],
        "not_restored": [],
    }
    none_left = run("users", "restore-sold", "--all-since", SINCE, DATABASE_URL=incident)
    assert none_left.stdout.startswith("No character whose owner changed since 2026-01-31 18:30:00 EVE time")


def test_it_shows_how_many_and_asks_once(incident: str) -> None:
    ended = run("users", "restore-sold", "--all-since", SINCE, DATABASE_URL=incident)
    assert ended.returncode == 1
    assert ended.stderr.count("Type yes") == 1
    assert "3 characters with 5 hidden killmails" in ended.stderr
    assert "of whom 2 have logged in since" in ended.stderr
    assert "error: nothing was changed" in ended.stderr
    assert UserKillmail.select().count() == 0


def test_one_that_cannot_be_restored_keeps_no_other_from_it(incident: str) -> None:
    """Given a character whose restoration the database refuses, Then the others are restored, and it is said why."""
    former = FormerOwner.get(FormerOwner.owner_hash == "after first")
    execute(
        f"CREATE TRIGGER broken BEFORE DELETE ON former_owners WHEN OLD.id = {former.id} "
        "BEGIN SELECT RAISE(ABORT, 'this row is broken'); END"
    )
    ended = run("users", "restore-sold", "--all-since", SINCE, "--yes", "--json", DATABASE_URL=incident)
    assert error_of(ended) == "2 of 3 characters were not restored"
    assert json.loads(ended.stdout)["not_restored"][0] == {"character_id": TWICE, "reason": "this row is broken"}
    assert [killmails_of(each) for each in (TWICE, LATER)] == [set(), {6}]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--all-since", "yesterday"), "'yesterday' is not a time such as 2026-01-31"),
        (("--all-since", "2999-01-01"), "is in the future"),
        (("--all-since", "0001-01-01T00:00+05:00"), "is not a time"),
        (("--all-since", SINCE, "90000006"), "not allowed with argument"),
        ((), "is required"),
    ],
)
def test_a_wrong_time_or_none_is_bad_usage(url: str, arguments: tuple[str, ...], why: str) -> None:
    ended = run("users", "restore-sold", "--yes", *arguments, DATABASE_URL=url)
    assert ended.returncode == 2
    assert why in " ".join(ended.stderr.split())


def test_a_time_with_an_offset_is_taken_as_eve_time(incident: str) -> None:
    arguments = ("restore-sold", "--all-since", "2026-02-03T01:30:00+01:00", "--yes", "--json")
    assert json.loads(run("users", *arguments, DATABASE_URL=incident).stdout)["restored"] == [
        {"character_id": LATER, "restored": 1}
    ]


def test_a_pause_of_deletion_is_listed_until_the_operator_ends_it(incident: str) -> None:
    deletion_was_due_for_hours()
    assert "paused since" in run("users", "pause-deletion", DATABASE_URL=incident).stdout
    assert accounts.forget_former_owners() == 0
    assert "users.py resume-deletion" in run("users", "list", DATABASE_URL=incident).stdout

    asked = run("users", "resume-deletion", DATABASE_URL=incident)
    assert asked.returncode == 1
    assert "the data of 5 former owners" in asked.stderr
    assert accounts.forget_former_owners() == 0

    resumed = run("users", "resume-deletion", "--yes", DATABASE_URL=incident)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert json.loads(run("users", "--json", DATABASE_URL=incident).stdout)["deletion_paused_since"] is None
    assert accounts.forget_former_owners() == 5
    assert run("users", "resume-deletion", DATABASE_URL=incident).stdout == "Deletion was not paused.\n"
