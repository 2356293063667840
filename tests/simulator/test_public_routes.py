"""POST /universe/names, GET /characters/{id}, /universe/systems/{id}, /status, /markets/prices; the OpenAPI text."""

import json
from typing import Any

import jsonschema
import pytest

from simulator import esi_public
from simulator.world import World
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


def test_a_solar_system_tells_its_security_status(simulate):
    client = simulate()

    answer = client.get("/universe/systems/30000142")

    assert answer.json() | {"position": None} == {
        "constellation_id": answer.json()["constellation_id"],
        "name": "Jita",
        "position": None,
        "security_status": 0.945913,
        "star_id": answer.json()["star_id"],
        "system_id": 30000142,
    }
    assert answer.json()["position"].keys() == {"x", "y", "z"}
    assert answer.headers["Cache-Control"] == "public, max-age=86400"
    assert "X-Ratelimit-Group" not in answer.headers


@pytest.mark.parametrize("system_id", [31000001, 31001535, 31999999])
def test_wormholes_have_the_security_status_of_wormholes(system_id):
    assert _solar_system(World(), system_id)["security_status"] == -0.99


def test_a_system_of_no_catalog_has_the_same_status_in_every_world():
    ids = range(30009000, 30009200)
    first, second = ([_solar_system(World(seed), one)["security_status"] for one in ids] for seed in (1, 2))
    assert first == second
    assert all(-1.0 <= status <= 1.0 for status in first)
    assert len(set(first)) > 190


def _solar_system(world: World, system_id: int) -> dict[str, Any]:
    world.names[system_id] = ("solar_system", f"System {system_id}")
    body = esi_public.solar_system(world, system_id)
    assert body is not None
    return body


def test_what_is_no_solar_system_is_404_and_an_error(simulate):
    """esi/README.md §2.5: routes without a bucket count towards the error limit."""
    client = simulate()
    pilot = next(iter(client.truth()))

    for one in (670, pilot, 39999999):
        answer = client.get(f"/universe/systems/{one}")
        assert (answer.status_code, answer.json()) == (404, {"error": "Solar system not found!"})
    assert answer.headers["X-ESI-Error-Limit-Remain"] == "97"
    assert client.get("/universe/systems/Jita").status_code == 404


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
