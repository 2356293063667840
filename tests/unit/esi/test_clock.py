"""The database's clock on a table of observations."""

from __future__ import annotations

import time

from esi.clock import DatabaseClock


def test_before_anything_is_known_it_is_this_machines():
    assert abs(DatabaseClock().now() - time.time()) < 1


def test_the_quickest_statement_decides():
    # Given a statement that told the time within a millisecond, an hour ahead of this machine
    clock, now = DatabaseClock(), time.monotonic()
    clock.observe(now, time.time() + 3600, now + 0.001)
    # When another, which hung for five seconds, seems to tell another time
    clock.observe(now, time.time() + 3600, now + 5)
    # Then that is not believed
    assert abs(clock.now() - time.time() - 3600) < 1


def test_a_clock_that_was_set_is_followed():
    clock, now = DatabaseClock(), time.monotonic()
    clock.observe(now - 20, time.time() + 3600, now - 20)
    clock.observe(now - 0.1, time.time(), now)
    assert abs(clock.now() - time.time()) < 1
