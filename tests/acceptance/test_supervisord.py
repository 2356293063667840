"""`supervisord -c supervisord.conf`: everything runs, what is killed comes back, and one SIGTERM ends all of it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from cryptography.fernet import Fernet

import settings
from api.hub import MAX_SOCKETS
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.processes import BIN, ROOT, Process, clean_environment, wait_until
from web.open_files import FILES

SIMULATOR = ("--pilots", "3", "--killmails-count", "90", "--cache-seconds", "0", "--limit", "char-killmail=300/1m")

#: What each program's processes have in their command line.
PROGRAMS = {"web": "bin/gunicorn", "workers": "bin/dramatiq", "scheduler": "bin/periodiq"}
#: The commands of these programs: where they take what they run.
COMMANDS = {
    "gunicorn": "gunicorn.app.wsgiapp import run",
    "dramatiq": "dramatiq.__main__ import main as run",
    "periodiq": "periodiq import entrypoint as run",
    "supervisord": "supervisor.supervisord import main as run",
}
PACKAGES = str(Path(pytest.__file__).parents[1])

#: A user who is not root and owns nothing here.
NOBODY = 65534
AS_NOBODY: Any = {"user": NOBODY, "group": NOBODY, "extra_groups": []}


@pytest.fixture
def checkout() -> Iterator[Path]:
    """The repository as a fresh clone has it: without var/. The virtual environment is this one."""
    with tempfile.TemporaryDirectory() as directory:  # supervisord's socket lies in it: 108 characters at most
        made = Path(directory, "a check out")  # a path with spaces, as people have
        copy_repository(made)
        (made / ".venv").mkdir()
        (made / ".venv/bin").symlink_to(BIN)
        yield made


@pytest.fixture
def checkout_of_nobody() -> Iterator[Path]:
    """A checkout that somebody who is not root owns, with commands that this user may run."""
    with tempfile.TemporaryDirectory() as directory:  # tmp_path is root's alone
        made = Path(directory, "checkout")
        Path(directory).chmod(0o755)
        copy_repository(made)
        commands = made / ".venv/bin"
        commands.mkdir(parents=True)
        python = python_of_nobody()
        for name, source in COMMANDS.items():
            text = f"#!{python}\nimport sys\nsys.path.insert(0, {PACKAGES!r})\nif __name__ == '__main__':\n"
            (commands / name).write_text(f"{text}    from {source}\n    sys.exit(run())\n")
            (commands / name).chmod(0o755)
        for path in (made, *made.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield made


def python_of_nobody() -> str:
    """An interpreter that may be run by everybody, of the version that the packages were installed for."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        with contextlib.suppress(OSError):
            check = f"import sys; sys.path.insert(0, {PACKAGES!r}); import gunicorn, psycopg2, cryptography"
            done = subprocess.run([python, "-c", check], cwd="/", env={}, capture_output=True, check=False, **AS_NOBODY)
            if done.returncode == 0:
                return python
    pytest.skip("this Python, or what is installed for it, can be read by its owner only")


def copy_repository(made: Path) -> None:
    packages = ("actors", "api", "esi", "ledger", "migrations", "scripts", "tokens", "web")
    names = (*packages, "schema.graphql", "supervisord.conf")
    made.mkdir()
    for name in (*names, *(path.name for path in settings.ROOT.glob("*.py"))):
        source = settings.ROOT / name
        if source.is_dir():
            shutil.copytree(source, made / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, made / name)


@pytest.fixture
def system(tmp_path: Path, both_services: None) -> Iterator[Cluster]:
    """Database, queues and simulator of a system that is not started yet."""
    with services(tmp_path, *SIMULATOR) as made:
        made.web_url = f"http://127.0.0.1:{made.processes.environment['PORT']}"
        yield made


def start(system: Cluster, checkout: Path, **environment: str) -> Process:
    """supervisord, from another directory than the repository, until the web is ready and the workers are."""
    supervisord = [str(BIN / "supervisord"), "-c", str(checkout / "supervisord.conf")]
    running = system.processes.start("supervisord", supervisord, **environment)
    wait_for_web(system)
    running.wait_for_output("(?s)" + "Worker process is ready for action.*" * 2)
    return running


def test_what_is_killed_comes_back_and_works(system: Cluster, checkout: Path) -> None:
    """Given the system, When worker, scheduler and web are killed one after the other, Then new ones do their work."""
    supervisord = start(system, checkout)

    for program in PROGRAMS:
        before = processes_of(checkout, program)
        os.kill(max(before), signal.SIGKILL)  # the youngest: a worker process, where there is a master
        wait_until(partial(has_come_back, checkout, program, before), f"{program} comes back", 30)
    wait_for_web(system)
    for character_id in system.simulated.truth():
        assert system.browser().log_in(character_id).status_code == 200
    system.wait_for_syncs()

    assert system.differences() == []
    report = json.loads(system.script("check_queue", "--json").stdout)
    assert report["mode"] == "services"
    assert all(queue["consumer_count"] > 0 and queue["dead_count"] == 0 for queue in report["queues"])
    assert supervisord.stop() == 0


def test_a_web_whose_master_is_killed_gives_the_port_free(system: Cluster, checkout: Path) -> None:
    start(system, checkout)
    before = processes_of(checkout, "web")

    os.kill(min(before), signal.SIGKILL)

    wait_until(lambda: not before & processes_of(checkout, "web"), "the orphaned worker ends", 30)
    wait_for_web(system)


def has_come_back(checkout: Path, program: str, before: set[int]) -> bool:
    """As many as there were, and not the same."""
    now = processes_of(checkout, program)
    return len(now) >= len(before) and now != before


def test_a_stop_is_orderly_and_leaves_nothing(system: Cluster, checkout: Path) -> None:
    """Given an open socket, When supervisord gets SIGTERM, Then the socket is told, and every process ends in peace."""
    supervisord = start(system, checkout)
    browser = system.browser()
    browser.log_in(min(system.simulated.truth()))
    system.wait_for_syncs()
    cookie = "; ".join(f"{each.name}={each.value}" for each in browser.session.cookies)
    address = system.web_url.replace("http", "ws") + "/graphql"
    socket: Any = websocket.create_connection(address, subprotocols=["graphql-transport-ws"], cookie=cookie, timeout=30)
    try:
        socket.send(json.dumps({"type": "connection_init"}))
        assert json.loads(socket.recv())["type"] == "connection_ack"

        code = supervisord.stop()

        opcode, payload = socket.recv_data()
    finally:
        socket.shutdown()
    assert (code, opcode, int.from_bytes(payload[:2], "big")) == (0, websocket.ABNF.OPCODE_CLOSE, 1001)
    assert {program: processes_of(checkout, program) for program in PROGRAMS} == {
        program: set() for program in PROGRAMS
    }
    said = supervisord.output()
    assert "Killing worker process" not in said  # what a Dramatiq worker says that was not allowed to finish
    assert "SIGKILL" not in said and "Traceback" not in said
    assert [path.name for path in checkout.iterdir() if path.name.startswith(".super")] == []
    for name in ("SECRET_KEY", "TOKEN_KEYS"):
        assert system.processes.environment[name] not in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_runs_for_somebody_who_is_not_root_and_without_user_in_the_environment(
    system: Cluster, checkout_of_nobody: Path
) -> None:
    checkout = checkout_of_nobody
    log = checkout.parent / "log"
    with log.open("ab") as output:
        os.chown(log, NOBODY, NOBODY)
        child = subprocess.Popen(
            [str(checkout / ".venv/bin/supervisord"), "-c", str(checkout / "supervisord.conf")],
            cwd="/",
            env={**system.processes.environment, "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **AS_NOBODY,
        )
    supervisord = Process("supervisord", child, log)
    system.processes.running.append(supervisord)

    wait_for_web(system)
    supervisord.wait_for_output("(?s)" + "Worker process is ready for action.*" * 2)

    control = checkout / ".supervisord.sock"
    assert (control.stat().st_uid, stat.S_IMODE(control.stat().st_mode)) == (NOBODY, 0o700)
    assert supervisord.stop() == 0


def test_sockets_cannot_take_the_threads_that_requests_need() -> None:
    source = "import json, runpy; print(json.dumps(runpy.run_path('web/gunicorn.py'), default=str))"
    config = json.loads(run([sys.executable, "-c", source], HOST="::1", PORT="8001").stdout)

    assert (config["workers"], config["worker_class"], config["bind"]) == (1, "gthread", "[::1]:8001")
    assert config["threads"] >= MAX_SOCKETS + 100
    assert config["worker_connections"] > config["threads"]


def test_every_socket_may_open_its_files() -> None:
    soft, hard, said = limits_of_the_web(256, None)

    assert soft == (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard))
    assert (said == "") is (soft == FILES)


def test_a_hard_limit_that_is_too_low_is_said() -> None:
    soft, hard, said = limits_of_the_web(256, 3_000)

    assert (soft, hard) == (3_000, 3_000)
    assert "only 3000 files may be open, which will do for some 333 live pages" in said


def limits_of_the_web(soft: int, hard: int | None) -> tuple[int, int, str]:
    """What the web makes of its limits (soft, hard) when it is started, and what it says."""
    source = f"""if True:
        import json, resource, runpy
        hard = {hard} or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, hard))
        runpy.run_path("web/gunicorn.py")["on_starting"](None)
        print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))
    """
    ended = run([sys.executable, "-c", source])
    soft, hard = json.loads(ended.stdout)
    return soft, hard, ended.stderr


def test_a_wrong_setting_ends_the_web_with_one_line() -> None:
    ended = run([str(BIN / "gunicorn"), "--config", "web/gunicorn.py", "app:create_app()"], PORT="x")

    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("error: PORT must be")


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """With settings of embedded mode and no secrets of a developer's."""
    secrets = {"SECRET_KEY": "x" * 40, "TOKEN_KEYS": Fernet.generate_key().decode()}
    environ = {**clean_environment(), **secrets, **environment}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def wait_for_web(system: Cluster) -> None:
    def ready() -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{system.web_url}/readyz", timeout=10).status_code == 200
        return False

    wait_until(ready, "the web is ready", 90)


def processes_of(checkout: Path, program: str) -> set[int]:
    """The ids of a program's processes: those of this checkout, and no other system's."""
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (directory / "cmdline").read_bytes().decode(errors="replace")
            if f"{checkout}/.venv/{PROGRAMS[program]}" in words:
                found.add(int(directory.name))
    return found
