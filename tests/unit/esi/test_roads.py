"""What the log says of roads that close and open."""

from __future__ import annotations

import logging
import timeit

import pytest

from esi.roads import DOWNTIME, ERROR_LIMIT, STILL_CLOSED_SECONDS, ClosingLog, probe_pause

NOW = 1_760_000_000.0


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="esi.roads")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_gate_that_opens_by_itself_is_told_with_the_next_request(lines):
    # Given a gate closed for five seconds
    log = ClosingLog()
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
    log = ClosingLog()
    log.closed(road, NOW, NOW + 5, "reason")
    log.passed(NOW + 6)
    assert len(lines()) == 1
    log.opened(road)
    assert lines()[1:] == [f"{road}: open again"]


def test_closed_again_while_closed_is_no_news_and_later_it_is(lines):
    log = ClosingLog()
    log.closed(DOWNTIME, NOW, NOW + 15, "ESI is down")
    log.closed(DOWNTIME, NOW + 16, NOW + 46, "ESI is down")
    assert len(lines()) == 1
    log.closed(DOWNTIME, NOW + 3600, NOW + 3615, "ESI is down")
    assert len(lines()) == 2


@pytest.mark.parametrize(("failures", "seconds"), [(5, 15), (6, 30), (7, 60), (8, 60), (10**6, 60)])
def test_probes_are_further_apart_each_time_up_to_a_minute(failures, seconds):
    assert probe_pause(failures) == seconds


def test_closings_that_another_process_saw_end_are_forgotten_and_told_again(lines):
    # Given 1,500 pilots' buckets that were closed here and opened elsewhere
    log = ClosingLog()
    for owner in range(1500):
        log.closed(f"char-killmail:{owner}", NOW, NOW + 30, "reason")
    # When requests go on for a while after that
    for request in range(1500):
        log.passed(NOW + 30 + STILL_CLOSED_SECONDS + request)
    # Then nothing is kept of them, and no line says that they are open
    assert log.kept() == 0
    assert len(lines()) == 1500
    # And one that is closed later is news
    log.closed("char-killmail:7", NOW + 3600, NOW + 3630, "reason")
    assert len(lines()) == 1501


def test_a_permit_costs_the_same_however_many_buckets_are_closed():
    def seconds(closed: int) -> float:
        log = ClosingLog()
        for owner in range(closed):
            log.closed(f"char-killmail:{owner}", NOW, NOW + 3600, "reason")
        return min(timeit.repeat(lambda: log.passed(NOW + 1), number=200, repeat=5))

    logging.getLogger("esi.roads").setLevel(logging.ERROR)
    try:
        assert seconds(30_000) < 20 * max(seconds(10), 1e-5)
    finally:
        logging.getLogger("esi.roads").setLevel(logging.NOTSET)


def test_closed_for_longer_is_open_only_when_the_longer_time_has_passed(lines):
    log = ClosingLog()
    log.closed(ERROR_LIMIT, NOW, NOW + 5, "reason")
    log.closed(ERROR_LIMIT, NOW + 1, NOW + 60, "reason")
    log.passed(NOW + 6)
    assert len(lines()) == 1
    log.passed(NOW + 60)
    assert lines()[1:] == ["error-limit: open again"]


def test_two_closings_that_are_over_at_once_are_told_once(lines):
    log = ClosingLog()
    log.closed(ERROR_LIMIT, NOW, NOW + 5, "reason")
    log.closed(ERROR_LIMIT, NOW + 1, NOW + 60, "reason")
    log.passed(NOW + 61)
    assert lines()[1:] == ["error-limit: open again"]
