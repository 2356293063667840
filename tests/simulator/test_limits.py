"""Token buckets and the legacy error limit, as they show at the door."""

import time
from typing import Any

from tests.simulator.client import Client


def _reference(client: Client) -> list[Any]:
    return next(iter(client.truth().values()))[0]


def test_the_list_bucket_holds_fifteen_pages_of_one_character(simulate):
    """esi/README.md §2.2 and §0: 30/15m per app:character, so 15 pages, and each pilot has their own."""
    client = simulate()
    one, other = client.truth()
    token, other_token = client.access(one), client.access(other)

    answers = [client.recent(one, token) for _ in range(16)]

    assert [answer.status_code for answer in answers] == [200] * 15 + [429]
    assert client.recent(other, other_token).status_code == 200
    assert client.killmail(_reference(client)).status_code == 200


def test_thirty_304_or_six_errors_empty_the_list_bucket(simulate):
    """esi/README.md §0: 30 × 304, or 6 × 4xx."""
    client = simulate()
    one, other = client.truth()
    token, other_token = client.access(one), client.access(other)
    client.control("POST", "settings", {"limits": {"char-killmail": "32/15m"}})
    etag = client.recent(one, token).headers["ETag"]
    client_errors = [client.recent(other, other_token, 99).status_code for _ in range(7)]

    unchanged = [client.recent(one, token, If_None_Match=etag).status_code for _ in range(31)]

    assert unchanged == [304] * 30 + [429]
    assert client_errors == [404] * 6 + [429]


def test_headers_tell_the_bucket(simulate):
    """esi/README.md §2.3: group, limit, remaining, and the cost of this request."""
    client = simulate()
    reference = _reference(client)

    headers = [client.killmail(reference).headers, client.killmail([reference[0], "x"]).headers]

    assert [one["X-Ratelimit-Group"] for one in headers] == ["killmail", "killmail"]
    assert [one["X-Ratelimit-Limit"] for one in headers] == ["3600/15m", "3600/15m"]
    assert [one["X-Ratelimit-Remaining"] for one in headers] == ["3598", "3593"]
    assert [one["X-Ratelimit-Used"] for one in headers] == ["2", "5"]
    assert not any(name.lower().startswith("x-esi-error") for name in headers[0])


def test_an_empty_bucket_says_when_to_come_back_and_keeps_its_word(simulate):
    """esi/README.md §2.1 and §2.3: 429 costs nothing and carries Retry-After in seconds."""
    client = simulate(limits={"killmail": "4/2s"})
    reference = _reference(client)
    for _ in range(2):
        assert client.killmail(reference).status_code == 200

    refused = client.killmail(reference)

    assert refused.status_code == 429
    assert refused.headers["X-Ratelimit-Used"] == "0"
    assert refused.headers["X-Ratelimit-Remaining"] == "0"
    assert 1 <= int(refused.headers["Retry-After"]) <= 2
    time.sleep(int(refused.headers["Retry-After"]))
    assert client.killmail(reference).status_code == 200


def test_what_is_spent_never_exceeds_the_limit(simulate):
    """esi/README.md §2.1. An answer whose cost no longer fits is refused, so five tokens never hold three answers."""
    client = simulate(limits={"killmail": "5/1h"})
    reference = _reference(client)

    statuses = [client.killmail(reference).status_code for _ in range(4)]

    assert statuses == [200, 200, 429, 429]
    assert client.control("GET", "stats")["tokens_spent"]["killmail 127.0.0.1"] == 4


def test_the_detail_bucket_is_of_the_address_and_wars_share_it(simulate):
    """esi/README.md §2.2: one per source IP whatever the pilot; §1: shared with /wars."""
    client = simulate(pilots=1, killmail_count=50, limits={"killmail": "4/1h"})
    truth = next(iter(client.truth().values()))
    bodies = [client.control("GET", f"killmails/{one}") for one, _ in truth]
    war_id = next(body["war_id"] for body in bodies if "war_id" in body)

    war = client.get(f"/wars/{war_id}/killmails")

    assert war.headers["X-Ratelimit-Group"] == "killmail"
    assert client.killmail(war.json()[0] and list(war.json()[0].values())).status_code == 200
    assert client.killmail(truth[0]).status_code == 429


def test_a_token_on_the_detail_route_means_the_applications_bucket(simulate):
    """esi/README.md §2.2: `<sourceIP>:<applicationID>` if a token is sent."""
    client = simulate(limits={"killmail": "2/1h"})
    one, other = client.truth()
    tokens = [client.access(one), client.access(other)]
    reference = _reference(client)
    assert client.killmail(reference).status_code == 200

    with_tokens = [client.killmail(reference, token).status_code for token in tokens]

    assert with_tokens == [200, 429]


def test_server_errors_cost_nothing(simulate):
    """esi/README.md §2.1: 5xx 0."""
    client = simulate()
    client.control("POST", "faults", {"route": "killmail", "kind": "status:502", "count": 1})

    answer = client.killmail(_reference(client))

    assert (answer.status_code, answer.headers["X-Ratelimit-Used"]) == (502, "0")
    assert answer.headers["X-Ratelimit-Remaining"] == "3600"


def test_too_many_errors_close_every_route_until_the_window_ends(simulate):
    """esi/README.md §2.5: 420 on all routes, bucketed ones too."""
    client = simulate(error_limit="3/2s")
    reference = _reference(client)

    answers = [client.names([1]) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert [answer.headers["X-ESI-Error-Limit-Remain"] for answer in answers] == ["2", "1", "0"]
    closed = [client.names([30000142]), client.killmail(reference), client.get("/status")]
    assert [answer.status_code for answer in closed] == [420] * 3
    assert closed[0].json()["error"].startswith("This software has exceeded the error limit for ESI.")
    time.sleep(int(closed[1].headers["X-ESI-Error-Limit-Reset"]))
    assert client.killmail(reference).status_code == 200


def test_a_hundred_errors_a_minute_are_allowed(simulate):
    """esi/README.md §2.5."""
    client = simulate()
    statuses = [client.names([1]).status_code for _ in range(101)]
    assert statuses == [404] * 100 + [420]


def test_error_limit_headers_and_bucket_headers_exclude_each_other(simulate):
    """esi/README.md §2.5."""
    headers = simulate().names([30000142]).headers
    assert headers["X-ESI-Error-Limit-Remain"] == "100"
    assert 1 <= int(headers["X-ESI-Error-Limit-Reset"]) <= 60
    assert not any(name.lower().startswith("x-ratelimit") for name in headers)


def test_errors_of_a_caller_count_on_routes_with_a_bucket_too(simulate):
    """esi/README.md §2.5: whether they do is not known; treat as yes."""
    client = simulate(error_limit="3/1h")
    assert [client.killmail([1, "x"]).status_code for _ in range(4)] == [422] * 3 + [420]


def test_errors_of_the_server_do_not_count_on_routes_with_a_bucket(simulate):
    """esi/README.md §2.1 and §2.5."""
    client = simulate(error_limit="1/1h")
    client.control("POST", "faults", {"route": "killmail", "kind": "status:502", "count": 3})
    statuses = [client.killmail(_reference(client)).status_code for _ in range(4)]
    assert statuses == [502] * 3 + [200]
