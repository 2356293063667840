"""Failures in a row by different owners, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from esi import failing_owners
from esi.failing_owners import REMEMBERED_SECONDS

pytestmark = pytest.mark.usefixtures("any_db")

NOW = 1_800_000_000.0


def test_one_owner_counts_once_however_often_it_fails() -> None:
    assert [failing_owners.add("sso", 7, NOW + n) for n in range(5)] == [1] * 5


def test_different_owners_add_up_until_somebody_succeeds() -> None:
    assert [failing_owners.add("sso", owner, NOW) for owner in (7, 8, 9)] == [1, 2, 3]
    failing_owners.forget("sso")
    assert failing_owners.count("sso") == 0
    assert failing_owners.add("sso", 10, NOW) == 1


def test_each_gate_has_its_own() -> None:
    failing_owners.add("sso", 7, NOW)
    assert failing_owners.add("lists", 8, NOW) == 1
    failing_owners.forget("lists")
    assert failing_owners.count("sso") == 1


@pytest.mark.parametrize("ago", [REMEMBERED_SECONDS + 1, -REMEMBERED_SECONDS - 1])
def test_failures_long_ago_or_dated_ahead_are_deleted(ago: float) -> None:
    failing_owners.add("sso", 7, NOW - ago)
    assert failing_owners.add("sso", 8, NOW) == 1
