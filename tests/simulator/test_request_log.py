"""The log's arithmetic on given arrivals."""

from typing import Any

import pytest

from simulator.request_log import Note, RequestLog, most_in_one_second


@pytest.mark.parametrize(
    ("arrivals", "most"),
    [
        ([], 0),
        ([5.0], 1),
        ([0.0, 0.5, 0.999], 3),
        ([0.0, 0.5, 1.0], 2),
        ([0.75, 0.875, 1.0, 1.5, 1.75, 1.875, 2.25], 4),
        ([n / 64 for n in range(500)], 64),
    ],
)
def test_the_fullest_second_slides(arrivals, most):
    assert most_in_one_second(arrivals) == most


def _add(log: RequestLog, at: float, route: str = "killmail", **more: Any) -> None:
    log.add(Note(route, **more), at=at, path="/", status=200, conditional=False)


def test_rates_are_of_esi_requests_in_order_of_arrival():
    log = RequestLog()
    for at in (12.0, 10.0, 11.0):
        _add(log, at)
    _add(log, 99.0, "token")

    statistics = log.statistics(0)

    assert statistics["mean_rate"] == 1.0
    assert (statistics["requests"], statistics["esi_requests"]) == (4, 3)


def test_a_spoiled_answer_is_no_detail():
    log = RequestLog()
    _add(log, 1.0, killmail_id=7, fault="truncated")
    _add(log, 2.0, killmail_id=7)

    assert log.statistics(0)["repeated_details"] == 0
    assert log.statistics(0)["details_ok_by_killmail_max"] == 1


def test_since_goes_by_number():
    log = RequestLog()
    for at in range(5):
        _add(log, float(at))
    assert [entry.seq for entry in log.since(3)] == [4, 5]
    assert [entry.seq for entry in log.since(0)] == [1, 2, 3, 4, 5]
    assert list(log.since(9)) == []
