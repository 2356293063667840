"""The limiters on a table of moments: no clock, no network."""

import pytest

from simulator.rules import ErrorLimit, FloatingWindow, Limit, cost_of


@pytest.mark.parametrize(
    ("text", "tokens", "seconds"),
    [("3600/15m", 3600, 900), ("30/20s", 30, 20), ("1/2h", 1, 7200), ("5/0.5s", 5, 0.5)],
)
def test_an_advertised_limit_is_read(text, tokens, seconds):
    """esi/README.md §2.3: units m or h; the simulator reads seconds too."""
    assert Limit.parse(text) == Limit(tokens, seconds, text)


@pytest.mark.parametrize("text", ["", "30", "30/15", "30/15d", "x/15m", "30/0m", "-3/1m"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(ValueError, match="not a limit"):
        Limit.parse(text)


@pytest.mark.parametrize(
    ("status", "cost"),
    [(200, 2), (204, 2), (304, 1), (302, 1), (400, 5), (403, 5), (422, 5), (429, 0), (420, 0), (500, 0), (504, 0)],
)
def test_what_an_answer_costs(status, cost):
    """esi/README.md §2.1: 2xx 2, 3xx 1, 4xx 5, 5xx and 429 nothing."""
    assert cost_of(status) == cost


def test_each_cost_returns_one_window_after_it_was_spent():
    """esi/README.md §2.1: a floating window, not a fixed one."""
    limit, window = Limit.parse("4/10s"), FloatingWindow()

    assert window.spend(2, limit, 100.0)
    assert window.spend(2, limit, 106.0)
    assert not window.spend(1, limit, 109.9)
    assert window.remaining(limit, 110.0) == 2
    assert window.spend(2, limit, 110.0)
    assert not window.spend(1, limit, 115.9)
    assert window.total == 6


def test_retry_after_is_when_enough_is_back_for_the_request():
    """esi/README.md §2.3."""
    limit, window = Limit.parse("6/10s"), FloatingWindow()
    for at in (100.0, 102.0, 104.5):
        window.spend(2, limit, at)

    assert window.retry_after(2, limit, 105.0) == 5
    assert window.retry_after(4, limit, 105.0) == 7
    assert window.retry_after(5, limit, 105.0) == 10
    assert window.spend(2, limit, 110.0)


def test_a_refusal_spends_nothing():
    """esi/README.md §2.1."""
    limit, window = Limit.parse("3/10s"), FloatingWindow()
    window.spend(2, limit, 0.0)

    assert not window.spend(2, limit, 1.0)
    assert window.spend(1, limit, 1.0)


def test_a_lowered_limit_leaves_nothing():
    window = FloatingWindow()
    window.spend(20, Limit.parse("30/15m"), 0.0)

    assert window.remaining(Limit.parse("10/15m"), 1.0) == 0


def test_the_error_window_is_fixed_and_opens_anew():
    """esi/README.md §2.5: a fixed window, after whose end everything is forgiven at once."""
    limit, errors = Limit.parse("2/60s"), ErrorLimit()

    errors.note_error(limit, 100.0)
    errors.note_error(limit, 159.0)
    assert errors.remaining(limit, 159.5) == 0
    assert errors.reset_in(limit, 159.5) == 1
    assert errors.remaining(limit, 160.0) == 2
