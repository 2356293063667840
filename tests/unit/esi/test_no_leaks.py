"""No error, whatever raised it, shows a secret: not in its text, repr, attributes, causes or traceback."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator

import pytest

from esi.client import EsiClient, Reference
from esi.errors import EsiError, SsoError
from tests.unit.esi.conftest import RecordingPermit
from tests.unit.esi.raw_server import Step, reply
from tests.unit.esi.sso_world import CLIENT_SECRET, METADATA, TOKEN

ACCESS_TOKEN = "access-token-71aa"
REFRESH_TOKEN = "refresh-token-82bb"
CODE = "code-93cc"
VERIFIER = "verifier-04dd"
HASH = "15ee" * 10
SECRETS = (ACCESS_TOKEN, REFRESH_TOKEN, CODE, VERIFIER, HASH, CLIENT_SECRET)
#: An answer that repeats what it was asked with, as some servers do.
ECHO = " ".join(SECRETS)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its causes and its contexts, suppressed or not: error trackers follow them all."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            waiting += [link.__cause__, link.__context__]


def shown(error: BaseException) -> str:
    parts = ["".join(traceback.format_exception(error))]
    for link in chain(error):
        parts += [str(link), repr(link), repr(link.args), repr(vars(link)), *getattr(link, "__notes__", [])]
    return "\n".join(parts)


STEPS = {
    **{
        f"{status} echo": reply(status, {"error": ECHO, "error_description": ECHO, "scope": ECHO})
        for status in (200, 301, 400, 401, 403, 404, 420, 422, 429, 500, 503)
    },
    "echo as text": reply(200, ECHO.encode()),
    "echo as html": reply(200, f"<html>{ECHO}</html>".encode()),
    "echo in values": reply(200, [{"killmail_id": ECHO, "killmail_hash": ECHO, "type_id": ECHO, "name": ECHO}]),
    "echo in keys": reply(200, {ECHO: ECHO}),
    "echo in headers": reply(200, [], {"X-Pages": ECHO, "Retry-After": ECHO, "Expires": ECHO, "Date": ECHO}),
    "echo in a redirect": reply(302, b"", {"Location": f"http://127.0.0.1:9/{HASH}?{ECHO}"}),
    "echo in the status line": Step(f"HTTP/1.1 {ECHO}\r\n\r\n".encode(), then="close"),
    "echo instead of http": Step(f"{ECHO}\r\n\r\n".encode(), then="close"),
    "bad utf-8": reply(200, b"\xff\xfe\xfa" + ECHO.encode()),
    "reset": Step(b"", then="reset"),
    "hang": Step(b"", then="hang"),
    "truncated": Step(f"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{ECHO}".encode(), then="close"),
    "bad gzip": reply(200, ECHO.encode(), {"Content-Encoding": "gzip"}),
    "bad chunk": Step(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{ECHO}\r\n".encode(), then="close"),
}

ESI_CALLS: dict[str, Callable[[EsiClient], object]] = {
    "recent": lambda client: client.recent_killmails(5, ACCESS_TOKEN, 1, RecordingPermit()),
    "killmail": lambda client: client.killmail(5, HASH, RecordingPermit()),
    "names": lambda client: client.names([5], lambda: RecordingPermit()),
    "status": lambda client: client.status(RecordingPermit()),
    "prices": lambda client: client.market_prices(RecordingPermit()),
}


@pytest.mark.parametrize("call", ESI_CALLS.values(), ids=ESI_CALLS.keys())
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_no_esi_error_shows_a_secret(client, server, caplog, step, call):
    caplog.set_level(logging.DEBUG)
    server.script(step)

    try:
        call(client)
    except EsiError as error:
        text = shown(error)
    else:
        text = ""

    assert server.received, "the call has to get as far as the server"
    assert [secret for secret in SECRETS if secret in text + caplog.text] == []


@pytest.mark.parametrize("path", [TOKEN, METADATA])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize(("call", "arguments"), [("exchange", (CODE, VERIFIER)), ("refresh", (REFRESH_TOKEN,))])
def test_no_sso_error_shows_a_secret(sso, world, caplog, step, path, call, arguments):
    caplog.set_level(logging.DEBUG)
    world.answer(path, step)

    with pytest.raises(SsoError) as caught:
        getattr(sso, call)(*arguments)

    assert [secret for secret in SECRETS if secret in shown(caught.value) + caplog.text] == []


def test_no_refused_token_is_shown(sso, world):
    good = world.token()
    header, payload, signature = good.split(".")
    forgeries = [
        f"{header}.{payload}.{signature[::-1]}",
        world.token(name=5),
        world.token(sub=ECHO),
        world.token(owner=[ECHO]),
        world.token(iss=ECHO),
        world.token(aud=[ECHO]),
        world.token(kid=ECHO),
        world.token(exp=5),
        ECHO,
        good + "é",
    ]

    for token in forgeries:
        with pytest.raises(SsoError) as caught:
            sso.verify(token)
        text = shown(caught.value)
        assert [secret for secret in (*SECRETS, token, *token.split(".")) if len(secret) > 3 and secret in text] == []


def test_a_header_that_cannot_be_written_is_not_shown(client):
    with pytest.raises(EsiError) as caught:
        client.recent_killmails(5, f"{ACCESS_TOKEN}\r\n", 1, RecordingPermit())

    assert ACCESS_TOKEN not in shown(caught.value)


def test_what_is_no_hash_is_not_shown(client):
    with pytest.raises(ValueError, match="killmail 5") as caught:
        client.killmail(5, HASH + "0", RecordingPermit())

    assert HASH not in shown(caught.value)


def test_a_reference_does_not_show_its_hash():
    assert HASH not in f"{Reference(5, HASH)} {Reference(5, HASH)!r} {(Reference(5, HASH),)}"
