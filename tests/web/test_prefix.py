"""A site that shares its domain: served under the path that EVE_CALLBACK_URL has before /auth/callback."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator

import pytest
import websocket
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database
from werkzeug.serving import make_server

import events
from api import transport_ws
from api.callers import limiter
from app import create_app
from models import User
from settings import ROOT, Settings
from tests.web_app import FakeBackend, make_killmail

CALLBACK = "https://example.org/tools/eve/auth/callback"
ADDRESSES = re.compile(r'(?:href|src|action)="([^"]*)"')


@pytest.fixture
def under_prefix(sqlite_db: Database, make_settings: Callable[..., Settings], backend: FakeBackend) -> Iterator[Flask]:
    settings = make_settings(eve_callback_url=CALLBACK)
    events.configure(None)
    app = create_app(settings, backend.system(settings))
    limiter.reset()
    yield app
    app.extensions[transport_ws.EXTENSION].close_all()
    events.close()


@pytest.fixture
def browser(under_prefix: Flask) -> FlaskClient:
    return under_prefix.test_client()


def log_in(browser: FlaskClient, backend: FakeBackend) -> None:
    assert browser.get("/tools/eve/login", base_url="https://example.org").status_code == 302
    answer = {"code": "code-90000001", "state": backend.sso.begun[-1].state}
    finished = browser.get("/tools/eve/auth/callback", base_url="https://example.org", query_string=answer)
    assert (finished.status_code, finished.location) == (302, "/tools/eve/")
    assert "Path=/tools/eve;" in finished.headers["Set-Cookie"]


def test_every_link_of_every_page_stays_under_the_prefix(browser: FlaskClient, backend: FakeBackend) -> None:
    def addresses(path: str) -> set[str]:
        response = browser.get(f"/tools/eve{path}", base_url="https://example.org")
        assert response.status_code == 200, path
        return {each for each in ADDRESSES.findall(response.text) if each and not each.startswith(("https:", "#"))}

    found = addresses("/") | addresses("/status")
    assert "/tools/eve/login" in found
    log_in(browser, backend)
    make_killmail(1, User.get())
    for path in ("/", "/killmails", "/pictures", "/status", "/unlink"):
        found |= addresses(path)
    assert "/tools/eve/killmails" in found
    outside = {each for each in found if each.startswith("/") and not each.startswith("/tools/eve/")}
    assert not outside
    statics = {each.partition("?")[0] for each in found if "/static/" in each}
    assert len(statics) >= 3
    for each in statics:
        with browser.get(each) as response:
            assert response.status_code == 200, each


def test_forms_work(browser: FlaskClient, backend: FakeBackend) -> None:
    log_in(browser, backend)
    page = browser.get("/tools/eve/", base_url="https://example.org").text
    token = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert token is not None
    out = browser.post("/tools/eve/logout", base_url="https://example.org", data={"csrf_token": token[1]})
    assert (out.status_code, out.location) == (302, "/tools/eve/")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tools/eve", 308),  # to /tools/eve/
        ("/tools/eve/healthz", 200),
        ("/healthz", 200),  # asked at the port itself, or by a proxy that strips the prefix
        ("/tools/evening", 404),
        ("/tools/eve/tools/eve/healthz", 404),
    ],
)
def test_what_is_asked_for_at_the_port_itself_is_answered_too(browser: FlaskClient, path: str, status: int) -> None:
    assert browser.get(path).status_code == status


def test_errors_of_the_api_are_json(browser: FlaskClient) -> None:
    assert browser.post("/tools/eve/graphql", data="nonsense").is_json


def test_the_socket_is_there(under_prefix: Flask) -> None:
    server = make_server("127.0.0.1", 0, under_prefix, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        socket = websocket.create_connection(
            f"ws://127.0.0.1:{server.port}/tools/eve/graphql",
            subprotocols=["graphql-transport-ws"],
            origin="https://example.org",
            timeout=10,
        )
        socket.send('{"type": "connection_init"}')
        assert socket.recv() == '{"type": "connection_ack"}'
        socket.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_no_script_names_a_path_from_the_domains_root() -> None:
    """Scripts find the site beside their own address: `place.js`."""
    for script in (ROOT / "web" / "static").glob("*.js"):
        code = re.sub(r"^\s*//.*", "", script.read_text(), flags=re.MULTILINE)
        assert not re.findall(r"""["'`]/\w|\$\{location\.host\}/""", code), script.name
