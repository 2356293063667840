"""A rush of pages and sockets on a PostgreSQL that allows few connections: all are answered, and workers get theirs."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
import requests

from database import WEB_CONNECTIONS
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import BIN
from tests.postgres import administer

#: Connections that the system's role may hold: fewer than pages are loaded at once.
ALLOWED = 40
AT_ONCE = 150
HANDSHAKE = (
    "GET /graphql HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\nCookie: {cookie}\r\n\r\n"
)


@contextmanager
def limited_role(database_url: str) -> Iterator[str]:
    """The same database as a role of its own, which may hold ALLOWED connections and do nothing but read and write."""
    parts = urlsplit(database_url)
    role, password = f"killmails_few_{secrets.token_hex(6)}", secrets.token_hex(12)
    administer(f"CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT {ALLOWED}")
    try:
        with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
            cursor.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
        address = f"{role}:{password}@{parts.hostname}:{parts.port or 5432}"
        yield urlunsplit(parts._replace(netloc=address))
    finally:
        with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (role,))
            cursor.execute(f"DROP OWNED BY {role}")
        administer(f"DROP ROLE {role}")


def load_page(web_url: str, cookie: str) -> int:
    return requests.get(web_url, headers={"Cookie": cookie}, timeout=60).status_code


def open_socket(web_url: str, cookie: str, opened: ExitStack) -> int:
    """The status of a WebSocket's handshake; the socket stays open until `opened` ends."""
    parts = urlsplit(web_url)
    made = opened.enter_context(socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60))
    made.sendall(HANDSHAKE.format(host=parts.netloc, cookie=cookie).encode())
    return int(made.recv(64).split()[1])


@pytest.mark.services
def test_a_rush_is_answered_and_leaves_connections_for_the_workers(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, "--pilots", "1", "--killmails-count", "5") as system, limited_role(url_of(system)) as url:
        system.processes.environment = {**system.processes.environment, "DATABASE_URL": url}
        web = system.processes.start("web", [str(BIN / "gunicorn"), "--config", "web/gunicorn.py", "app:create_app()"])
        web.wait_for_output("Listening at")
        system.web_url = f"http://127.0.0.1:{system.processes.environment['PORT']}"
        browser = system.browser()
        browser.log_in(sorted(system.simulated.truth())[0])
        cookie = "; ".join(f"{each.name}={each.value}" for each in browser.session.cookies)

        with ExitStack() as opened, ThreadPoolExecutor(AT_ONCE) as pool:
            pages = [pool.submit(load_page, system.web_url, cookie) for _ in range(AT_ONCE // 2)]
            sockets = [pool.submit(open_socket, system.web_url, cookie, opened) for _ in range(AT_ONCE // 2)]
            assert {each.result() for each in pages} == {200}
            assert {each.result() for each in sockets} == {101}

            held = "SELECT COUNT(*) FROM pg_stat_activity WHERE usename = ?"
            assert system.scalar(held, urlsplit(url).username) <= WEB_CONNECTIONS
            for _ in range(ALLOWED - WEB_CONNECTIONS):  # as many as workers would open
                opened.enter_context(closing(psycopg2.connect(url)))
            assert load_page(system.web_url, cookie) == 200  # the sockets that are open hold none


def url_of(system: Cluster) -> str:
    return system.processes.environment["DATABASE_URL"]
