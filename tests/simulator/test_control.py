"""The control API: the truth, the evidence, and changes to the world."""

import pytest


def test_the_truth_counts_distinct_killmails(simulate):
    client = simulate(killmail_count=30, shared_fraction=1.0)
    truth = client.control("GET", "truth")

    lists = [character["killmails"] for character in truth["characters"].values()]

    assert truth["killmail_count"] == 30
    assert len({reference[0] for references in lists for reference in references}) == 30
    assert sum(map(len, lists)) > 50
    assert all({"name", "owner", "killmails"} == one.keys() for one in truth["characters"].values())


def test_names_are_all_there(simulate):
    client = simulate()
    names = client.control("GET", "names")
    assert names["30000142"] == {"category": "solar_system", "name": "Jita"}


def test_a_late_killmail_lies_behind_newer_ones(simulate):
    client = simulate()
    pilot, before = next(iter(client.truth().items()))

    added = client.control("POST", f"characters/{pilot}/killmails", {"count": 12, "late": True})["added"]

    assert max(one for one, _ in added) < before[0][0]
    after = client.truth()[pilot]
    assert sorted(before + added, reverse=True) == after
    assert all(client.killmail(reference).status_code == 200 for reference in added)


def test_a_shared_killmail_is_in_both_lists(simulate):
    client = simulate(pilots=3)
    one, other, third = client.truth()
    [added] = client.control("POST", f"characters/{one}/killmails", {"shared_with": other})["added"]
    truth = client.truth()
    assert added in truth[one]
    assert added in truth[other]
    assert added not in truth[third]


def test_a_body_of_ones_own_is_served_as_it_is(simulate):
    client = simulate()
    one, other = client.truth()
    body = client.control("GET", f"killmails/{client.truth()[one][0][0]}")
    mine = body | {"killmail_id": 5, "killmail_hash": "f" * 40, "brand_new_key": 1}

    client.control("POST", f"characters/{one}/killmails", {"body": mine, "shared_with": other})

    assert client.killmail([5, "f" * 40]).json()["brand_new_key"] == 1
    assert [5, "f" * 40] in client.truth()[other]


@pytest.mark.parametrize("body", [{}, {"killmail_id": 5}, "x", [1]])
def test_a_body_that_is_no_killmail_is_refused(simulate, body):
    client = simulate()
    pilot = next(iter(client.truth()))
    answer = client.session.post(
        f"{client.url}/_simulator/characters/{pilot}/killmails", json={"body": body}, timeout=5
    )
    assert answer.status_code == 400


def test_a_known_id_is_refused(simulate):
    client = simulate()
    pilot, truth = next(iter(client.truth().items()))
    body = client.control("GET", f"killmails/{truth[0][0]}")
    answer = client.session.post(
        f"{client.url}/_simulator/characters/{pilot}/killmails", json={"body": body}, timeout=5
    )
    assert (answer.status_code, client.truth()[pilot]) == (400, truth)


def test_a_new_pilot_can_log_in_at_once(simulate):
    client = simulate()
    added = client.control("POST", "characters", {"name": "Nova Example", "killmails": 4})

    pilot = added["character_id"]

    assert client.names([pilot]).json()[0]["name"] == "Nova Example"
    listed = client.recent(pilot, client.access(pilot)).json()
    assert [[row["killmail_id"], row["killmail_hash"]] for row in listed] == added["killmails"]
    assert len(listed) == 4


def test_a_list_can_be_out_of_order(simulate):
    """esi/README.md §5 "Order": nothing in the specification promises one."""
    client = simulate(killmail_count=40, pilots=1)
    pilot, truth = next(iter(client.truth().items()))
    client.control("POST", f"characters/{pilot}/list_order", {"shuffle": True})

    served = [row["killmail_id"] for row in client.recent(pilot, client.access(pilot)).json()]

    assert served != [one for one, _ in truth]
    assert sorted(served, reverse=True) == [one for one, _ in truth]


def test_a_dropped_killmail_leaves_the_list_but_not_esi(simulate):
    client = simulate(pilots=1, cache_seconds=300)
    pilot, truth = next(iter(client.truth().items()))
    token = client.access(pilot)
    client.recent(pilot, token)

    client.control("POST", f"characters/{pilot}/drop", {"killmail_id": truth[3][0]})

    assert len(client.recent(pilot, token).json()) == 11
    assert client.killmail(truth[3]).status_code == 200
    assert truth[3] not in client.truth()[pilot]


def test_revoked_pilots_cannot_refresh(simulate):
    """esi/README.md §4."""
    client = simulate()
    one, other = client.truth()
    tokens = {pilot: client.login(pilot)["refresh_token"] for pilot in (one, other)}

    assert client.control("POST", f"characters/{one}/revoke") == {"revoked": 1}

    assert client.refresh(tokens[one]).status_code == 400
    assert client.refresh(tokens[other]).status_code == 200


def test_settings_hold_from_the_next_request_on(simulate):
    client = simulate()
    reference = next(iter(client.truth().values()))[0]
    wishes = {"limits": {"killmail": "2/1h"}, "page_size": 4, "players": 3, "error_limit": 50, "token_seconds": 9}

    answer = client.control("POST", "settings", wishes)

    assert answer["limits"]["killmail"] == "2/1h"
    assert answer["limits"]["char-killmail"] == "30/15m"
    assert answer["error_limit"] == "50/1m"
    assert [client.killmail(reference).status_code for _ in range(2)] == [200, 429]
    assert client.get("/status").json()["players"] == 3
    assert client.login(next(iter(client.truth())))["expires_in"] == 8


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "settings", {"colour": "red"}, 400),
        ("POST", "settings", {"limits": {"killmail": "lots"}}, 400),
        ("POST", "settings", [1], 400),
        ("POST", "characters/5/transfer", {}, 404),
        ("GET", "killmails/5", None, 404),
        ("GET", "nothing", None, 404),
        ("DELETE", "truth", None, 404),
    ],
)
def test_wrong_wishes_are_answered(simulate, method, path, body, status):
    client = simulate()
    answer = client.session.request(method, f"{client.url}/_simulator/{path}", json=body, timeout=5)
    assert answer.status_code == status
    assert "error" in answer.json()


def test_the_log_tells_who_asked_for_what(simulate):
    client = simulate()
    pilot, truth = next(iter(client.truth().items()))
    login = client.login(pilot)
    etag = client.recent(pilot, login["access_token"]).headers["ETag"]
    client.recent(pilot, login["access_token"], If_None_Match=etag)
    client.refresh(login["refresh_token"])
    client.control("POST", "faults", {"route": "killmail", "kind": "status:502", "count": 1})
    client.killmail(truth[0])

    entries = client.control("GET", "requests")

    told = [(e["route"], e["status"], e["page"], e["conditional"], e["cost"], e["grant_type"]) for e in entries]
    assert told == [
        ("authorize", 302, None, False, 0, None),
        ("token", 200, None, False, 0, "authorization_code"),
        ("recent", 200, 1, False, 2, None),
        ("recent", 304, 1, True, 1, None),
        ("token", 200, None, False, 0, "refresh_token"),
        ("killmail", 502, None, False, 0, None),
    ]
    assert [entry["seq"] for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert {entry["character_id"] for entry in entries[:5]} == {pilot}
    assert (entries[5]["killmail_id"], entries[5]["fault"]) == (truth[0][0], "status:502")
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    assert client.control("GET", "requests?since=4&limit=1") == [entries[4]]


def test_statistics_sum_up(simulate):
    client = simulate(limits={"killmail": "8/1h"})
    first, second, *_ = next(iter(client.truth().values()))
    for reference in (first, first, second, first, first):
        client.killmail(reference)

    stats = client.control("GET", "stats")

    assert stats["counts"] == {"killmail": {"200": 4, "429": 1}}
    assert (stats["repeated_details"], stats["details_ok_by_killmail_max"]) == (1, 3)
    assert (stats["count_429"], stats["count_420"]) == (1, 0)
    assert stats["tokens_spent"] == {"killmail 127.0.0.1": 8}
    assert 1 <= stats["max_in_one_second"] <= 5
    assert client.control("GET", f"stats?since_seq={stats['last_seq']}")["requests"] == 0
