"""Real killmails, and the edge cases of our own, through the whole pipeline, compared with the database by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from settings import ROOT
from tests.acceptance.cluster import cluster
from tests.conftest import REAL_KILLMAILS as REAL

#: What is rare or absent among the real ones: one body for each way in which a killmail can be odd.
ODD = ROOT / "tests" / "fixtures" / "killmails"


def test_odd_killmails_arrive_as_they_are(tmp_path: Path) -> None:
    arrive_as_they_are(ODD, tmp_path)


@pytest.mark.real_killmails
def test_real_killmails_arrive_as_they_are(tmp_path: Path) -> None:
    arrive_as_they_are(REAL, tmp_path)


def arrive_as_they_are(folder: Path, directory: Path) -> None:
    arguments = ("--killmails", str(folder), "--limit", "char-killmail=1000/1m")
    with cluster(directory, f"sqlite:///{directory}/killmails.db", "", *arguments) as system:
        system.start_web()
        for character_id in system.simulated.truth():
            system.browser().log_in(character_id)

        system.wait_for_syncs()

        assert system.differences() == []
        assert system.scalar("SELECT COUNT(*) FROM killmails") == len(list(folder.glob("*.json")))
