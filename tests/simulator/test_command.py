"""`python -m simulator` as a process, and the server underneath at the level of bytes."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from simulator import server
from simulator.config import Config
from tests.simulator.client import Client

ROOT = Path(__file__).parents[2]


def _command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_stops_on_a_signal(number):
    options = ("--pilots", "2", "--killmails-count", "9", "--limit", "killmail=2/1h", "--latency-ms", "0-1")
    with _command(*options, "--fault", "route=status,kind=status:502,count=1") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("simulator listening on http://127.0.0.1:")
        client = Client(line.split()[-1])

        truth = client.truth()
        reference = next(iter(truth.values()))[0]
        statuses = [client.killmail(reference).status_code for _ in range(2)]
        faulty = client.get("/status").status_code
        client.session.close()
        process.send_signal(number)

        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")
    assert len(truth) == 2
    assert (statuses, faulty) == ([200, 429], 502)


def test_a_busy_port_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = _command("--port", str(taken.getsockname()[1]), "--killmails-count", "1")
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (1, "")
    assert err.startswith("simulator: ")
    assert "in use" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "wrong", [["--limit", "killmail=much"], ["--fault", "kind=explode"], ["--killmails", "/nonexistent"]]
)
def test_wrong_options_do_not_start(wrong):
    process = _command(*wrong)
    out, err = process.communicate(timeout=20)
    assert process.returncode != 0
    assert out == ""
    assert "Traceback" not in err


@pytest.fixture
def raw(simulate):
    """A bare connection to a simulator."""
    address = urlsplit(simulate(latency_ms=(5, 20)).url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        yield connection


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_pipelined_requests_are_answered_in_order(raw):
    """Each answer takes its own time on the way, and still none overtakes another."""
    asked = ["/status", "/nothing"] * 4
    heads = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in asked]
    raw.sendall("".join(heads).encode() + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

    statuses = [int(one) for one in re.findall(rb"HTTP/1.1 (\d+) ", _read_all(raw))]

    assert statuses == [200, 404] * 4 + [404]


def test_a_request_in_pieces_is_put_together(raw):
    body = b"[30000142]"
    head = b"POST /universe/names HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    for piece in (head[:9], head[9:], body[:3], body[3:]):
        raw.sendall(piece)
    assert b'"Jita"' in _read_all(raw)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_is_no_request_ends_the_connection(raw, nonsense):
    raw.sendall(nonsense)
    with contextlib.suppress(ConnectionResetError):
        assert _read_all(raw) == b""


def test_a_stopped_simulator_frees_its_port_and_its_clients():
    running = server.start(Config(killmail_count=1))
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(b"GET /status HTTP/1.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")

        running.stop()
        running.stop()

        with pytest.raises(OSError):
            # Either the peer's end or its reset; then nothing listens any more.
            connection.recv(1)
            socket.create_connection((address.hostname, address.port), timeout=1).close()


def test_changes_run_in_the_simulators_thread():
    running = server.start(Config(killmail_count=3))
    try:
        assert running.call(lambda state: len(state.world.killmails)) == 3
        with pytest.raises(ZeroDivisionError):
            running.call(lambda state: 1 // 0)
    finally:
        running.stop()


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--fault", "route=nowhere,kind=reset", "killmail"),
        ("--fault", "route=killmail,kind=sabotage", "truncated"),
        ("--limit", "elsewhere=240/1m", "char-killmail"),
        ("--limit", "killmail=many", "3600/15m"),
    ],
)
def test_a_wish_it_does_not_know_is_told_with_what_there_is(option: str, value: str, told: str):
    process = _command(option, value)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert told in err.strip().rpartition("\n")[2]


def test_help_lists_what_can_go_wrong():
    out, _ = _command("--help").communicate(timeout=20)
    for word in ("429_bare", "hang", "recent", "token", "/_simulator/"):
        assert word in out
