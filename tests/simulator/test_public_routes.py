"""POST /universe/names, GET /characters/{id}, /status and /markets/prices, and the OpenAPI document."""

import json
from typing import Any

import jsonschema
import pytest

from tests.simulator.conftest import DOCUMENTS


def test_names_resolve_in_a_batch(simulate):
    """esi/README.md §1: id, name and category."""
    client = simulate()
    pilot = next(iter(client.truth()))

    answer = client.names([pilot, 30000142, 670, 98370861, 1354830081, 500001])

    assert answer.status_code == 200
    rows = {row["id"]: (row["category"], row["name"]) for row in answer.json()}
    assert rows[30000142] == ("solar_system", "Jita")
    assert rows[670] == ("inventory_type", "Capsule")
    assert rows[98370861] == ("corporation", "KarmaFleet")
    assert rows[pilot][0] == "character"
    assert len(rows) == 6


def test_one_unknown_id_refuses_the_whole_batch(simulate):
    """esi/README.md §5: 404 for the whole batch."""
    answer = simulate().names([30000142, 12345])
    assert (answer.status_code, answer.json()) == (404, {"error": "Ensure all IDs are valid before resolving."})


@pytest.mark.parametrize("body", [[], {}, None, "x", [670, 670], ["670"], [1.5], [True], [2**70], list(range(1, 1002))])
def test_a_bad_batch_is_400(simulate, body):
    """esi/README.md §1: 1-1000 ids, unique."""
    assert simulate().names(body).status_code == 400


def test_a_body_that_is_no_json_is_400(simulate):
    client = simulate()
    assert client.session.post(f"{client.url}/universe/names", data=b"{[", timeout=5).status_code == 400


def test_a_character_has_a_public_sheet(simulate):
    client = simulate()
    pilot = next(iter(client.truth()))

    sheet = client.get(f"/characters/{pilot}")

    assert sheet.json()["name"] == client.names([pilot]).json()[0]["name"]
    assert sheet.headers["Cache-Control"] == "public, max-age=86400"
    assert client.get("/characters/12").status_code == 404


def test_status_has_its_own_bucket(simulate):
    """esi/README.md §1: status 600/15m, cached for 30 s."""
    answer = simulate(players=17).get("/status")
    assert (answer.json()["players"], answer.json()["vip"]) == (17, False)
    assert answer.headers["X-Ratelimit-Limit"] == "600/15m"
    assert answer.headers["Cache-Control"] == "public, max-age=30"


def test_prices_are_the_same_every_time(simulate):
    first, second = simulate().get("/markets/prices").json(), simulate().get("/markets/prices").json()
    assert first == second
    assert {"type_id", "adjusted_price"} <= first[0].keys()


def _schema(document: Any, path: str, method: str = "get", status: str = "200") -> Any:
    content = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    return content | {"components": document["components"]}


def test_every_answer_is_what_the_openapi_document_says(simulate):
    """esi/README.md §1: the OpenAPI document of 2026-08-18 is the contract."""
    document = json.loads((DOCUMENTS / "openapi-2026-08-18-killmails.json").read_text())
    client = simulate(killmail_count=100, page_size=1000)
    pilot = next(iter(client.truth()))
    check = jsonschema.validate

    recent = client.recent(pilot, client.access(pilot)).json()
    check(recent, _schema(document, "/characters/{character_id}/killmails/recent"))
    for references in client.truth().values():
        for reference in references:
            body = client.killmail(reference).json()
            check(body, _schema(document, "/killmails/{killmail_id}/{killmail_hash}"))
    check(client.names([670, pilot]).json(), _schema(document, "/universe/names", "post"))
    check(client.get(f"/characters/{pilot}").json(), _schema(document, "/characters/{character_id}"))
    check(client.get("/status").json(), _schema(document, "/status"))
    check(client.get("/markets/prices").json(), _schema(document, "/markets/prices"))
    error = _schema(document, "/status", status="default")
    for wrong in (client.killmail([1, "x"]), client.names([1]), client.recent(pilot, None), client.get("/no")):
        check(wrong.json(), error)
