"""PostgreSQL and RabbitMQ servers of a test's own, to be stopped, killed and started again while a system uses them.

They listen on free ports of 127.0.0.1 and keep everything below one directory. As root they run as the users that
Debian's packages made for them: both refuse to run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pika
import pika.exceptions
import psycopg2
import pytest

from tests.acceptance.processes import free_port, wait_until
from tests.postgres import missing

RABBITMQ_BIN = Path("/usr/lib/rabbitmq/bin")


def as_user(name: str) -> list[str]:
    """What to put in front of a command so that it does not run as root."""
    return ["runuser", "-u", name, "--"] if os.geteuid() == 0 else []


@contextmanager
def servers_directory() -> Iterator[Path]:
    """A directory that other users may enter: pytest's own are closed to all but the one who runs it."""
    with TemporaryDirectory(prefix="killmails-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        yield directory


def hand_over(directory: Path, name: str) -> None:
    """Make a directory and give it to the server's user."""
    directory.mkdir()
    if os.geteuid() == 0:
        account = pwd.getpwnam(name)
        os.chown(directory, account.pw_uid, account.pw_gid)


@dataclass
class PrivatePostgres:
    """One cluster, trusting everybody on its port."""

    directory: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            missing("no PostgreSQL server is installed; on Debian: apt install postgresql")
        self._bin = found[-1].parent
        hand_over(self.directory, "postgres")
        self._run("initdb", "-D", str(self._data), "-A", "trust", "-U", "postgres", "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200"
        self._run("pg_ctl", "-D", str(self._data), "-w", "-l", str(self.directory / "log"), "-o", options, "start")
        wait_until(self._answers, "PostgreSQL answers", 30)

    def stop(self, mode: str = "fast") -> None:
        """`fast` ends every session, `immediate` is a crash: the log is replayed at the next start."""
        self._run("pg_ctl", "-D", str(self._data), "-m", mode, "-w", "stop")

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _answers(self) -> bool:
        try:
            psycopg2.connect(self.url, connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        command = [*as_user("postgres"), str(self._bin / program), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=90, check=False)
        if done.returncode:
            pytest.fail(f"{program} failed: {done.stdout[-500:]} {done.stderr[-500:]}")


@dataclass
class PrivateRabbitmq:
    """One node with a name of its own."""

    directory: Path
    port: int = field(default_factory=free_port)
    _child: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        if not (RABBITMQ_BIN / "rabbitmq-server").exists() and shutil.which("rabbitmq-server") is None:
            missing("no RabbitMQ server is installed; on Debian: apt install rabbitmq-server")
        hand_over(self.directory, "rabbitmq")
        self._distribution_port = free_port()
        (self.directory / "enabled_plugins").write_text("[].")
        (self.directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        home = str(self.directory)
        settings = {
            "HOME": home,
            "RABBITMQ_NODENAME": f"chaos{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_MNESIA_BASE": f"{home}/mnesia",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        environment = [f"{name}={value}" for name, value in settings.items()]
        with (self.directory / "output").open("ab") as output:
            self._child = subprocess.Popen(
                [*as_user("rabbitmq"), "env", *environment, str(RABBITMQ_BIN / "rabbitmq-server")],
                cwd="/",
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers, "RabbitMQ answers", 60)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """SIGTERM is an orderly stop; SIGKILL loses what was not confirmed."""
        if self._child is not None and self._child.poll() is None:
            os.killpg(self._child.pid, number)
            self._child.wait(timeout=60)
        wait_until(lambda: not self._listens(), "RabbitMQ is gone", 30)

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def purge(self, *queues: str) -> int:
        """Drop what is ready in these queues; returns how many messages that was."""
        dropped = 0
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            for queue in queues:
                dropped += connection.channel().queue_purge(queue).method.message_count
        finally:
            connection.close()
        return dropped

    def depth(self, queue: str) -> int:
        """How many messages of this queue are ready, and with nobody yet."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)
        finally:
            connection.close()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _answers(self) -> bool:
        try:
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
        except (pika.exceptions.AMQPError, OSError):
            return False
        return True
