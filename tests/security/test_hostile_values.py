"""Values of the wrong kind, everywhere a client may put one: a clear refusal each time, and never our own failure.

Arguments come from the schema and addresses from the application's own map; a page's parameters are hostile whatever
their names are. So nothing that is added later goes untried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Request
from flask.testing import FlaskClient
from werkzeug.datastructures import ImmutableMultiDict

from api.callers import limiter
from models import User
from tests.api.socket_client import Client, Closed
from tests.security.arguments import MINE, operations
from tests.web_app import make_killmail, make_sync, make_user

#: As JSON texts: Python's own writer would not write all of them. The last is longer than Python reads a number.
JSON_VALUES = [
    "null", "true", "[]", "[[]]", "{}", '{"a": {"b": []}}', "[null]", "[1, [2]]", "0", "-1", "1.5", "-0.0", "1e308", "1e999",
    str(2**31), str(2**63), str(-(2**63) - 1), "9" * 400, "NaN", "Infinity", "-Infinity", '""', '" "', r'"\u0000"', r'"1\u0000"',
    r'"\ud800"', r'"\udfff1"', '"' + "9" * 400 + '"', '"' + "9" * 5000 + '"', '"' + "x" * 30_000 + '"', '"٣"', '"1_000"', '"+1"', '"1e3"',
    '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', '"2026-11-23T21:00:00+99:99"', '"2026-W01"', "9" * 5000,
]  # fmt: skip
TEXTS = ["", " ", "\x00", "1\x00", "\ud800", "\udfff", "9" * 400, "-1", "1.5", "NaN", "[]", "{}", "٣", "²", "1_000", "+1",
         "x" * 3000, "\r\nX-Injected: 1", "../../etc/passwd", "%", "%00", "\u202e", "\ufeff", "0", str(2**63),
         "9999-12-31", "0001-01-01"]  # fmt: skip
#: What may be said of a value: it is the client's fault, or the client has asked too often.
CODES = {"BAD_USER_INPUT", "RATE_LIMITED"}


@pytest.fixture
def viewer(app: Flask, sign_in: Callable[[User], None]) -> User:
    """Signed in, with something of everything to look at."""
    user = make_user()
    sign_in(user)
    make_killmail(MINE, user, attackers=3)
    make_sync(user.id)
    return user


@pytest.fixture(autouse=True)
def nothing_of_ours_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever is sent."""
    yield
    assert not [record.getMessage() for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]
    assert "Traceback" not in caplog.text


OPERATIONS = operations("query", "mutation")
SUBSCRIPTIONS = operations("subscription")


@pytest.mark.parametrize("query", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_no_variable_is_too_much_for_the_api(client: FlaskClient, viewer: User, query: str) -> None:
    for value in JSON_VALUES:
        limiter.reset()
        body = f'{{"query": {json.dumps(query)}, "variables": {{"v": {value}}}}}'
        response = client.post("/graphql", data=body, content_type="application/json")
        assert response.status_code in (200, 400), value
        answer = response.get_json()
        assert {error["extensions"]["code"] for error in answer.get("errors", ())} <= CODES, (value, answer)
        json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("body", ["%s", '{"query": %s}', '{"query": "{ me { id } }", "variables": %s}',
                                  '{"query": "{ me { id } }", "operationName": %s}', '{"query": "{ me { id } }", "extensions": %s}'])  # fmt: skip
def test_no_body_is_too_much_for_the_api(client: FlaskClient, viewer: User, body: str) -> None:
    for value in JSON_VALUES:
        limiter.reset()
        response = client.post("/graphql", data=body % value, content_type="application/json")
        assert response.status_code in (200, 400), value
        assert {error["extensions"]["code"] for error in response.get_json().get("errors", ())} <= CODES, value


@pytest.mark.parametrize("query", SUBSCRIPTIONS.values(), ids=SUBSCRIPTIONS.keys())
def test_no_variable_is_too_much_for_a_socket(viewer: User, connect: Callable[..., Client], query: str) -> None:
    client = connect(viewer)
    for number, value in enumerate(JSON_VALUES[:-1]):
        payload = f'{{"query": {json.dumps(query)}, "variables": {{"v": {value}}}}}'
        client.send(f'{{"id": "{number}", "type": "subscribe", "payload": {payload}}}')
        client.send({"id": str(number), "type": "complete"})
        for message in until_settled(client):
            assert message["type"] in ("next", "error", "complete"), value
            errors = message["payload"] if message["type"] == "error" else message.get("payload", {}).get("errors", ())
            assert {error["extensions"]["code"] for error in errors} <= CODES, (value, message)


def until_settled(client: Client) -> list[Any]:
    """All that the server says about what was sent before. Raises Closed."""
    client.send({"type": "ping", "payload": {"settle": "here"}})
    return list(iter(client.receive, {"type": "pong", "payload": {"settle": "here"}}))


@pytest.mark.parametrize(
    "message",
    ['{"type": %s}', '{"type": "ping", "payload": %s}', '{"type": "pong", "payload": %s}',
     '{"type": "subscribe", "id": %s, "payload": {"query": "{ me { id } }"}}', '{"type": "subscribe", "id": "1", "payload": %s}',
     '{"type": "subscribe", "id": "1", "payload": {"query": %s}}', '{"type": "complete", "id": %s}', "%s",
     '{"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }", "variables": %s}}',
     '{"type": "subscribe", "id": "1", "payload": {"query": "{ me { id } }", "operationName": %s}}',
     '{"type": "connection_init", "payload": %s}'],
)  # fmt: skip
def test_no_message_is_too_much_for_a_socket(viewer: User, connect: Callable[..., Client], message: str) -> None:
    """It is answered, or the socket is closed with a code that says whose fault it was."""
    for value in JSON_VALUES:
        client = connect(viewer)
        client.send(message % value)
        try:
            until_settled(client)
        except Closed as closed:
            assert closed.code in (4400, 4429), value
        client.ws.shutdown()  # type: ignore[no-untyped-call]


class _HostileRequest(Request):
    """Has every parameter there is, in the address and in a form, and its value is hostile."""

    value = ""

    @property
    def args(self) -> Any:
        return _Everything(self.value)

    form = args


class _Everything(ImmutableMultiDict[str, str]):
    def __init__(self, value: str) -> None:
        super().__init__([("x", value)])
        self.value = value

    def __contains__(self, _name: object) -> bool:
        return self.value != ""

    def __getitem__(self, _name: str) -> str:
        return self.value

    def getlist(self, _name: str, type: Any = None) -> list[Any]:
        return [self.value]


def addresses(app: Flask) -> list[tuple[str, str]]:
    """Every method and address there is; `{}` stands for each part that a client chooses."""
    found = []
    for rule in app.url_map.iter_rules():
        address = "".join("{}" if dynamic else text for dynamic, text in rule._trace).removeprefix("|")
        found += [(method, address) for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})]
    return found


def is_answered(response: Any, *what: object) -> None:
    """Well, or with the client's fault; 503 is a login service or broker that is not there."""
    assert response.status_code < 500 or response.status_code == 503, what
    assert "X-Injected" not in response.headers, what


@pytest.mark.parametrize("value", [text for text in TEXTS if not text.startswith(("\ud800", "\udfff"))])
def test_no_parameter_is_too_much_for_a_page(app: Flask, client: FlaskClient, viewer: User, value: str) -> None:
    """No lone surrogates: Werkzeug reads bytes that are no UTF-8 as U+FFFD."""
    app.request_class = type("Hostile", (_HostileRequest,), {"value": value})
    for method, address in addresses(app):
        limiter.reset()
        if "websocket" not in address:
            is_answered(client.open(address.replace("{}", str(MINE)), method=method), method, address)


@pytest.mark.parametrize("value", TEXTS)
def test_no_part_of_an_address_is_too_much(app: Flask, client: FlaskClient, viewer: User, value: str) -> None:
    raw = value.encode(errors="surrogatepass").decode("latin-1")
    for method, address in addresses(app):
        limiter.reset()
        is_answered(
            client.open("/", method=method, environ_overrides={"PATH_INFO": address.replace("{}", raw)}), address
        )


#: Headers that anything between a client and us reads.
HEADERS = ["Host", "Origin", "Referer", "Cookie", "X-Forwarded-For", "X-Forwarded-Proto", "Content-Type", "Content-Length",
           "Accept", "Accept-Language", "Accept-Encoding", "If-None-Match", "If-Modified-Since", "Range", "If-Range",
           "Authorization", "User-Agent", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol",
           "Transfer-Encoding", "Expect", "X-HTTP-Method-Override"]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_no_header_is_too_much(app: Flask, client: FlaskClient, viewer: User, header: str) -> None:
    name = header.upper().replace("-", "_")
    for value in [
        *TEXTS,
        "bytes=-1-",
        "bytes=0-0,1-1," * 50,
        "killmail_sync=" + "x" * 5000,
        "a=b; killmail_sync=.e30.x.y",
    ]:
        raw = value.encode(errors="surrogatepass").decode("latin-1")
        key = name if name.startswith("CONTENT_") else f"HTTP_{name}"
        for method, address in addresses(app):
            limiter.reset()
            path = address.replace("{}", str(MINE))
            is_answered(client.open(path, method=method, environ_overrides={key: raw}), method, address, value)
