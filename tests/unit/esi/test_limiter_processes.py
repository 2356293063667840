"""The ceiling, over processes and threads: the product's promise is a hard 50 in any one second."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import database
from esi.limiter import Closed, Limiter
from esi.rate_limit import UNBUCKETED

RATE = 50
PROCESSES, THREADS = 2, 8
SECONDS = 4.0
#: Seconds a request takes, at least and at most.
WORK = (0.04, 0.12)


def test_no_second_holds_more_than_the_ceiling(any_db_url):
    # Given two processes of eight threads, each of which asks as fast as it is let
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        times = sorted(at for part in pool.map(_ask, [any_db_url] * PROCESSES) for at in part)
    # Then, by the time each request left, no window of one second holds more than 50
    span = times[-1] - times[0]
    print(f"{len(times)} requests, {(len(times) - 1) / span:.2f}/s, at most {most_in_one_second(times)} in one second")
    assert most_in_one_second(times) <= RATE
    # And slots were not merely refused
    assert len(times) > RATE * SECONDS / 2


def test_slots_keep_their_distance_whoever_takes_them(any_db):
    # Given a ceiling of 200/s, and one thread that never works
    limiter = Limiter(200)
    slots = [limiter.acquire(UNBUCKETED, "ip", background=False).slot_at for _ in range(50)]
    # Then slots are 5.2 ms apart, or more
    assert min(later - earlier for earlier, later in pairwise(slots)) > 0.00519


def most_in_one_second(times: Sequence[float]) -> int:
    """The fullest window of one second, its end not included; `times` sorted."""
    first, most = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def _ask(url: str) -> list[float]:
    """What one process does: all its threads, until the time is over. Returns when each request left."""
    database.connect(url)
    limiter = Limiter(RATE)
    times: list[float] = []
    until = time.monotonic() + SECONDS

    def work(seed: int) -> None:
        rng = random.Random(seed)
        with database.db.connection_context():
            while time.monotonic() < until:
                try:
                    permit = limiter.acquire(UNBUCKETED, "ip", background=False)
                except Closed:
                    continue
                times.append(time.time())
                time.sleep(rng.uniform(*WORK))
                permit.answered(200, {})

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.db.close_all()
    return times
