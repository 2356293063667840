"""Real processes for tests: started with settings of their own, their output kept, and ended when the test is."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import settings

BIN = Path(sys.executable).parent
ROOT = settings.ROOT


class GaveUpWaitingError(AssertionError):
    """What a test waited for did not come in time."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0, pause: float = 0.1) -> object:
    """Ask until the answer is true; returns it. Raises GaveUpWaitingError."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise GaveUpWaitingError(f"{what}: not within {seconds:.0f} s; last answer {answer!r}")
        time.sleep(pause)


@dataclass
class Process:
    """One child in a process group of its own, so that a kill reaches what it started."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        def look() -> re.Match[str] | None:
            ended = self.child.poll()
            found = re.search(pattern, self.output())  # after the look whether it has ended: nothing is missed
            if found is None and ended is not None:
                raise AssertionError(f"{self.name} ended with {ended}:\n{self.output()}")
            return found

        found = wait_until(look, f"{self.name} prints {pattern!r}", seconds)
        assert isinstance(found, re.Match)
        return found

    def send_signal(self, number: int) -> None:
        os.killpg(self.child.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group: nothing gets a chance to clean up."""
        if self.child.poll() is None:
            self.send_signal(signal.SIGKILL)
        self.child.wait(timeout=10)

    def stop(self) -> int:
        """SIGTERM to the process alone, as an operator would; returns its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(timeout=40)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.child.returncode


@dataclass
class Processes:
    """Starts children with one environment, and ends them all."""

    directory: Path
    environment: Mapping[str, str]
    running: list[Process] = field(default_factory=list)

    def start(self, name: str, arguments: list[str], **extra: str) -> Process:
        log = self.directory / f"{name}-{len(self.running)}.log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                arguments,
                cwd=ROOT,
                env={**clean_environment(), **self.environment, **extra},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = Process(name, child, log)
        self.running.append(process)
        return process

    def run(self, arguments: list[str], **extra: str) -> subprocess.CompletedProcess[str]:
        """Run to the end and return exit code and output."""
        return subprocess.run(
            arguments,
            cwd=ROOT,
            env={**clean_environment(), **self.environment, **extra},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def end_all(self) -> None:
        for process in reversed(self.running):
            if process.child.poll() is None:
                process.child.terminate()
        for process in reversed(self.running):
            process.stop()


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives to outgoing connections.

    It has to be free again after a restart; one of theirs might be taken by then.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def clean_environment() -> dict[str, str]:
    """The machine's environment with every setting of ours switched off: a developer's `.env` stays out of tests."""
    return {**os.environ, **dict.fromkeys(settings.NAMES, "")}
