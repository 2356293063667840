"""GET /killmails/{killmail_id}/{killmail_hash}, and what all ESI routes share."""

from datetime import UTC, datetime, timedelta

import pytest

from simulator.esi_gate import date_complaint
from simulator.wire import Request


def test_the_right_hash_opens_the_killmail_without_a_token(simulate):
    """esi/README.md §1: no auth; the hash is not in the body."""
    client = simulate()
    reference = next(iter(client.truth().values()))[0]

    answer = client.killmail(reference)

    assert answer.status_code == 200
    assert answer.json() | {"killmail_hash": reference[1]} == client.control("GET", f"killmails/{reference[0]}")
    assert "killmail_hash" not in answer.json()
    assert answer.headers["Cache-Control"] == "public, max-age=2592000"


@pytest.mark.parametrize("wrong", ["0" * 40, "x"])
def test_a_wrong_pair_is_422(simulate, wrong):
    """esi/README.md §5: 422 for a wrong pair, and for an id nobody knows."""
    client = simulate()
    one, other, *_ = next(iter(client.truth().values()))
    error = {"error": "Invalid killmail_id and/or killmail_hash"}

    for reference in ([one[0], wrong], [one[0], other[1]], [5, one[1]]):
        answer = client.killmail(reference)
        assert (answer.status_code, answer.json()) == (422, error)


def test_a_known_etag_is_304(simulate):
    """esi/README.md §3."""
    client = simulate()
    reference = next(iter(client.truth().values()))[0]
    etag = client.killmail(reference).headers["ETag"]

    assert client.killmail(reference, If_None_Match=f'"other", W/{etag}').status_code == 304
    assert client.killmail(reference, If_None_Match='"other"').status_code == 200


def test_long_bodies_are_compressed_for_those_who_ask(simulate):
    client = simulate(killmail_count=70, pilots=1)
    references = next(iter(client.truth().values()))
    longest = max(references, key=lambda one: len(client.killmail(one).content))

    packed = client.killmail(longest, Accept_Encoding="gzip")
    plain = client.killmail(longest, Accept_Encoding="identity")

    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert len(plain.json()["attackers"]) == 1000


def test_the_compatibility_date_is_echoed(simulate):
    """esi/README.md §3: the response echoes the effective date, yours or earlier."""
    client = simulate()
    asked = {"2026-08-18": "2026-08-18", "2025-12-16": "2025-12-16", "2026-09-01": "2026-08-18"}

    for date, effective in asked.items():
        assert client.get("/status", X_Compatibility_Date=date).headers["X-Compatibility-Date"] == effective
    assert client.get("/status").headers["X-Compatibility-Date"] == "2020-01-01"


@pytest.mark.parametrize(("at", "refused"), [("10:59:59", True), ("11:00:00", False)])
def test_a_days_date_is_good_from_eleven_on(at, refused):
    """esi/README.md §3: X-Compatibility-Date rolls at 11:00 UTC."""
    seconds = datetime.fromisoformat(f"2026-08-01T{at}+00:00").timestamp()
    request = Request("GET", "/status", {}, {"x-compatibility-date": "2026-08-01"}, b"", seconds, "127.0.0.1")

    assert (date_complaint(request) == "X-Compatibility-Date is in the future") is refused


def test_a_date_in_the_future_is_refused(simulate):
    """esi/README.md §3: not in the future, min threshold."""
    client = simulate()
    tomorrow = (datetime.now(UTC) + timedelta(days=1, hours=1)).date().isoformat()

    for date in (tomorrow, "2019-12-31", "today"):
        assert client.get("/status", X_Compatibility_Date=date).status_code == 400


@pytest.mark.parametrize("path", ["/", "/nothing", "/killmails/1", "/characters/x/killmails/recent"])
def test_an_unknown_route_is_404_in_json(simulate, path):
    answer = simulate().get(path)
    assert (answer.status_code, answer.json()) == (404, {"error": "Not found"})


def test_a_known_route_refuses_other_methods(simulate):
    client = simulate()
    assert client.get("/universe/names").status_code == 405
