"""Where CI=true promises that everything was run, a skip is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT

BY_CALL = "def test_it():\n    pytest.skip('no service')\n"
BY_MARK = "@pytest.mark.skipif(True, reason='no service')\ndef test_it():\n    pass\n"
BY_FIXTURE = "@pytest.fixture\ndef it():\n    pytest.skip('no service')\n\ndef test_it(it):\n    pass\n"
WHOLE_MODULE = "pytest.skip('no service', allow_module_level=True)\n"
EXPECTED = "@pytest.mark.xfail\ndef test_it():\n    assert False\n"
#: Markers that may be skipped, above one that is.
EXCUSED = [f"@pytest.mark.{marker}\n{BY_MARK}" for marker in ("real_killmails", "screenshots")]


def run(tmp_path: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    """A test file outside the repository, run under its rules."""
    test = tmp_path / "test_it.py"
    test.write_text(f"import pytest\n\n{source}")
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options, str(test)],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("source", [BY_CALL, BY_MARK, BY_FIXTURE, WHOLE_MODULE])
def test_a_skip_is_a_failure_in_ci_and_says_what_was_missing(tmp_path: Path, source: str) -> None:
    ended = run(tmp_path, source, ci="true")
    assert ended.returncode != 0
    assert "CI=true allows no skip. " in ended.stdout
    assert "no service" in ended.stdout


@pytest.mark.parametrize("source", [*EXCUSED, EXPECTED])
def test_what_no_checkout_holds_may_be_skipped_there(tmp_path: Path, source: str) -> None:
    assert run(tmp_path, source, ci="true").returncode == 0


def test_a_laptop_skips(tmp_path: Path) -> None:
    ended = run(tmp_path, BY_CALL, ci="")
    assert ended.returncode == 0
    assert "1 skipped" in ended.stdout
