"""Every way a request can end, over real sockets: what the permit hears, and what the caller gets."""

from __future__ import annotations

import gzip
import logging
import threading
import time

import pytest

from esi.transport import Transport, TransportError
from tests.unit.esi.conftest import READ_TIMEOUT, RecordingPermit
from tests.unit.esi.raw_server import RawServer, Step, reply

SECRET = "s3cr3t-token-5f1e"
MAX_BYTES = 100_000


@pytest.fixture
def transport(server: RawServer):
    transport = Transport(
        server.url, {"X-Sent": "always"}, connect_timeout=1, read_timeout=READ_TIMEOUT, max_bytes=MAX_BYTES
    )
    yield transport
    transport.close()


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("step", "body"),
    [
        (reply(200, b"hello"), b"hello"),
        (Step(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hel", b"lo")), b"hello"),
        (reply(200, gzip.compress(b"hello"), {"Content-Encoding": "gzip"}), b"hello"),
        (Step(HEAD + b"Connection: close\r\n\r\nhello", then="close"), b"hello"),
        (Step(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"), b""),
        (reply(404, b"gone"), b"gone"),
        (reply(503, b"<html>"), b"<html>"),
    ],
    ids=["length", "chunked", "gzip", "until-close", "304", "404", "503"],
)
def test_a_whole_answer_is_returned_and_told_once(transport, server, permit, step, body):
    server.script(step)

    answer = transport.send("GET", server.url + "/", permit)

    assert (answer.body, answer.broken) == (body, None)
    assert permit.calls == [f"answered {answer.status}"]


BROKEN = {
    "cut short of its length": (Step(HEAD + b"Content-Length: 50\r\n\r\n{", then="close"), "broke off"),
    "cut within a chunk": (Step(HEAD + b"Transfer-Encoding: chunked\r\n\r\n50\r\nabc", then="close"), "broke off"),
    "reset within the body": (Step(HEAD + b"Content-Length: 50\r\n\r\n{", then="reset"), "broke off"),
    "stops within the body": (Step(HEAD + b"Content-Length: 50\r\n\r\n{", then="hang"), "stopped"),
    "not the gzip it says": (reply(200, b"plain", {"Content-Encoding": "gzip"}), "compression"),
    "larger than the bound": (reply(200, b"x" * (MAX_BYTES + 1)), "larger"),
    "a gzip bomb": (reply(200, gzip.compress(b"0" * 50_000_000), {"Content-Encoding": "gzip"}), "larger"),
    "a chunk's head byte by byte": (
        Step(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 200 + b"\r\n\r\n", drip=READ_TIMEOUT / 8),
        "stopped",
    ),
    "byte by byte": (Step(HEAD + b"Content-Length: 500\r\n\r\n" + b"x" * 500, drip=READ_TIMEOUT / 8), "longer"),
}


@pytest.mark.parametrize(("step", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_body_counts_as_answered_and_says_why(transport, server, permit, step, reason):
    server.script(step)

    began = time.monotonic()
    answer = transport.send("GET", server.url + "/", permit)

    assert time.monotonic() - began < 8 * READ_TIMEOUT, "three at most, but for a busy machine"
    assert answer.status == 200
    assert answer.body == b""
    assert reason in (answer.broken or "")
    assert permit.calls == ["answered 200"]


UNANSWERED = {
    "reset": Step(b"", then="reset"),
    "closed": Step(b"", then="close"),
    "hang": Step(b"", then="hang"),
    "cut within the status line": Step(b"HTTP/1.", then="close"),
    "not HTTP": Step(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then="close"),
    "a status line byte by byte": Step(HEAD + b"\r\n", drip=READ_TIMEOUT / 4, drip_head=True),
    "headers byte by byte": Step(HEAD + b"X-A: " + b"a" * 200 + b"\r\n\r\n", drip=READ_TIMEOUT / 8, drip_head=True),
    "headers without end": Step(HEAD + b"X-A: b\r\n" * 500 + b"\r\n", then="close"),
}


@pytest.mark.parametrize("step", UNANSWERED.values(), ids=UNANSWERED.keys())
def test_a_request_without_an_answer_may_have_been_charged(transport, server, permit, step):
    server.script(step)

    began = time.monotonic()
    with pytest.raises(TransportError):
        transport.send("GET", server.url + "/", permit)

    assert time.monotonic() - began < 4 * READ_TIMEOUT, "one, but for a busy machine"
    assert permit.calls == ["unanswered"]
    assert len(server.received) == 1, "a request was sent again without a permit"


def test_a_refused_connection_sent_nothing(transport, dead_url, permit):
    with pytest.raises(TransportError, match="refused"):
        transport.send("GET", dead_url + "/", permit)

    assert permit.calls == ["unsent"]


def test_an_unknown_host_got_nothing(transport, permit):
    with pytest.raises(TransportError, match="host was not found"):
        transport.send("GET", "http://no-such-host.invalid/", permit)

    assert permit.calls == ["unsent"]


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX-Injected: 1", f" {SECRET}", f"{SECRET}\N{SNOWMAN}", f"{SECRET}\0\n"])
def test_a_header_that_cannot_be_written_sends_nothing_and_is_not_shown(transport, server, permit, value):
    with pytest.raises(TransportError) as caught:
        transport.send("GET", server.url + "/", permit, headers={"Authorization": value})

    assert permit.calls == ["unsent"]
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert all("x-injected" not in request.headers for request in server.received)


def test_an_interrupted_request_is_told_as_unanswered(transport, server, permit, monkeypatch):
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object, **__: object) -> None:
        raise Interrupted

    monkeypatch.setattr("requests.Session.request", interrupt)  # how a worker's time limit reaches a waiting thread

    with pytest.raises(Interrupted):
        transport.send("GET", server.url + "/", permit)

    assert permit.calls == ["unanswered"]


def test_the_permit_hears_the_headers_before_the_body_is_read(transport, server):
    heard = threading.Event()

    class Early(RecordingPermit):
        def answered(self, status, headers):
            super().answered(status, headers)
            heard.set()

    permit = Early()
    head = HEAD + b"X-Ratelimit-Remaining: 7\r\nContent-Length: 5\r\n\r\n"
    server.script(Step(head + b"hello", gate=heard))  # no body until the permit has heard

    answer = transport.send("GET", server.url + "/", permit)

    assert (answer.body, answer.broken) == (b"hello", None)
    assert permit.headers["x-ratelimit-remaining"] == "7"


def test_a_redirect_is_an_answer_and_goes_nowhere(transport, server, permit):
    server.script(reply(302, b"x" * (MAX_BYTES + 1), {"Location": f"{server.url}/elsewhere"}))

    answer = transport.send("GET", server.url + "/", permit)

    assert answer.status == 302
    assert "larger" in (answer.broken or "")
    assert [request.target for request in server.received] == ["/"]


def test_one_connection_serves_a_threads_requests(transport, server, permit):
    server.script(
        reply(200, b"a"),
        reply(404, b"b"),
        Step(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        Step(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"c")),
        reply(200, gzip.compress(b"d" * 70_000), {"Content-Encoding": "gzip"}),
        reply(200, b"e"),
    )

    for _ in range(6):
        assert transport.send("GET", server.url + "/", permit).broken is None

    assert server.connections == 1


def test_a_broken_answer_does_not_spoil_the_next_one(transport, server, permit):
    server.script(reply(200, b"x" * (MAX_BYTES + 1)), reply(200, b"next"))

    transport.send("GET", server.url + "/", permit)

    assert transport.send("GET", server.url + "/", permit).body == b"next"


def test_threads_do_not_share_a_connection(transport, server):
    server.script(*[reply(200, b"ok")] * 4)

    def ask_twice() -> None:
        for _ in range(2):
            transport.send("GET", server.url + "/", RecordingPermit())

    for _ in range(2):
        thread = threading.Thread(target=ask_twice)
        thread.start()
        thread.join(5)

    assert [request.connection for request in server.received] == [1, 1, 2, 2]


def test_cookies_are_not_kept(transport, server, permit):
    server.script(reply(200, b"", {"Set-Cookie": "a=b; Path=/"}), reply(200, b""))

    transport.send("GET", server.url + "/", permit)
    transport.send("GET", server.url + "/", permit)

    assert "cookie" not in server.last.headers


def test_netrc_does_not_replace_our_authorization(server, permit, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    transport = Transport(server.url, {}, connect_timeout=1, read_timeout=1, max_bytes=MAX_BYTES)
    server.script(reply(200, b""))

    transport.send("GET", server.url + "/", permit, headers={"Authorization": "Bearer ours"})
    transport.close()

    assert server.last.headers["authorization"] == "Bearer ours"


def test_no_path_reaches_a_log(transport, server, permit, caplog):
    caplog.set_level(logging.DEBUG)
    # a header line without a colon makes urllib3 warn, with the URL in the warning
    server.script(reply(200, b"ok"), Step(HEAD + b"garbage\r\nContent-Length: 2\r\n\r\nok"), Step(b"", then="reset"))

    for _ in range(3):
        try:
            transport.send("GET", f"{server.url}/killmails/1/{SECRET}/", permit)
        except TransportError:
            continue

    assert len(server.received) == 3
    assert SECRET not in caplog.text
