"""One odd character among normal ones: faults that strike only what concerns it."""

from typing import Any

import pytest
import requests

from simulator.faults import Fault
from simulator.request_log import Note
from tests.simulator.client import Client


@pytest.fixture
def client(simulate):
    return simulate(page_size=3)


@pytest.fixture
def pilots(client) -> tuple[int, int]:
    """The odd one, and a normal one."""
    odd, normal = client.truth()
    return odd, normal


def _be_odd(client: Client, character_id: int, route: str, kind: str, **more: Any) -> None:
    client.control("POST", "faults", {"route": route, "kind": kind, "character_id": character_id, **more})


def _page(client: Client, character_id: int, page: int = 1) -> requests.Response:
    return client.recent(character_id, client.access(character_id), page)


def _true_page(client: Client, character_id: int) -> list[dict[str, Any]]:
    keys = ("killmail_id", "killmail_hash")
    return [dict(zip(keys, reference, strict=True)) for reference in client.truth()[character_id][:3]]


# Lists


def test_malformed_entries_stand_between_the_true_ones(client, pilots):
    odd, normal = pilots
    _be_odd(client, odd, "recent", "malformed_entries")
    body = _page(client, odd).json()
    true = _true_page(client, odd)
    assert [entry for entry in body if entry in true] == true
    assert len(body) == len(true) + 6
    assert _page(client, normal).json() == _true_page(client, normal)


def test_hashes_in_capitals(client, pilots):
    _be_odd(client, pilots[0], "recent", "upper_case_hashes")
    body = _page(client, pilots[0]).json()
    assert [entry["killmail_hash"].lower() for entry in body] == [
        entry["killmail_hash"] for entry in _true_page(client, pilots[0])
    ]
    assert all(entry["killmail_hash"].isupper() for entry in body)


@pytest.mark.parametrize(("kind", "said"), [("no_x_pages", None), ("malformed_x_pages", "many")])
def test_x_pages_may_be_missing_or_malformed(client, pilots, kind, said):
    odd, normal = pilots
    _be_odd(client, odd, "recent", kind)
    assert _page(client, odd).headers.get("X-Pages") == said
    assert int(_page(client, normal).headers["X-Pages"]) > 1


def test_an_empty_page_in_the_middle(client, pilots):
    odd, _ = pilots
    _be_odd(client, odd, "recent", "empty_page", page=2)
    first, second = _page(client, odd), _page(client, odd, 2)
    assert (len(first.json()), second.status_code, second.json()) == (3, 200, [])
    assert first.headers["X-Pages"] == second.headers["X-Pages"]


def test_one_id_under_two_hashes(client, pilots):
    odd, _ = pilots
    _be_odd(client, odd, "recent", "two_hashes")
    wrong, right, *_ = _page(client, odd).json()
    assert wrong["killmail_id"] == right["killmail_id"]
    assert client.killmail(list(wrong.values())).status_code == 422
    assert client.killmail(list(right.values())).status_code == 200


def test_another_characters_list(client, pilots):
    odd, normal = pilots
    _be_odd(client, odd, "recent", "foreign_list", other_id=normal)
    assert _page(client, odd).json() == _true_page(client, normal) != _true_page(client, odd)


def test_a_frozen_etag_is_always_304(client, pilots):
    odd, _ = pilots
    etag = _page(client, odd).headers["ETag"]
    _be_odd(client, odd, "recent", "frozen")
    client.control("POST", f"characters/{odd}/killmails", {"count": 1, "bust_cache": True})
    token = client.access(odd)
    assert client.recent(odd, token, If_None_Match=etag).status_code == 304
    fresh = client.recent(odd, token)
    assert (fresh.status_code, fresh.json()) == (200, _true_page(client, odd))


def test_a_bare_429_says_when_and_not_of_which_bucket(client, pilots):
    odd, normal = pilots
    _be_odd(client, odd, "recent", "429_bare_wait", seconds=7)
    answer = _page(client, odd)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    assert "X-Ratelimit-Group" not in answer.headers
    assert _page(client, normal).status_code == 200


def test_a_403_about_the_scope_with_and_without_sso_status(client, pilots):
    odd, normal = pilots
    _be_odd(client, odd, "recent", "scope", count=1)
    _be_odd(client, odd, "recent", "sso_status")
    plain, told = _page(client, odd), _page(client, odd)
    assert (plain.status_code, "sso_status" in plain.json()) == (403, False)
    assert (told.status_code, told.json()["sso_status"]) == (403, 503)
    assert "scope" in plain.json()["error"]
    assert "scope" in told.json()["error"]
    assert _page(client, normal).status_code == 200


# Killmails


@pytest.mark.parametrize("status", [404, 422])
def test_killmails_of_one_character_are_refused(client, pilots, status):
    odd, normal = pilots
    _be_odd(client, odd, "killmail", f"status:{status}")
    truth = client.truth()
    mine = {reference[0] for reference in truth[odd]}
    assert client.killmail(truth[odd][0]).status_code == status
    theirs = next(reference for reference in truth[normal] if reference[0] not in mine)
    assert client.killmail(theirs).status_code == 200


# Refreshes


@pytest.mark.parametrize(
    ("kind", "status", "error"),
    [
        ("status:500", 500, "The simulator was told to fail"),
        ("invalid_token", 400, "invalid_token"),
        ("invalid_scope", 400, "invalid_scope"),
        ("invalid_grant", 400, "invalid_grant"),
    ],
)
def test_the_sso_refuses_one_characters_refreshes(client, pilots, kind, status, error):
    odd, normal = (client.login(pilot)["refresh_token"] for pilot in pilots)
    _be_odd(client, pilots[0], "refresh", kind)
    refused = client.refresh(odd)
    assert (refused.status_code, refused.json()["error"]) == (status, error)
    assert client.refresh(normal).status_code == 200
    assert client.login(pilots[0])["access_token"], "a login is no refresh"


def test_a_malformed_token_set(client, pilots):
    token = client.login(pilots[0])["refresh_token"]
    _be_odd(client, pilots[0], "refresh", "malformed_tokens")
    answer = client.refresh(token)
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()


def test_an_answer_is_lost_after_the_token_was_rotated(client, pilots):
    token = client.login(pilots[0])["refresh_token"]
    _be_odd(client, pilots[0], "refresh", "lost", count=1)
    with pytest.raises(requests.ConnectionError):
        client.refresh(token)
    assert client.refresh(token).json()["error"] == "invalid_grant"


def test_a_rotated_token_may_serve_a_while_longer(client, pilots):
    client.control("POST", "settings", {"rotation_grace_seconds": 60})
    token = client.login(pilots[0])["refresh_token"]
    _be_odd(client, pilots[0], "refresh", "lost", count=1)
    with pytest.raises(requests.ConnectionError):
        client.refresh(token)
    again = client.refresh(token)
    assert (again.status_code, again.json()["refresh_token"] == token) == (200, False), "a token that is to last"
    client.control("POST", f"characters/{pilots[0]}/revoke", {})
    assert client.refresh(token).json()["error"] == "invalid_grant", "a revoked one has no such time"


def test_everybody_is_refused_for_a_while(client, pilots):
    tokens = [client.login(pilot)["refresh_token"] for pilot in pilots]
    client.control("POST", "faults", {"route": "refresh", "kind": "invalid_grant", "lasts": 60})
    assert [client.refresh(token).status_code for token in tokens] == [400, 400]
    [fault] = client.control("GET", "faults")
    assert fault["ends_at"] is not None


def test_a_fault_is_over_after_its_time():
    fault = Fault.of_json({"route": "refresh", "kind": "invalid_grant", "lasts": 10})
    note = Note("token", grant_type="refresh_token")
    assert [fault.fits(note, at) for at in (100.0, 109.9, 110.0)] == [True, True, False]


def test_a_share_of_refreshes_fails_the_same_way_each_time(simulate):
    def run() -> list[int]:
        client = simulate()
        token = client.login(next(iter(client.truth())))["refresh_token"]
        client.control("POST", "faults", {"route": "refresh", "kind": "status:500", "rate": 0.3})
        return [client.refresh(token).status_code for _ in range(40)]

    first = run()
    assert 3 < first.count(500) < 25
    assert run() == first, "the dice are seeded"


def test_a_foreign_list_needs_to_know_whose(client):
    answer = client.session.post(
        f"{client.url}/_simulator/faults", json={"route": "recent", "kind": "foreign_list"}, timeout=5
    )
    assert answer.status_code == 400
    assert "other_id" in answer.json()["error"]
