"""439 real killmails through the whole pipeline, compared with the database field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.cluster import cluster
from tests.conftest import REAL_KILLMAILS as REAL


@pytest.mark.real_killmails
def test_real_killmails_arrive_as_they_are(tmp_path: Path) -> None:
    arguments = ("--killmails", str(REAL), "--limit", "char-killmail=1000/1m")
    with cluster(tmp_path, f"sqlite:///{tmp_path}/killmails.db", "", *arguments) as system:
        system.start_web()
        for character_id in system.simulated.truth():
            system.browser().log_in(character_id)

        system.wait_for_syncs()

        assert system.differences() == []
        assert system.scalar("SELECT COUNT(*) FROM killmails") == len(list(REAL.glob("*.json")))
