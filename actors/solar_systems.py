"""The security status of solar systems, as part of `resolve_names`: one request each, a few a run.

What is wanted, and for whom, is left to `solar_systems.py`.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import runtime
import solar_systems
from actors.road import Road
from database import utcnow
from esi.errors import EsiError, EsiNotFound
from events import NamesResolved, publish

logger = logging.getLogger(__name__)

#: Systems asked for in a run: a worker's thread is back within seconds.
MOST = 20
#: A system that ESI names and does not know otherwise: a 404 of a maintenance is seldom longer.
UNKNOWN_RETRY = timedelta(days=1)
#: Any other failure, an answer that we cannot use among them.
FAILED_RETRY = timedelta(minutes=15)


def resolve_systems(road: Road) -> bool:
    """Ask for up to MOST of those that are wanted; whether it were so many, so that more may be wanted.

    The first that fails ends the run and has all others wait with it: failing one by one would use up ESI's error
    limit, which every other route depends on.
    """
    found = 0
    while found < MOST:
        system_id = solar_systems.claim()
        if system_id is None or not _resolve(system_id, road):
            break
        found += 1
    if road.reopens_at is not None:
        solar_systems.put_off_all(road.reopens_at)
    if found:
        publish(NamesResolved())
    return found == MOST


def _resolve(system_id: int, road: Road) -> bool:
    permit = road.acquire()
    if permit is None:
        solar_systems.put_off(system_id, road.reopens_at or utcnow())
        return False
    try:
        status = runtime.esi().security_status(system_id, permit)
    except EsiError as error:
        road.fail(error)
        wait = UNKNOWN_RETRY if isinstance(error, EsiNotFound) else FAILED_RETRY
        solar_systems.put_off(system_id, utcnow() + wait)
        return False
    solar_systems.save(system_id, status)
    return True
