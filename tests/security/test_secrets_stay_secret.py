"""A whole sync on PostgreSQL and RabbitMQ with LOG_LEVEL=DEBUG and trouble on the way; then a search for the secrets.

Searched: every log line of every process, what lay in every queue (the dead letters, too), every event, every column
of every table, pages, GraphQL's answers and /metrics. Searched for: access and refresh tokens as the SSO issued them,
codes, the client secret, our keys and passwords, and, in what is not their viewers', killmail hashes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import pika
import pytest
from cryptography.fernet import Fernet
from dramatiq.common import dq_name, xq_name

import database
from actors import queues
from events_rabbitmq import EXCHANGE
from tests import postgres, rabbitmq
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import wait_until

pytestmark = pytest.mark.services

CLIENT_SECRET = "client-secret-5d0c9e7a41"
DATABASE_PASSWORD = "database-password-77ad3"
SIMULATOR = (
    "--pilots", "3", "--killmails-count", "90", "--shared", "0.3", "--client-secret", CLIENT_SECRET,
    "--page-size", "20", "--rotate-refresh-tokens",
    "--token-seconds", "65", "--cache-seconds", "0", "--latency-ms", "5-20",
    "--limit", "char-killmail=1000/1m", "--limit", "killmail=10000/1m",
)  # fmt: skip
HASH_COLUMNS = {("killmails", "killmail_hash"), ("ledger", "killmail_hash")}


@dataclass
class Evidence:
    """What was collected: where it was found, and the text."""

    secrets: dict[str, str] = field(default_factory=dict)
    hashes: set[str] = field(default_factory=set)
    texts: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[tuple[str, str]] = field(default_factory=list)

    def keep(self, where: str, text: str) -> None:
        self.texts.append((where, text))

    def found(self, texts: list[tuple[str, str]], needles: dict[str, str]) -> set[tuple[str, str, str]]:
        hits = set()
        for where, text in texts:
            for what, needle in needles.items():
                for form in {needle, quote(needle), base64.b64encode(needle.encode()).decode().rstrip("=")}:
                    if form in text:
                        at = text.index(form)
                        hits.add((what, where, text[max(0, at - 120) : at].rpartition("\n")[2] + "[…]"))
        return hits


class Listener(threading.Thread):
    """Every event of the exchange, as it was sent."""

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(daemon=True)
        self._evidence = evidence
        self.stopping = threading.Event()
        self.listening = threading.Event()

    def run(self) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.address()))) as connection:
            channel = connection.channel()
            channel.exchange_declare(EXCHANGE, exchange_type="fanout", durable=False)
            name = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(name, EXCHANGE)
            self.listening.set()
            for _, _, body in channel.consume(name, auto_ack=True, inactivity_timeout=0.2):
                if body is not None:
                    self._evidence.bodies.append(("event", body.decode()))
                if self.stopping.is_set():
                    return


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory, both_services: None) -> Iterator[Evidence]:
    with role_with_password() as role, services(tmp_path_factory.mktemp("secrets"), *SIMULATOR) as system:
        change_environment(system, role)
        found = Evidence()
        listener = Listener(found)
        listener.start()
        listener.listening.wait(10)
        yield live_through_everything(system, found)
        listener.stopping.set()
        listener.join(5)


@contextlib.contextmanager
def role_with_password() -> Iterator[str]:
    """Somebody who may do in PostgreSQL what the tests' own user may, but whose password is known to this test."""
    role = f"killmails_test_{secrets.token_hex(6)}"
    postgres.administer(f"CREATE ROLE {role} LOGIN PASSWORD '{DATABASE_PASSWORD}'")
    postgres.administer(f'GRANT "{urlsplit(postgres.SERVER).username}" TO {role}')
    try:
        yield role
    finally:
        postgres.administer(f"DROP ROLE {role}")


def change_environment(system: Cluster, role: str) -> None:
    environment = dict(system.processes.environment)
    parts = urlsplit(environment["DATABASE_URL"])
    netloc = f"{role}:{DATABASE_PASSWORD}@{parts.hostname}:{parts.port or 5432}"
    environment["DATABASE_URL"] = urlunsplit(parts._replace(netloc=netloc))
    environment |= {"LOG_LEVEL": "DEBUG", "EVE_CLIENT_SECRET": CLIENT_SECRET}
    system.processes.environment = environment


def live_through_everything(system: Cluster, evidence: Evidence) -> Evidence:
    """Logins, syncs, refreshes, failures of ESI, SSO and PostgreSQL, refused logins, unlinking, a restart."""
    keys = system.processes.environment
    evidence.secrets |= {
        "client secret": CLIENT_SECRET, "database password": DATABASE_PASSWORD,
        "SECRET_KEY": keys["SECRET_KEY"], "TOKEN_KEYS": keys["TOKEN_KEYS"],
    }  # fmt: skip
    system.start_web()
    truth = system.simulated.truth()
    evidence.hashes = {killmail_hash for pilot in truth.values() for _, killmail_hash in pilot["killmails"]}
    browsers = [log_in(system, evidence, pilot) for pilot in truth]
    collect_tokens(system, evidence)
    peek(evidence)  # the syncs' messages: no worker is there yet

    for kind in ("status:500", "html", "reset", "truncated", "invalid_json", "not_found"):
        system.simulated.fault(route="killmail", kind=kind, count=2)
    system.simulated.fault(route="token", kind="status:500", count=1)  # whoever meets it waits for half a minute
    workers = system.start_workers(processes=1, threads=4)
    wait_until(lambda: system.scalar("SELECT COUNT(*) FROM killmails") >= 10, "a part is stored", 60, 0.02)
    workers.stop()
    peek(evidence)  # details' messages
    workers = system.start_workers(processes=1, threads=4)
    scheduler = system.start_scheduler()
    system.wait_for_syncs(240)
    expire_access_tokens(system)
    assert system.script("queue_users", "--force", "--full").returncode == 0
    wait_until(lambda: refreshed(system, evidence), "tokens are refreshed", 90)
    system.wait_for_syncs()
    break_the_database(system)
    for pilot, browser in zip(truth, browsers, strict=True):
        evidence.hashes |= fight(system, pilot)
        browser.sync_now(full=True)
        ask_for_everything(system, browser, evidence)
    assert system.script("queue_users", "--force", "--full").returncode == 0
    wait_until(lambda: "broken" in workers.output(), "a killmail cannot be stored", 60)
    refuse_some_logins(system, evidence)
    browsers[0].graphql("mutation { unlinkCharacter { message } }")
    collect_tokens(system, evidence)
    poison(evidence)
    time.sleep(1.0)  # what is said of the poison
    peek(evidence)
    dump(system, evidence)
    scheduler.stop()
    for process in system.processes.running:
        if process.name != "simulator":
            evidence.keep(f"log of {process.name}", process.output())
    for name in ("check_queue", "queue_users"):
        said = system.script(name)
        evidence.keep(f"scripts/{name}.py", said.stdout + said.stderr)
    return evidence


def log_in(system: Cluster, evidence: Evidence, pilot: int) -> Browser:
    browser = system.browser()
    last = browser.log_in(pilot)
    for number, response in enumerate([*last.history, last]):
        evidence.keep("a page of the login", response.text)
        code = parse_qs(urlsplit(response.url).query).get("code")
        if code:
            evidence.secrets[f"code of {pilot} ({number})"] = code[0]
    for cookie in browser.session.cookies:
        evidence.keep("cookie", f"{cookie.value} {decoded(str(cookie.value))}")
    return browser


def decoded(cookie: str) -> str:
    import zlib

    body = cookie.lstrip(".").split(".")[0]
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    return (zlib.decompress(raw) if cookie.startswith(".") else raw).decode(errors="replace")


def collect_tokens(system: Cluster, evidence: Evidence) -> None:
    """The tokens of this moment, in clear: the test has the key."""
    cipher = Fernet(system.processes.environment["TOKEN_KEYS"])
    for user, access, refresh in system.rows("SELECT id, access_token, refresh_token FROM users"):
        for kind, sealed in (("access token", access), ("refresh token", refresh)):
            if sealed:
                token = cipher.decrypt(sealed.encode()).decode()
                evidence.secrets[f"{kind} of user {user} ({token[-6:]})"] = token


def refreshed(system: Cluster, evidence: Evidence) -> bool:
    """Whether the SSO has refreshed a token; those of this moment are collected."""
    collect_tokens(system, evidence)
    asked = system.simulated.requests(route="token")
    return any(entry["grant_type"] == "refresh_token" and entry["status"] == 200 for entry in asked)


def expire_access_tokens(system: Cluster) -> None:
    system.rows("UPDATE users SET expires_at = now() - interval '1 hour' RETURNING id")


def break_the_database(system: Cluster) -> None:
    """Statements that fail with a row in the server's own words, inside the transaction that stores a killmail."""
    newest = system.scalar("SELECT MAX(killmail_id) FROM killmails")
    database.db.execute_sql(f"ALTER TABLE killmails ADD CONSTRAINT broken CHECK (killmail_id <= {newest})")


def fight(system: Cluster, pilot: int) -> set[str]:
    """New killmails; their hashes."""
    before = dict(system.simulated.truth()[pilot]["killmails"])
    system.simulated.post(f"characters/{pilot}/killmails", {"count": 2, "bust_cache": True})
    after = dict(system.simulated.truth()[pilot]["killmails"])
    return {killmail_hash for each, killmail_hash in after.items() if each not in before}


def ask_for_everything(system: Cluster, browser: Browser, evidence: Evidence) -> None:
    for path in (
        "/",
        "/killmails",
        "/status",
        "/unlink",
        "/metrics",
        "/readyz",
        "/healthz",
        "/nowhere",
        "/killmails/export.csv",
        "/killmails/export.json",
    ):
        evidence.keep(f"GET {path}", browser.session.get(f"{system.web_url}{path}", timeout=30).text)
    queries = (
        "{ me { id characterName scopes tokenState currentSync { error waitingFor } } workerStatus { queueName } }",
        "{ syncs(first: 50) { nodes { id state error waitingFor } } }",
        '{ killmail(id: "x") { id } }', "{ nonsense }", "mutation { login { url state } }",
    )  # fmt: skip
    for query in queries:
        evidence.keep(f"answer to {query[:30]}", json.dumps(browser.ask(query)))


def refuse_some_logins(system: Cluster, evidence: Evidence) -> None:
    system.simulated.post("sso_downtime", {"seconds": 1})
    pilot = min(system.simulated.truth())
    browser = system.browser()
    evidence.keep("a refused login", browser.session.get(f"{system.web_url}/login", timeout=30).text)
    login = f"{system.web_url}/login"
    wait_until(lambda: browser.session.get(login, allow_redirects=False).status_code == 302, "the SSO is back", 20)
    for kind in ("status:400", "html", "truncated", "invalid_json", "status:500"):
        system.simulated.fault(route="token", kind=kind, count=1)
        with contextlib.suppress(AssertionError):
            log_in(system, evidence, pilot)
    used = next(value for name, value in evidence.secrets.items() if name.startswith("code"))
    page = browser.session.get(f"{system.web_url}/auth/callback", params={"code": used, "state": "wrong"}, timeout=30)
    evidence.keep("a replayed login", page.text)
    system.simulated.clear_faults()


def poison(evidence: Evidence) -> None:
    for queue in queues.ALL:
        rabbitmq.put(queue, b"garbage")


def peek(evidence: Evidence) -> None:
    """What lies in every queue now; it is put back."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbitmq.address()))) as connection:
        for queue in queues.ALL:
            for name in (queue, dq_name(queue), xq_name(queue)):
                channel = connection.channel()
                with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                    while True:
                        method, properties, body = channel.basic_get(name)
                        if method is None:
                            break
                        evidence.bodies.append((f"message in {name}", f"{properties.headers} {body.decode()}"))
                    channel.close()


def dump(system: Cluster, evidence: Evidence) -> None:
    """Every column of every table, and what PostgreSQL remembers of statements."""
    tables = [name for (name,) in system.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert {"users", "killmails", "syncs", "ledger"} <= set(tables)
    for table in tables:
        for (row,) in system.rows(f'SELECT row_to_json(t)::text FROM "{table}" t'):
            for column, value in json.loads(row).items():
                evidence.keep(f"column {table}.{column}", str(value))


def test_the_run_went_through_what_it_should(evidence: Evidence) -> None:
    """Or nothing found would mean nothing."""
    kinds = [name.split(" of ")[0] for name in evidence.secrets]
    assert kinds.count("access token") >= 4 and kinds.count("refresh token") >= 4 and kinds.count("code") >= 3
    logs = "\n".join(text for where, text in evidence.texts if where.startswith("log of"))
    assert "DEBUG" in logs and "Traceback" in logs and "broken" in logs
    assert {where.split()[0] for where, _ in evidence.bodies} == {"event", "message"}
    assert any("fetch_killmail" in body for _, body in evidence.bodies)


def test_no_token_key_code_or_password_is_anywhere(evidence: Evidence) -> None:
    assert evidence.found([*evidence.texts, *evidence.bodies], evidence.secrets) == set()


def test_no_killmail_hash_is_in_a_log_a_message_or_an_event(evidence: Evidence) -> None:
    said = [(where, text) for where, text in evidence.texts if where.startswith(("log of", "scripts/", "GET /metrics"))]
    hits = evidence.found([*said, *evidence.bodies], dict(zip(evidence.hashes, evidence.hashes, strict=True)))
    assert {(where, around) for _, where, around in hits} == set()


def test_hashes_stand_in_their_own_columns_alone(evidence: Evidence) -> None:
    columns = [(where, text) for where, text in evidence.texts if where.startswith("column ")]
    hits = evidence.found(columns, {each: each for each in evidence.hashes})
    assert {where.removeprefix("column ") for _, where, _ in hits} <= {".".join(pair) for pair in HASH_COLUMNS}
