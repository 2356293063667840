"""`refresh_names`: asks again what characters, corporations and alliances are called, once an hour at most.

It needs no argument: `stale_names.py` says what is asked for. A run that is refused or fails changes nothing; the next
turn asks for the same.
"""

from __future__ import annotations

import logging

import dramatiq

import runtime
import stale_names
from actors.expired import NAMES_MAX_AGE
from actors.queues import LAST, NAMES
from actors.road import Road
from esi.errors import EsiError
from events import NamesResolved, publish

logger = logging.getLogger(__name__)

#: Refusals of a batch for ids that ESI no longer knows, a run: each of them counts towards ESI's error limit. Enough to
#: find one id among 1,000, or that one would keep the others from being asked for.
MAX_NOT_FOUND = 15


@dramatiq.actor(
    queue_name=NAMES,
    priority=LAST,
    max_retries=0,  # the next turn asks for the same
    time_limit=10 * 60_000,  # a batch that is halved down to its bad ids, at ESI's slowest
    max_age=NAMES_MAX_AGE,
)
def refresh_names() -> None:
    """Ask for one batch of names that may have changed."""
    batch = stale_names.batch()
    if not batch.ids:
        return
    try:
        found = runtime.esi().names(batch.ids, Road().acquire, MAX_NOT_FOUND)
    except EsiError as error:
        logger.info("%s names were not asked for again: %s; the next turn is in an hour", len(batch.ids), error)
        return
    if not found.names and not found.unknown:
        return
    if stale_names.save(batch, {name.id: name.name for name in found.names}, found.unknown):
        publish(NamesResolved())
    logger.info("asked again for %s names: %s answered", len(batch.ids), len(found.names))
