"""`python app.py` and `app:create_app()` as processes: what is wrong is said in one line before anything starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT

#: Seconds a process gets to start and stop.
PATIENCE = 30


def run(tmp_path: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A process that has to end by itself. An empty value counts as not set, and hides a `.env` file's."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("EVE_", "RABBITMQ", "SSO", "ESI"))
    }
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'killmails.db'}",
        "EVE_CLIENT_ID": "id",
        "EVE_CLIENT_SECRET": "secret",
        "SECRET_KEY": "not-a-secret-" * 4,
        "TOKEN_KEYS": "A" * 43 + "=",
        "PORT": "0",
    }
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**clean, **settings, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.skipif((ROOT / ".env").exists(), reason="the repository's .env decides what is missing")
def test_a_missing_application_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "app.py", EVE_CLIENT_ID="")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "EVE_CLIENT_ID" in ended.stderr


def test_a_malformed_setting_is_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "app.py", PORT="eighty")
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "PORT" in ended.stderr


def test_a_busy_port_is_told_and_nothing_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = run(tmp_path, "app.py", PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "PORT" in ended.stderr


@pytest.mark.parametrize("host", ["198.51.100.7", "no.such.host.invalid"])
def test_a_host_that_is_not_here_is_told_by_its_setting(tmp_path: Path, host: str) -> None:
    ended = run(tmp_path, "app.py", HOST=host)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "set HOST" in ended.stderr
    assert "PORT" not in ended.stderr


def test_another_server_may_not_embed(tmp_path: Path) -> None:
    """Under gunicorn every worker process would be a whole system."""
    ended = run(tmp_path, "-c", "import app; app.create_app()", RABBITMQ_URL="")
    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert "RABBITMQ_URL" in ended.stderr
