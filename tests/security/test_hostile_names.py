"""Names that try to break pages: markup, right-to-left, emoji, spreadsheets' formulas, five hundred characters.

The simulator's --hostile-names give them to pilots, victims and attackers; the system runs as it does for everybody,
and its pages are read as a browser would read them: names have to come out as text, and as the same text.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from simulator.names import HOSTILE_NAMES
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import wait_until

PILOTS = len(HOSTILE_NAMES)
SIMULATOR = (
    "--pilots", str(PILOTS), "--killmails-count", "120", "--hostile-names", "--attackers", "4", "--items", "4",
    "--cache-seconds", "0", "--limit", "char-killmail=1000/1m",
)  # fmt: skip

#: Elements that run, load or send something.
DANGEROUS = {"script", "iframe", "object", "embed", "base", "form", "style", "svg", "math", "meta", "link", "img"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.isolated: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "bdi" in self._open:
            self.isolated.append(data)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("names")
    with cluster(directory, f"sqlite:///{directory}/killmails.db", "", *SIMULATOR) as running:
        running.start_web()
        yield running


@pytest.fixture(scope="module")
def browsers(system: Cluster) -> list[Browser]:
    """Everybody is logged in and synced, and the names are known."""
    made = []
    for pilot, character in system.simulated.truth().items():
        browser = system.browser()
        answer = browser.log_in(pilot)
        if len(character["name"]) <= 200:  # the others have a test of their own
            assert answer.status_code == 200, character["name"]
            made.append(browser)
    system.wait_for_syncs()
    wait_until(lambda: system.scalar("SELECT COUNT(*) FROM names WHERE name IS NULL") == 0, "names are known", 60)
    return made


def crawl(browser: Browser) -> dict[str, requests.Response]:
    """Every page that links lead to, from the start, without leaving the site or following the same twice."""
    found: dict[str, requests.Response] = {}
    waiting = ["/", "/killmails", "/status"]
    while waiting and len(found) < 40:
        path = waiting.pop(0)
        if path in found or path.startswith(("/login", "/auth", "/static")):
            continue
        found[path] = browser.session.get(f"{browser.web_url}{path}", timeout=60)
        if "html" not in found[path].headers["Content-Type"]:
            continue
        for tag, attributes in Page(found[path].text).elements:
            target = urlsplit(urljoin(path, attributes.get("href", ""))) if tag == "a" else None
            if target is not None and not target.netloc and target.path.startswith("/"):
                waiting.append(target.path + (f"?{target.query}" if target.query else ""))
    return found


def test_every_pilot_can_log_in(system: Cluster, browsers: list[Browser]) -> None:
    assert system.scalar("SELECT COUNT(*) FROM users") == PILOTS


def test_names_add_nothing_to_any_page(system: Cluster, browsers: list[Browser]) -> None:
    seen = 0
    for browser in browsers:
        for path, response in crawl(browser).items():
            assert response.status_code in (200, 404), path
            if "html" not in response.headers["Content-Type"]:
                continue
            page = Page(response.text)
            seen += 1
            check_elements(path, page)
            text = "".join(page.text)
            assert "<script>alert('Katja')</script>" not in response.text, path
            assert "&lt;" not in text and "&amp;" not in text, f"{path}: escaped twice"
    assert seen >= 3 * len(browsers)


def check_elements(path: str, page: Page) -> None:
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), (path, tag, attributes)
        assert "style" not in attributes and "srcdoc" not in attributes, (path, tag, attributes)
        for name in ("src", "href", "action", "formaction", "poster", "data"):
            address = urlsplit(attributes.get(name, ""))
            assert address.scheme in ("", "http", "https"), (path, tag, attributes)
        if tag in ("script", "link", "form", "iframe"):
            address = urlsplit(attributes.get("src") or attributes.get("href") or attributes.get("action") or "")
            assert tag != "script" or attributes.get("src"), (path, attributes)
            assert address.netloc == "", (path, tag, attributes)
        if tag == "img":
            assert urlsplit(attributes.get("src", "")).netloc in ("", "images.evetech.net"), (path, attributes)
        assert tag not in DANGEROUS - {"script", "link", "form", "img", "meta", "svg", "style"}, (path, tag)
        assert tag != "meta" or "http-equiv" not in attributes, (path, attributes)


def test_names_come_out_as_they_are_and_keep_to_themselves(system: Cluster, browsers: list[Browser]) -> None:
    """In <bdi>, or what reads from right to left would turn round the text beside it."""
    for browser in browsers:
        name = browser.me()["characterName"]
        page = Page(browser.session.get(f"{browser.web_url}/", timeout=30).text)
        assert name in page.isolated, name


def test_the_api_gives_names_as_they_are(system: Cluster, browsers: list[Browser]) -> None:
    query = "{ killmails(first: 100) { nodes { victim { character { name } } attackers { character { name } } } } }"
    names: set[str] = set()
    for browser in browsers:
        answer = browser.session.post(f"{browser.web_url}/graphql", json={"query": query}, timeout=60)
        assert answer.headers["Content-Type"].startswith("application/json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        for node in answer.json()["data"]["killmails"]["nodes"]:
            parties: list[Any] = [node["victim"], *node["attackers"]]
            names.update(party["character"]["name"] for party in parties if party["character"])
    assert set(HOSTILE_NAMES) <= names


def test_no_cell_of_an_export_is_a_formula(system: Cluster, browsers: list[Browser]) -> None:
    """A spreadsheet runs what begins with = + - @, a tab or a return (OWASP: CSV injection)."""
    found = 0
    for browser in browsers:
        for path in exports(browser):
            answer = browser.session.get(f"{browser.web_url}{path}", timeout=60)
            assert answer.status_code == 200, path
            assert "attachment" in answer.headers.get("Content-Disposition", ""), path
            if "csv" not in answer.headers["Content-Type"]:
                continue
            found += 1
            for row in csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))):
                assert not [cell for cell in row if re.match(r"[=+@\t\r]|-(?![0-9.]+$)", cell)], (path, row)
    if not found:
        pytest.skip("there is no export to CSV")


def exports(browser: Browser) -> set[str]:
    """The addresses of downloads that the list of killmails offers."""
    listing = browser.session.get(f"{browser.web_url}/killmails", timeout=30)
    links = [attributes.get("href", "") for tag, attributes in Page(listing.text).elements if tag == "a"]
    return {link for link in links if re.search(r"csv|json|export", link)}


def test_no_name_writes_a_line_of_its_own_into_the_log(system: Cluster, browsers: list[Browser]) -> None:
    assert system.web is not None
    for line in system.web.output().splitlines():
        assert re.match(r"\d\d:\d\d:\d\d (INFO|WARNING) ", line), line
        assert "\u202e" not in line
