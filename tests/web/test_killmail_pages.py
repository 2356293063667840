"""The list, its filters and its files, and one killmail: mine, all of it, and nobody else's."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient

import database
import prices
from api import killmails
from api.killmail_views import EVERYTHING
from killmails import parse_killmail
from ledger import storing
from models import User
from settings import ROOT
from tests.conftest import REAL_KILLMAILS
from tests.web_app import link, make_killmail, make_user, name, secure
from web import export
from web.killmails import LINES
from web.raw import esi_form

FIXTURES = sorted((ROOT / "tests" / "fixtures" / "killmails").glob("*.json"))
HOSTILE = "<script>alert(1)</script>\u202e\"'&"
PATHS = (
    "/killmails",
    "/killmails/1",
    "/killmails/1.json",
    "/killmails/export.csv",
    "/killmails/export.json",
    "/pictures",
)


@pytest.fixture
def viewer(sign_in: Callable[[User], None], client: FlaskClient) -> User:
    user = make_user()
    sign_in(user)
    return user


def shown(client: FlaskClient, path: str) -> list[int]:
    response = client.get(path)
    assert response.status_code == 200
    return [int(each) for each in re.findall(r'<li class="killmail" data-id="(\d+)"', response.text)]


def stored(body: dict[str, Any], viewer: User) -> int:
    """A killmail of ESI's in the viewer's list; its id."""
    killmail = parse_killmail(body)
    storing.store(killmail, str(body.get("killmail_hash") or f"{killmail.killmail_id:040x}"))
    link(viewer, killmail.killmail_id)
    return killmail.killmail_id


class TestFilters:
    @pytest.fixture(autouse=True)
    def _killmails(self, viewer: User) -> None:
        make_killmail(1, viewer, victim_id=None, solar_system_id=31_000_001)
        make_killmail(2, viewer, victim_id=viewer.character_id)
        make_killmail(3, viewer, attackers=3)
        make_killmail(4, viewer, is_npc=True)
        make_killmail(5, viewer, ship_type_id=670)
        database.execute("UPDATE killmails SET killmail_time = '2026-11-20 23:59:59' WHERE killmail_id = 5")
        for entity_id, text, category in ((670, "Capsule", "inventory_type"), (31_000_001, "J100001", "solar_system")):
            name(entity_id, text)
            database.execute("UPDATE names SET category = ? WHERE id = ?", (category, entity_id))

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("", [5, 4, 3, 2, 1]),
            ("side=loss", [2]),
            ("side=kill", [5, 4, 3, 1]),
            ("solo=1", [5, 4, 2, 1]),
            ("npc=1", [4]),
            ("npc=0", [5, 3, 2, 1]),
            ("solo=0", [3]),
            ("ship=670", [5]),
            ("ship=Whatever+(670)", [5]),
            ("ship=capsule", [5]),
            ("ship=+Capsule+", [5]),
            ("system=j100001", [1]),
            ("from=2026-11-20&to=2026-11-20", [5]),
            ("to=2026-11-19", [4, 3, 2, 1]),
            ("to=9999-12-31", [5, 4, 3, 2, 1]),
            ("side=kill&solo=1&npc=", [5, 4, 1]),
            ("unknown=x", [5, 4, 3, 2, 1]),
        ],
    )
    def test_what_the_address_asks_for(self, client: FlaskClient, query: str, expected: list[int]) -> None:
        assert shown(client, f"/killmails?{query}") == expected
        exported = client.get(f"/killmails/export.json?{query}").get_json()
        assert [each["killmail_id"] for each in exported] == expected
        rows = list(csv.DictReader(client.get(f"/killmails/export.csv?{query}").text.splitlines()))
        assert [int(row["killmail_id"]) for row in rows] == expected

    @pytest.mark.parametrize(
        "query",
        ["side=both", "ship=J100001", "ship=nothing", "ship=0", "system=-1", "from=yesterday", "to=2026-13-01",
         "from=2026-1-3", "to=٢٠٢٦-11-01",
         "ship=9223372036854775808", "system=%00", "ship=%F0%9F%9A%80", "from=2026-11-20T00:00"],
    )  # fmt: skip
    def test_what_is_not_understood_chooses_nothing_and_is_told(self, client: FlaskClient, query: str) -> None:
        response = client.get(f"/killmails?{query}")
        assert response.status_code == 200
        assert 'role="alert"' in response.text
        assert '<li class="killmail"' not in response.text
        assert client.get(f"/killmails/export.csv?{query}").status_code == 400
        assert client.get(f"/killmails/export.json?{query}").status_code == 400

    @pytest.mark.parametrize(
        ("asked", "shown_as", "expected"),
        [
            ("670", "Capsule", [5]),
            ("587", "587", [4, 3, 2, 1]),  # nobody knows its name yet
            ("cApsule", "Capsule", [5]),
            ("671", "Twin (671)", [6]),
            ("672", "Twin (672)", [7]),
            ("twin", "twin", [7, 6]),
            ("673", "670 (673)", [8]),
            ("674", f"{'x' * 100}… (674)", [9]),
        ],
    )
    def test_the_form_shows_names_and_leads_back_to_the_same(
        self, client: FlaskClient, viewer: User, asked: str, shown_as: str, expected: list[int]
    ) -> None:
        # Given two types of one name, one that is called like another's id, and one whose name is no name
        for number, text in enumerate(("Twin", "Twin", "670", "x" * 500)):
            make_killmail(6 + number, viewer, ship_type_id=671 + number)
            name(671 + number, text)
            database.execute("UPDATE names SET category = 'inventory_type' WHERE id = ?", (671 + number,))
        # When one is asked for, and the form that is shown is sent again as it is
        text = client.get("/killmails", query_string={"ship": asked}).text
        field = re.search(r'name="ship" value="([^"]*)"', text)
        assert field is not None
        # Then it is the same
        assert field[1] == shown_as
        assert shown(client, f"/killmails?{urlencode({'ship': asked})}") == expected
        assert shown(client, f"/killmails?{urlencode({'ship': field[1]})}") == expected

    def test_the_pictures_lead_to_what_they_counted(self, client: FlaskClient, viewer: User) -> None:
        # Given losses of two types of one name, and one of a type without a name
        for number in (671, 672, 673):
            make_killmail(number, viewer, victim_id=viewer.character_id, ship_type_id=number)
        for number in (671, 672):
            name(number, "Twin")
            database.execute("UPDATE names SET category = 'inventory_type' WHERE id = ?", (number,))
        # When the links under "Ships lost" are followed
        lost = client.get("/pictures").text.partition("Ships lost")[2].partition("Ships flown")[0]
        links = [html.unescape(link) for link in re.findall(r'<a href="([^"]+)"', lost)]
        # Then each leads to the losses of that type, and no other
        assert sorted(shown(client, link) for link in links) == [[2], [671], [672], [673]]

    def test_what_was_typed_stays_text(self, client: FlaskClient) -> None:
        text = client.get("/killmails", query_string={"ship": HOSTILE}).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_pages_cover_everything_once_there_and_back(
    client: FlaskClient, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from web import killmails as pages

    monkeypatch.setattr(pages, "PAGE", 3)
    for killmail_id in range(1, 9):
        make_killmail(killmail_id, viewer)

    def follow(text: str, rel: str) -> str:
        match = re.search(rf'<a rel="{rel}" href="([^"]+)"', text)
        return match[1].replace("&amp;", "&") if match else ""

    there, back, path = [], [], "/killmails?side=kill"
    while path:
        there.append(shown(client, path))
        last, path = path, follow(client.get(path).text, "next")
    assert there == [[8, 7, 6], [5, 4, 3], [2, 1]]
    while last:
        back.append(shown(client, last))
        last = follow(client.get(last).text, "prev")
    assert back == there[::-1]


@pytest.mark.parametrize("query", ["before=x", "newer=x", "before=", "newer=c3luYzox", "before=a2lsbG1haWw6MA"])
def test_a_made_up_page_is_refused(client: FlaskClient, viewer: User, query: str) -> None:
    assert client.get(f"/killmails?{query}").status_code == 400


@pytest.mark.parametrize("path", PATHS)
def test_signed_out_nothing_is_there(client: FlaskClient, path: str) -> None:
    make_killmail(1, make_user())
    response = client.get(path)
    assert (response.status_code, response.headers["Location"]) == (302, "/")


def test_others_killmails_are_as_little_there_as_none(client: FlaskClient, viewer: User) -> None:
    # Given a killmail in another's list, with the viewer among the attackers
    viewer.character_id = 96_000_001
    viewer.save()
    make_killmail(1, make_user(96_000_000), attackers=2)
    # Then its page is that of one that does not exist
    for suffix in ("", ".json"):
        theirs, none = client.get(f"/killmails/1{suffix}"), client.get(f"/killmails/77{suffix}")
        assert (theirs.status_code, theirs.text) == (none.status_code, none.text) == (404, none.text)
    assert shown(client, "/killmails") == []
    assert client.get("/killmails/export.json").get_json() == []
    assert len(client.get("/killmails/export.csv").text.splitlines()) == 1


@pytest.mark.parametrize(
    "path", ["/killmails/0", "/killmails/9223372036854775808", "/killmails/-1", "/killmails/x.json"]
)
def test_impossible_ids(client: FlaskClient, viewer: User, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/killmails", "/killmails/1000", "/"])
def test_a_security_status_that_is_not_known_has_a_place_to_be_filled_in(
    client: FlaskClient, viewer: User, path: str
) -> None:
    make_killmail(1000, viewer, solar_system_id=30_000_142)
    place = '<span class="security" data-security-of="30000142"></span>'
    assert client.get(path).text.count(place) == 1
    secure(30_000_142, 0.945913)
    text = client.get(path).text
    assert "data-security-of" not in text
    assert '<span class="security high"><span class="visually-hidden">security </span>0.9</span>' in text


def test_one_killmail_shows_all_its_parts(client: FlaskClient, viewer: User) -> None:
    make_killmail(1000, viewer, victim_id=viewer.character_id, attackers=3, solar_system_id=31_000_001)
    secure(31_000_001, -0.99)
    name(587, "Rifter")
    name(96_000_002, HOSTILE)
    text = client.get("/killmails/1000").text
    assert "<bdi>Rifter</bdi>" in text
    assert f"<bdi>{viewer.character_name}</bdi>" in text, "one's own name is known at once"
    assert text.count("<bdi>&lt;script&gt;alert(1)&lt;/script&gt;") == 2  # final blow, and in the list
    assert 'data-name-of="96000000"' in text
    assert '<span class="security null"><span class="visually-hidden">security </span>-1.0</span>' in text
    assert "4,000,000,000" in text
    assert "Cargo" in text
    assert "5,000,000,000" in text
    assert text.count("Final blow</span>") == 1
    assert "Market prices are being fetched" in text
    assert prices.wanted(), "a look has them fetched"


def _containers(count: int, types: int) -> list[dict[str, Any]]:
    """So many containers with something of so many types in each, as ESI has them."""
    inside = [{"item_type_id": 1000 + n, "flag": 5, "singleton": 0, "quantity_destroyed": 1} for n in range(types)]
    return [
        {"item_type_id": 17363, "flag": 5, "singleton": 0, "quantity_destroyed": 1, "items": inside}
        for _ in range(count)
    ]


def _massacre(containers: int, types: int, attackers: int) -> dict[str, Any]:
    """A full freighter lost to a fleet."""
    body: dict[str, Any] = json.loads((ROOT / "tests" / "fixtures" / "killmails" / "nested_items.json").read_text())
    body["victim"]["items"] = _containers(containers, types)
    attacker = {"corporation_id": 98_000_001, "damage_done": 1_000_000, "security_status": 0.0, "weapon_type_id": 2048}
    body["attackers"] = [
        {**attacker, "character_id": 96_000_000 + n, "ship_type_id": 20_000 + n, "final_blow": n == 0}
        for n in range(attackers)
    ]
    return body


@pytest.mark.parametrize(("containers", "types"), [(6, 150), (100, 5), (500, 1), (1, 5000)])
def test_what_is_too_much_for_a_page_goes_on_on_the_next(
    client: FlaskClient, viewer: User, containers: int, types: int
) -> None:
    # Given a full freighter lost to a fleet
    killmail_id = stored(_massacre(containers, types, attackers=60), viewer)
    database.execute("UPDATE names SET name = 'Thing'")
    # When its page is opened, and the next, and the next
    path, pages = f"/killmails/{killmail_id}?attackers=2", []
    while path:
        pages.append(client.get(path).text.partition('id="items"')[2].partition("</section>")[0])
        following = re.search(r'<a rel="next" href="([^"]+)"', pages[-1])
        path = html.unescape(following[1]) if following else ""
        assert len(pages) <= 100
    # Then they hold everything, a hundred lines each, and leave the attackers where they are
    found = [len(re.findall(r"<tr(?: class=.inside.)?><td>", page)) for page in pages]
    assert sum(found) == containers * (1 + types)
    assert set(found[:-1]) == {LINES}
    assert all("attackers=2" in page for page in pages)
    # And what goes on within a container says in which
    assert ("Cargo, continued: in <bdi>Thing</bdi>" in pages[1]) == (LINES % (1 + types) != 0)


@pytest.mark.parametrize("number", ["0", "-1", "999", "x", "9" * 30])
def test_a_page_of_items_that_is_not_there_is_the_nearest(client: FlaskClient, viewer: User, number: str) -> None:
    killmail_id = stored(_massacre(30, 4, attackers=60), viewer)
    text = client.get(f"/killmails/{killmail_id}?items={number}&attackers={number}").text
    here, other = (2, 1) if number[0] == "9" else (1, 2)
    assert text.count(f"Page {here} of 2") == 2
    # And each leads on without leaving the other's page
    links = [html.unescape(link) for link in re.findall(r'href="[^"]*[?]([^"]*attackers=[^"]+)"', text)]
    assert links == [f"attackers={here}&items={other}#items", f"attackers={other}&items={here}#attackers"]


def weight(client: FlaskClient, path: str) -> int:
    """Bytes of a page with its style and its scripts, and what they import."""
    found, waiting, total = {path}, [path], 0
    while waiting:
        with client.get(waiting.pop()) as answer:
            assert answer.status_code == 200
            total += len(answer.data)
            text = answer.get_data(as_text=True)
        parts = set(re.findall(r'(?:rel="stylesheet" href|<script type="module" src)="([^"]+)"', text))
        parts |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', text)}
        waiting += parts - found
        found |= parts
    assert {"/static/style.css", "/static/live.js"} <= found
    return total


@pytest.mark.parametrize("text", ["<b onclick=", "'\"&<>", "💥", "O"], ids=["markup", "escapes", "emoji", "letters"])
def test_no_page_is_heavy_whatever_things_are_called(client: FlaskClient, viewer: User, text: str) -> None:
    # Given a massacre, and a list of kills by the viewer, where nothing is called by less than five hundred characters
    massacre = stored(_massacre(100, 5, attackers=3000), viewer)
    for number in range(60):
        kill = _massacre(0, 0, attackers=2)
        kill |= {"killmail_id": number + 1, "solar_system_id": 30_000_001 + number}
        kill["victim"]["ship_type_id"] = 500 + number
        kill["attackers"][0] |= {"character_id": viewer.character_id, "ship_type_id": 600 + number}
        stored(kill, viewer)
    database.execute("UPDATE names SET name = ?", ((text * 500)[:500],))
    User.update(character_name=(text * 500)[:500]).execute()
    # Then every page of them is small
    for path in (f"/killmails/{massacre}", "/killmails", "/", "/pictures"):
        assert weight(client, path) < 100 * 1024, path


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_kind_of_killmail_has_a_page_and_comes_back_as_it_was(
    client: FlaskClient, viewer: User, path: Path
) -> None:
    body = json.loads(path.read_text())
    killmail_id = stored(body, viewer)
    assert client.get(f"/killmails/{killmail_id}").status_code == 200
    assert shown(client, "/killmails") == [killmail_id]
    raw = client.get(f"/killmails/{killmail_id}.json")
    assert raw.headers["Content-Disposition"] == f'attachment; filename="killmail-{killmail_id}.json"'
    assert parse_killmail(raw.get_json()) == parse_killmail(body)
    assert client.get("/killmails/export.json").get_json() == [raw.get_json()]


@pytest.mark.real_killmails
def test_real_killmails_come_back_as_they_were(client: FlaskClient, viewer: User) -> None:
    bodies = [json.loads(path.read_text()) for path in REAL_KILLMAILS.glob("*.json")]
    ids = [stored(body, viewer) for body in bodies]
    for body, view in zip(bodies, killmails.load(ids, EVERYTHING), strict=True):
        form = esi_form(view)
        assert parse_killmail(form) == parse_killmail(body)
        assert form["killmail_hash"] == body["killmail_hash"]
    largest = max(bodies, key=lambda body: len(body["attackers"]))
    text = client.get(f"/killmails/{largest['killmail_id']}").text
    assert "3,753 attackers" in text
    assert len(text) < 100 * 1024


class TestExport:
    def test_pieces_make_a_whole(self, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(export, "ROWS_AT_ONCE", 2)
        monkeypatch.setattr(export, "WHOLE_AT_ONCE", 2)
        for killmail_id in range(1, 6):
            make_killmail(killmail_id, viewer)
        database.db.close()
        pieces = export.as_json(viewer, killmails.Filter())
        text = next(pieces)
        assert database.db.is_closed(), "a slow reader holds no connection"
        text += "".join(pieces)
        assert [each["killmail_id"] for each in json.loads(text)] == [5, 4, 3, 2, 1]
        rows = list(csv.DictReader("".join(export.as_csv(viewer, killmails.Filter())).splitlines()))
        assert [row["killmail_id"] for row in rows] == ["5", "4", "3", "2", "1"]

    def test_what_is_deleted_meanwhile_ends_it(self, viewer: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(export, "WHOLE_AT_ONCE", 2)
        for killmail_id in range(1, 6):
            make_killmail(killmail_id, viewer)
        pieces = export.as_json(viewer, killmails.Filter())
        text = next(pieces)
        database.execute("DELETE FROM user_killmails")
        assert len(json.loads(text + "".join(pieces))) == 2

    def test_nothing_is_an_empty_list(self, client: FlaskClient, viewer: User) -> None:
        assert client.get("/killmails/export.json").get_json() == []

    @pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x","y")'])
    def test_a_formula_is_no_formula(self, client: FlaskClient, viewer: User, text: str) -> None:
        make_killmail(1, viewer)
        name(587, text)
        (row,) = csv.DictReader(client.get("/killmails/export.csv").text.splitlines(keepends=True))
        assert row["ship"] == f"'{text}"

    @pytest.mark.parametrize("text", ["Rifter", "'Augoror'", "1DQ1-A", "a=b", "", 'ж, "ж"\nж'])
    def test_anything_else_is_as_it_was(self, text: str) -> None:
        assert export.cell(text) == text
        assert export.cell(-5) == -5

    def test_it_is_a_download_that_is_not_kept(self, client: FlaskClient, viewer: User) -> None:
        for kind, content_type in (("csv", "text/csv; charset=utf-8"), ("json", "application/json")):
            headers = client.get(f"/killmails/export.{kind}").headers
            assert headers["Content-Type"] == content_type
            assert headers["Content-Disposition"] == f'attachment; filename="killmails.{kind}"'
            assert headers["Cache-Control"] == "no-store"
        assert client.get("/killmails/export.xml").status_code == 404

    def test_a_flood_of_exports_is_refused(self, client: FlaskClient, viewer: User) -> None:
        assert {client.get("/killmails/export.csv").status_code for _ in range(20)} == {200}
        assert client.get("/killmails/export.csv").status_code == 429
