"""The whole system against a simulated ESI: log pilots in, sync their killmails, compare, and serve.

Everything runs in processes of its own, on free ports, with a database of its own: a file under var/demo, or with
--services one that is made beside DATABASE_URL and taken away at the end. With ONCE=1, or when the output is no
terminal, it ends after the summary: 0 if the database equals the truth, 1 if anything is lost.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import command
import requests
from cryptography.fernet import Fernet
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import database
import settings
from models import Sync, User
from scripts import scratch, truth

DEMO = settings.VAR / "demo"
#: Three pilots, 520 killmails (some in two lists): eleven seconds at ESI's ceiling.
PILOTS, KILLMAILS = 3, 520
#: A burst of failures on the way: each of these details fails once with a 502 or a cut connection.
BURST = ({"route": "killmail", "kind": "status:502", "count": 4}, {"route": "killmail", "kind": "reset", "count": 12})
#: Seconds until the demo is given up: it needs about twenty.
PATIENCE_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Service:
    """A process and where its words go."""

    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def alone() -> Iterator[None]:
    """An empty directory for this demo. A second one at the same time would take the first one's database away."""
    settings.VAR.mkdir(mode=0o700, parents=True, exist_ok=True)
    with DEMO.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise command.Failure("another demo is running here; end it first") from None
        shutil.rmtree(DEMO, ignore_errors=True)
        DEMO.mkdir(mode=0o700)
        yield


@contextmanager
def simulator() -> Iterator[str]:
    """ESI and SSO in a process of their own; yields its address."""
    arguments = ["--pilots", str(PILOTS), "--killmails-count", str(KILLMAILS), "--latency-ms", "20-80"]
    with process("simulator", [sys.executable, "-m", "simulator", *arguments], os.environ) as service:
        yield wait_for_line(service, "listening on ")


@contextmanager
def system(environment: dict[str, str], services: bool) -> Iterator[str]:
    """Embedded: `python app.py` and nothing else. Services: web, workers and scheduler on RabbitMQ."""
    with ExitStack() as stack:
        if services:
            migrate = [sys.executable, "scripts/migrate.py"]
            subprocess.run(migrate, cwd=settings.ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            bin_directory = Path(sys.executable).parent
            workers = [str(bin_directory / "dramatiq"), "--processes", "2", "--threads", "8", "actors"]
            stack.enter_context(process("workers", workers, environment))
            stack.enter_context(process("scheduler", [str(bin_directory / "periodiq"), "actors"], environment))
        service = stack.enter_context(process("web", [sys.executable, "app.py"], environment))
        yield wait_for_line(service, "Listening on ")


def read_addresses(arguments: argparse.Namespace) -> settings.Settings:
    """Of the caller's settings, where the services are, and without --services not even that; the rest is the demo's.

    Raises SettingsError for a malformed address and command.Failure for one that is missing.
    """
    hidden = set(settings.NAMES) - ({"DATABASE_URL", "RABBITMQ_URL"} if arguments.services else set())
    config = settings.load(os.environ | dict.fromkeys(hidden, "") | own_secrets())
    if arguments.services and (config.rabbitmq_url is None or config.database_url.startswith("sqlite")):
        raise command.Failure("set DATABASE_URL (postgresql://…) and RABBITMQ_URL (amqp://…) for demo-services")
    return config


def own_secrets() -> dict[str, str]:
    """Keys for one run: nothing of the caller's is used."""
    return {"SECRET_KEY": secrets.token_urlsafe(48), "TOKEN_KEYS": Fernet.generate_key().decode()}


@contextmanager
def addresses(config: settings.Settings, console: Console) -> Iterator[tuple[str, str]]:
    """Where this demo's database is, and its broker ("" for none): nothing that production uses."""
    if config.rabbitmq_url is None:
        yield f"sqlite:///{DEMO}/killmails.db", ""
        return
    with (
        scratch.scratch_database(config.database_url) as database_url,
        scratch.scratch_broker(config.rabbitmq_url) as rabbitmq_url,
    ):
        names = [urlsplit(url).path.removeprefix("/") for url in (database_url, rabbitmq_url)]
        console.print(f"Until the demo ends: database {names[0]}, virtual host {names[1]}", markup=False)
        yield database_url, rabbitmq_url


def demo_environment(esi_url: str, database_url: str, rabbitmq_url: str) -> dict[str, str]:
    """The settings of the demo's processes, whatever the caller's environment and `.env` say."""
    environment = dict(os.environ) | dict.fromkeys(settings.NAMES, "") | own_secrets()
    port = free_port(settings.DEFAULT_PORT)
    return environment | {
        "DATABASE_URL": database_url,
        "RABBITMQ_URL": rabbitmq_url,
        "ESI_URL": esi_url,
        "SSO_URL": esi_url,
        "EVE_CLIENT_ID": "demo",
        "EVE_CLIENT_SECRET": "demo",
        "EVE_CALLBACK_URL": f"http://127.0.0.1:{port}/auth/callback",
        "PORT": str(port),
    }


def free_port(wanted: int) -> int:
    """`wanted` if nobody has it, else any that is free: a busy port is no error here."""
    for port in (wanted, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as listener:
                return int(listener.getsockname()[1])
        except OSError:
            continue
    raise command.Failure("no free port on 127.0.0.1")


@contextmanager
def process(name: str, arguments: list[str], environment: Mapping[str, str]) -> Iterator[Service]:
    """A child process, its output in a file of its name; asked to stop, and made to, when the context ends."""
    log = DEMO / f"{name}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(  # noqa: S603 - our own programs
            arguments, cwd=settings.ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Service(child, log)
    finally:
        child.terminate()
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for_line(service: Service, words: str) -> str:
    """What follows `words` in the service's output, once it stands there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = service.log.read_text()
        found = re.search(re.escape(words) + r"(\S+)\s", text)
        if found:
            return found[1]
        if service.process.poll() is not None:
            last_words = text.strip().rpartition("\n")[2].removeprefix("error: ") or "it said nothing"
            raise command.Failure(f"{service.log.stem} ended at once: {last_words} (all of it: {service.log})")
        time.sleep(0.05)
    raise command.Failure(f"{service.log.stem} did not start within a minute; see {service.log}")


def log_in(web_url: str, character_id: int) -> None:
    """Log one pilot in as a browser would: our /login, the SSO's page, and back."""
    with requests.Session() as browser:
        to_sso = browser.get(f"{web_url}/login", allow_redirects=False, timeout=30)
        back = browser.get(f"{to_sso.headers['Location']}&character_id={character_id}", timeout=30)
        if back.status_code != 200:
            raise command.Failure(f"the login of character {character_id} ended in {back.status_code}")


def characters(esi_url: str) -> dict[int, str]:
    """The demo's pilots: character id and name."""
    truth_of = requests.get(f"{esi_url}/_simulator/truth", timeout=30).json()["characters"]
    return {int(character_id): character["name"] for character_id, character in truth_of.items()}


def watch(console: Console, expected: int) -> None:
    """A bar from the first login to the last sync's end, and a line for each sync's change of state."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("killmails", total=expected)
        while time.monotonic() < deadline:
            with database.db.connection_context():
                stored = database.execute("SELECT COUNT(*) FROM killmails").fetchone()[0]
                active = database.execute("SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL").fetchone()[0]
                waiting = database.execute("SELECT COUNT(*) FROM ledger").fetchone()[0]
            progress.update(bar, completed=stored, description=f"{active} syncs, {waiting} killmails to fetch")
            if not active and not waiting:
                progress.update(bar, description="done")
                return
            time.sleep(0.25)
    console.print(f"[red]Gave up after {PATIENCE_SECONDS} s.[/] The processes' output is in {DEMO}/")


def summarize(console: Console, names: dict[int, str], esi_url: str, seconds: float) -> bool:
    """Say what happened, and whether the database equals the truth."""
    stats = requests.get(f"{esi_url}/_simulator/stats", timeout=30).json()
    with database.db.connection_context():
        wrong = truth.differences(esi_url, set(names))
        for user in User.select().order_by(User.character_name):
            sync = Sync.select().where(Sync.user == user).order_by(Sync.id.desc()).get()
            console.print(
                f"  {user.character_name}: {sync.state.lower()}, {sync.found} found, {sync.saved} new, "
                f"{sync.skipped} known, {sync.failed} failed",
                markup=False,
            )
        stored = database.execute("SELECT COUNT(*) FROM killmails").fetchone()[0]
    console.print(
        f"{stored} killmails in {seconds:.0f} s; ESI saw at most {stats['max_in_one_second']} requests in any second"
    )
    for line in wrong:
        console.print(f"  {line}", markup=False)
    verdict = "[bold red]The database differs from the truth.[/]" if wrong else "[bold green]Nothing lost.[/]"
    console.print(verdict + " Compared with the simulator: every killmail, every field, every list.")
    return not wrong


@contextmanager
def connected(database_url: str) -> Iterator[None]:
    """The demo's database, to look into; no connection is left when it is taken away."""
    pool: Any = database.connect(database_url)
    try:
        yield
    finally:
        pool.close_all()


def main(arguments: argparse.Namespace, config: settings.Settings) -> None:
    """Run the demo to its end, or until Ctrl-C. Raises command.Failure."""
    console = Console(highlight=False, soft_wrap=True)
    once = os.environ.get("ONCE") == "1" or not sys.stdout.isatty()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of every `finally`: no process stays behind
    with ExitStack() as stack:
        stack.enter_context(alone())
        database_url, rabbitmq_url = stack.enter_context(addresses(config, console))
        esi_url = stack.enter_context(simulator())
        environment = demo_environment(esi_url, database_url, rabbitmq_url)
        stack.enter_context(connected(database_url))
        web_url = stack.enter_context(system(environment, arguments.services))
        console.print(f"Simulated ESI and SSO: {esi_url}\nThe system: {web_url} (its output: {DEMO}/web.log)")
        names = characters(esi_url)
        for fault in BURST:
            requests.post(f"{esi_url}/_simulator/faults", json=fault, timeout=10).raise_for_status()
        started = time.monotonic()
        for character_id, name in names.items():
            log_in(web_url, character_id)
            console.print(f"Logged in: {name}", markup=False)
        watch(console, KILLMAILS)
        whole = summarize(console, names, esi_url, time.monotonic() - started)
        if whole and not once:
            console.print(f"\nThe dashboard: [bold]{web_url}[/] (log in as any of them). Ctrl-C ends the demo.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    if not whole:
        raise command.Failure("the demo's database differs from the simulator's truth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", action="store_true", help="on DATABASE_URL and RABBITMQ_URL, with real processes")
    command.run(parser, main, read_addresses)
