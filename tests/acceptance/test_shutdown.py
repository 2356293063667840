"""SIGTERM drains: what is held is finished or handed back, and nothing waits for a time-out to be picked up again."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import websocket

from database import utcnow
from ledger.rules import FETCH_LEASE
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import Process, wait_until

SIMULATOR = ("--pilots", "2", "--killmails-count", "300", "--latency-ms", "50-200", "--limit", "killmail=100000/1m")

#: Seconds after which the client has given up a request that hangs (`esi/transport.py`), and something to stop in.
ESI_TIMEOUT = 30.0
#: Seconds that `python app.py` takes at most (`embedded.py`), and something to exit in.
EMBEDDED_GRACE = 25.0
#: Seconds for which whoever stops it repeats the signal: shorter than what hangs takes to give up.
IMPATIENT = 3.0
#: Seconds that a killmail's first failure waits (`ledger/rules.py`), and something to fetch in.
AT_ONCE = 40.0


def stored(system: Cluster) -> int:
    return int(system.scalar("SELECT COUNT(*) FROM killmails"))


def test_workers_hand_over_without_waiting_for_a_lease(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        system.start_web()
        workers = system.start_workers()
        for character_id in system.simulated.truth():
            system.browser().log_in(character_id)

        for part in (60, 140):
            wait_until(lambda part=part: stored(system) >= part, f"{part} are stored", pause=0.02)  # type: ignore[misc]
            assert workers.stop() == 0
            assert system.scalar("SELECT COUNT(*) FROM ledger WHERE state = 'fetching'") == 0
            workers = system.start_workers()
        started = time.monotonic()
        system.wait_for_syncs()

        # Nobody repairs anything here: no scheduler is running. A lost message would have to wait for one.
        assert time.monotonic() - started < FETCH_LEASE.total_seconds()
        assert system.differences() == []
        served = Counter(
            entry["killmail_id"] for entry in system.simulated.requests(route="killmail") if entry["status"] == 200
        )
        assert set(served.values()) == {1}


def test_sockets_are_closed_with_1001(tmp_path: Path, both_services: None, request: pytest.FixtureRequest) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        web = system.start_web()
        socket = websocket.create_connection(
            system.web_url.replace("http", "ws") + "/graphql",
            subprotocols=["graphql-transport-ws"],
            origin=system.web_url,
            timeout=10,
        )
        request.addfinalizer(socket.shutdown)  # closes it, whatever comes
        socket.send('{"type": "connection_init"}')
        assert "connection_ack" in socket.recv()
        ended: list[int] = []
        stopping = threading.Thread(target=lambda: ended.append(web.stop()))
        stopping.start()

        opcode, data = socket.recv_data()

        stopping.join(timeout=15)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        assert int.from_bytes(data[:2], "big") == 1001
        assert ended == [0]
        with pytest.raises((websocket.WebSocketException, OSError)):
            socket.send("more")
            socket.recv()


def test_a_long_list_is_handed_over_between_two_pages(tmp_path: Path, both_services: None) -> None:
    """Given a worker that reads a list page by page, When it is told to stop, Then it stops within a page, and another
    one goes on at once where it was: nobody repairs anything here, no scheduler is running."""
    slow = ("--pilots", "1", "--killmails-count", "60", "--page-size", "2", "--latency-ms", "400-500")
    limits = ("--limit", "char-killmail=6000/1m", "--limit", "killmail=100000/1m")
    with services(tmp_path, *slow, *limits) as system:
        system.start_web()
        workers = system.start_workers(processes=1, threads=2)
        (pilot,) = system.simulated.truth()
        system.browser().log_in(pilot)

        def pages() -> list[int]:
            return [entry["page"] for entry in system.simulated.requests(route="recent")]

        wait_until(lambda: len(pages()) >= 3, "some pages are read", pause=0.05)
        began = time.monotonic()
        assert workers.stop() == 0
        assert time.monotonic() - began < 10, "thirty pages take a quarter of a minute"
        assert system.scalar("SELECT COUNT(*) FROM syncs WHERE claimed_until IS NOT NULL") == 0
        system.start_workers(processes=1, threads=2)
        system.wait_for_syncs(60)

        assert system.differences() == []
        assert pages() == list(range(1, 31)), "and no page was read twice"


def test_names_are_handed_over_between_two_requests(tmp_path: Path, both_services: None) -> None:
    """Given a worker that asks for one solar system after the other, When it is told to stop, Then it stops within a
    request, and another one goes on at once: nothing is claimed, and the message for it is on its way."""
    slow = ("--pilots", "1", "--killmails-count", "40", "--latency-ms", "200-300")
    with services(tmp_path, *slow, "--limit", "killmail=100000/1m") as system:
        system.start_web()
        workers = system.start_workers(processes=1, threads=2)
        (pilot,) = system.simulated.truth()
        system.browser().log_in(pilot)

        def asked() -> list[str]:
            return [entry["path"] for entry in system.simulated.requests(route="system")]

        def wanted() -> int:
            return int(system.scalar("SELECT COUNT(*) FROM solar_systems WHERE security_status IS NULL"))

        wait_until(lambda: len(asked()) >= 3, "some systems are asked for", pause=0.02)
        before = len(asked())
        assert workers.stop() == 0
        assert len(asked()) <= before + 2
        assert wanted() > 0
        assert system.scalar("SELECT COUNT(*) FROM solar_systems WHERE retry_at > ?", utcnow()) == 0
        assert system.scalar("SELECT COUNT(*) FROM names WHERE name IS NULL AND retry_at > ?", utcnow()) == 0
        system.start_workers(processes=1, threads=2)
        wait_until(lambda: wanted() == 0, "every system is known", 60)

        assert len(asked()) == len(set(asked())), "and none was asked for twice"


def test_what_hangs_at_esi_is_given_up_within_its_timeout_and_goes_on_elsewhere(
    tmp_path: Path, both_services: None
) -> None:
    """Given workers whose every request hangs for longer than any grace, When they are told to stop, Then they do so
    within the client's own timeouts, and hold nothing any more."""
    with hanging_workers(tmp_path) as (system, workers):
        began = time.monotonic()

        assert workers.stop() == 0

        assert time.monotonic() - began < ESI_TIMEOUT
        assert fetching(system) == 0
        system.simulated.clear_faults()
        goes_on_at_once(system)


def test_a_second_signal_ends_the_workers_at_once_and_costs_nothing(tmp_path: Path, both_services: None) -> None:
    """Given workers that hang, When whoever stops them loses patience, Then others have it all in a lease's time, as
    after `kill -9`; nobody repairs anything."""
    with hanging_workers(tmp_path) as (system, workers):
        workers.child.send_signal(signal.SIGTERM)
        workers.wait_for_output("Stopping worker process")
        workers.child.send_signal(signal.SIGTERM)

        assert workers.child.wait(timeout=5) is not None
        system.simulated.clear_faults()
        system.start_workers(processes=1)
        system.wait_for_syncs(FETCH_LEASE.total_seconds() + 20)
        assert system.differences() == []


@pytest.mark.parametrize(("where", "number"), [("killmail", signal.SIGTERM), ("recent", signal.SIGINT)])
def test_one_process_stops_in_its_grace_and_starts_where_it_was(tmp_path: Path, where: str, number: int) -> None:
    """Given `python app.py` in the middle of a sync whose requests hang, When it is told to stop, impatiently, and
    started again, Then it goes on at once."""
    simulator = ("--pilots", "1", "--killmails-count", "40", "--page-size", "10", "--cache-seconds", "0")
    with cluster(tmp_path, f"sqlite:///{tmp_path}/killmails.db", "", *simulator) as system:
        web = system.start_web()
        if where == "recent":
            system.simulated.fault(route="recent", kind="hang", seconds=300, page=2)
        (pilot,) = system.simulated.truth()
        system.browser().log_in(pilot)
        wait_until(lambda: stored(system) >= 5, "some are stored", pause=0.02)
        if where == "killmail":
            system.simulated.fault(route="killmail", kind="hang", seconds=300)
        wait_until(lambda: system.simulated.faults_hit() > 0, "something hangs", pause=0.05)
        began = time.monotonic()

        def ended() -> bool:
            # Again and again, because two at once would be one; but not when all is done and Python itself ends, which
            # is back to the signal's own action then.
            if time.monotonic() - began < IMPATIENT:
                web.child.send_signal(number)
            return web.child.poll() is not None

        wait_until(ended, "it ends", EMBEDDED_GRACE)
        assert web.child.returncode == 0
        assert "Traceback" not in web.output()
        assert time.monotonic() - began < EMBEDDED_GRACE
        assert system.scalar("SELECT COUNT(*) FROM syncs WHERE state = 'LISTING' AND claimed_until IS NOT NULL") == 0
        system.simulated.clear_faults()
        system.start_web()
        system.wait_for_syncs(AT_ONCE)
        assert system.differences() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_scheduler_stops_at_once(tmp_path: Path, both_services: None, number: int) -> None:
    with services(tmp_path, "--pilots", "1", "--killmails-count", "1") as system:
        scheduler = system.start_scheduler()
        scheduler.wait_for_output("Starting")

        def ended() -> bool:
            # Again, as one who presses Ctrl-C would: it imports, and an interrupt in a destructor is dropped.
            scheduler.child.send_signal(number)
            return scheduler.child.poll() is not None

        wait_until(ended, "it ends", 10, pause=1)  # with whatever code: it holds nothing, what it sends is sent whole
        assert "Traceback" not in scheduler.output()


@contextmanager
def hanging_workers(directory: Path) -> Iterator[tuple[Cluster, Process]]:
    """A system whose workers are in the middle of requests for killmails that ESI does not answer."""
    with services(directory, "--pilots", "1", "--killmails-count", "6", "--cache-seconds", "0") as system:
        system.start_web()
        workers = system.start_workers(processes=1)
        system.simulated.fault(route="killmail", kind="hang", seconds=300)
        (pilot,) = system.simulated.truth()
        system.browser().log_in(pilot)
        wait_until(lambda: fetching(system) > 0, "something hangs", pause=0.05)
        yield system, workers


def fetching(system: Cluster) -> int:
    return int(system.scalar("SELECT COUNT(*) FROM ledger WHERE state = 'fetching'"))


def goes_on_at_once(system: Cluster) -> None:
    """Other workers do what is left long before any lease would run out, and nobody repairs anything."""
    system.start_workers(processes=1)
    system.wait_for_syncs(AT_ONCE)
    assert system.differences() == []
