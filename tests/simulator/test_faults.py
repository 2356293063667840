"""Misbehaviour on request, down to the socket."""

import time
from typing import Any

import pytest
import requests

from simulator.faults import Fault
from tests.simulator.client import Client


@pytest.fixture
def client(simulate):
    return simulate()


def _reference(client: Client) -> list[Any]:
    return next(iter(client.truth().values()))[0]


def _break(client: Client, kind: str, **more: Any) -> None:
    client.control("POST", "faults", {"route": "killmail", "kind": kind, "count": 1, **more})


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 502, 503, 504])
def test_any_error_status(client, status):
    _break(client, f"status:{status}")
    answers = [client.killmail(_reference(client)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, 200]
    assert "error" in answers[0].json()


def test_a_page_of_html(client):
    """esi/README.md §3: html bodies from the load balancer."""
    _break(client, "html")
    answer = client.killmail(_reference(client))
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/html; charset=utf-8")


def test_a_reset_connection(client):
    _break(client, "reset")
    with pytest.raises(requests.ConnectionError, match="reset"):
        client.killmail(_reference(client))
    assert client.killmail(_reference(client)).status_code == 200


def test_a_connection_that_hangs_and_closes(client):
    _break(client, "hang", seconds=0.3)
    before = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        client.killmail(_reference(client))
    assert time.monotonic() - before >= 0.29


def test_a_body_cut_in_the_middle(client):
    """First with a Content-Length that gives it away, then without one."""
    _break(client, "truncated", count=2)
    reference = _reference(client)

    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        client.killmail(reference, Accept_Encoding="identity")
    second = client.killmail(reference, Accept_Encoding="identity")

    assert second.status_code == 200
    assert "Content-Length" not in second.headers
    with pytest.raises(requests.JSONDecodeError):
        second.json()
    assert client.killmail(reference).json()


def test_json_that_is_none(client):
    _break(client, "invalid_json")
    answer = client.killmail(_reference(client))
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_a_404_of_maintenance(client):
    """esi/README.md §3: 404 {"error":"Not found"} during maintenance."""
    _break(client, "not_found")
    answer = client.killmail(_reference(client))
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


def test_429_with_and_without_headers(client):
    """esi/README.md §2.3 and §2.4: the game server's own limiter sends no headers."""
    _break(client, "429", seconds=7)
    told = client.killmail(_reference(client))
    _break(client, "429_bare")
    bare = client.killmail(_reference(client))

    assert (told.status_code, told.headers["Retry-After"], told.headers["X-Ratelimit-Remaining"]) == (429, "7", "0")
    assert bare.status_code == 429
    assert not [name for name in bare.headers if name.lower().startswith(("x-ratelimit", "retry", "x-esi"))]


def test_420_out_of_the_blue(client):
    """esi/README.md §2.5: the error limit's headers instead of the bucket's."""
    _break(client, "420", seconds=9)
    answer = client.killmail(_reference(client))
    assert (answer.status_code, answer.headers["X-ESI-Error-Limit-Reset"]) == (420, "9")
    assert answer.headers["X-ESI-Error-Limit-Remain"] == "0"
    assert "X-Ratelimit-Group" not in answer.headers


def test_a_fault_strikes_only_what_it_is_meant_for(client):
    one, other = next(iter(client.truth().values()))[:2]
    _break(client, "status:500", killmail_id=other[0], count=None)

    assert client.killmail(one).status_code == 200
    assert client.killmail(other).status_code == 500
    assert client.get("/status").status_code == 200
    [fault] = client.control("GET", "faults")
    assert fault["hits"] == 1


def test_a_fault_on_one_page(simulate):
    client = simulate(page_size=3, pilots=1)
    pilot = next(iter(client.truth()))
    token = client.access(pilot)
    client.control("POST", "faults", {"route": "recent", "kind": "status:502", "page": 2})

    assert [client.recent(pilot, token, page).status_code for page in (1, 2, 3)] == [200, 502, 200]


def test_a_rate_strikes_some(client):
    client.control("POST", "faults", {"route": "status", "kind": "status:500", "rate": 0.5})
    statuses = [client.get("/status").status_code for _ in range(60)]
    assert 10 < statuses.count(500) < 50
    assert client.control("GET", "faults")[0]["hits"] == statuses.count(500)


def test_several_faults_and_any_route(client):
    _break(client, "status:500")
    client.control("POST", "faults", {"route": "any", "kind": "status:502", "count": 2})

    statuses = [client.killmail(_reference(client)).status_code for _ in range(3)]
    sso = client.get("/oauth/jwks").status_code

    assert (statuses, sso) == ([500, 502, 502], 200)


def test_cleared_faults_strike_no_more(client):
    _break(client, "status:500", count=9)
    client.killmail(_reference(client))
    assert client.control("DELETE", "faults") == {"hits": 1}
    assert client.killmail(_reference(client)).status_code == 200


def test_a_lost_answer_of_the_token_endpoint_burns_nothing(simulate):
    client = simulate(rotate_refresh_tokens=True)
    token = client.login(next(iter(client.truth())))["refresh_token"]
    client.control("POST", "faults", {"route": "token", "kind": "reset", "count": 1})

    with pytest.raises(requests.ConnectionError):
        client.refresh(token)

    assert client.refresh(token).status_code == 200


def test_a_request_refused_by_the_bucket_does_not_use_up_a_fault(simulate):
    client = simulate(limits={"killmail": "1/1h"})
    _break(client, "status:404")

    assert client.killmail(_reference(client)).status_code == 429
    assert client.control("GET", "faults")[0] | {"hits": 0, "count": 1} == client.control("GET", "faults")[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"route": "killmail", "kind": "explode"},
        {"route": "nowhere", "kind": "reset"},
        {"route": "killmail", "kind": "status:200"},
        {"route": "killmail", "kind": "reset", "chance": 1},
        {"route": "killmail", "kind": "reset", "rate": "often"},
        {"route": "character", "kind": "malformed_entries"},
    ],
)
def test_a_fault_nobody_knows_is_refused(client, wrong):
    answer = client.session.post(f"{client.url}/_simulator/faults", json=wrong, timeout=5)
    assert answer.status_code == 400
    assert client.control("GET", "faults") == []


def test_the_command_lines_form():
    fault = Fault.of_text("route=killmail, kind=status:502,rate=0.05,killmail_id=7")
    assert (fault.route, fault.kind, fault.rate, fault.killmail_id) == ("killmail", "status:502", 0.05, 7)


def test_downtime_is_of_esi_only(client):
    """esi/README.md §3: 503 and 504 with their bodies; the control API stays."""
    token = client.login(next(iter(client.truth())))["refresh_token"]
    client.control("POST", "downtime", {"seconds": 60})

    answers = [client.get(path) for path in ("/status", "/markets/prices") * 10]

    assert {answer.status_code for answer in answers} == {503, 504}
    assert {answer.json()["error"] for answer in answers} == {
        "The datasource tranquility is temporarily unavailable",
        "Timeout contacting tranquility",
    }
    assert client.refresh(token).status_code == 200
    client.control("POST", "downtime", {"seconds": 0})
    assert client.get("/status").status_code == 200


def test_latency_delays_the_answer_not_the_arrival(client):
    client.control("POST", "settings", {"latency_ms": [150, 160]})
    before = time.time()
    client.get("/status")
    took = time.time() - before
    [entry] = [one for one in client.control("GET", "requests") if one["route"] == "status"]
    assert took >= 0.15
    assert entry["at"] - before < took - 0.1
