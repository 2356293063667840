"""What the log says of roads that close and open."""

from __future__ import annotations

import logging

import pytest

from esi.roads import DOWNTIME, ERROR_LIMIT, RoadLog, probe_pause

NOW = 1_760_000_000.0


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="esi.roads")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_gate_that_opens_by_itself_is_told_with_the_next_request(lines):
    # Given a gate closed for five seconds
    log = RoadLog()
    log.closed(ERROR_LIMIT, NOW, NOW + 5, "too many errors")
    assert lines() == ["error-limit: closed until 08:53:25 UTC: too many errors"]
    # When requests go before and after that
    log.passed(NOW + 4)
    assert len(lines()) == 1
    log.passed(NOW + 5)
    log.passed(NOW + 6)
    # Then it is told once
    assert lines()[1:] == ["error-limit: open again"]


@pytest.mark.parametrize("road", [DOWNTIME, "killmail:ip"])
def test_a_road_that_opens_with_a_success_is_not_told_before(lines, road):
    log = RoadLog()
    log.closed(road, NOW, NOW + 5, "reason")
    log.passed(NOW + 6)
    assert len(lines()) == 1
    log.opened(road)
    assert lines()[1:] == [f"{road}: open again"]


def test_closed_again_while_closed_is_no_news_and_later_it_is(lines):
    log = RoadLog()
    log.closed(DOWNTIME, NOW, NOW + 15, "ESI is down")
    log.closed(DOWNTIME, NOW + 16, NOW + 46, "ESI is down")
    assert len(lines()) == 1
    log.closed(DOWNTIME, NOW + 3600, NOW + 3615, "ESI is down")
    assert len(lines()) == 2


@pytest.mark.parametrize(("failures", "seconds"), [(5, 15), (6, 30), (7, 60), (8, 60), (10**6, 60)])
def test_probes_are_further_apart_each_time_up_to_a_minute(failures, seconds):
    assert probe_pause(failures) == seconds
