"""Whether the SSO may be asked for tokens now: one row of `gates` for every process, as for the roads to ESI.

An SSO that hangs holds a thread for as long as a timeout lasts; if everybody found that out for themselves, no thread
would be left for what needs no SSO. The invariants: after a failure nobody asks until the pause is over; then one asks,
for all; its failure makes the pause longer, its success opens the road. A login's code is exchanged whatever this says:
it cannot wait. What counts as a failure, and what the pilot is told, is left to `tokens/`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from esi import rate_store
from esi.rate_limit import back_off

logger = logging.getLogger(__name__)

#: The row's name.
ROAD = "login service"
#: Seconds the road is closed after the first failure, and at most after many in a row. The SSO's restart takes minutes.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 300.0
#: Seconds the others wait for the one who tries, should it not come back: two timeouts of the SSO's client, as the
#: endpoints are asked for again after a failure.
PROBE_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Passage:
    """Leave to ask the SSO. `probe`: for all the others, whether it answers again."""

    probe: bool


class SsoClosed(Exception):
    """The SSO is not asked now. `reason`: what was wrong with it, for the pilot. `wait`: seconds until it may be."""

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


def enter() -> Passage:
    """Leave to ask; tell `answered` or `failed` how it went. Raises SsoClosed."""
    now, gate = rate_store.read_gate(ROAD)
    if gate.failures == 0:
        return Passage(probe=False)
    if gate.closed_until > now:
        raise SsoClosed(gate.reason, gate.closed_until - now)
    if not rate_store.take_probe(ROAD, now, now + PROBE_SECONDS):
        raise SsoClosed(gate.reason, PROBE_SECONDS)
    return Passage(probe=True)


def closure() -> SsoClosed | None:
    """What `enter` would raise, for whoever asks nothing: None where the road is open."""
    now, gate = rate_store.read_gate(ROAD)
    return SsoClosed(gate.reason, gate.closed_until - now) if gate.failures and gate.closed_until > now else None


def answered(passage: Passage) -> None:
    """The SSO answered, whatever it said: its failures so far are forgotten."""
    if passage.probe and rate_store.forget_failures(ROAD):
        logger.info("%s: open again", ROAD)


def failed(passage: Passage, reason: str, retry_after: float | None) -> SsoClosed:
    """Close the road for as long as the SSO asks, else for a pause that grows; returns what the others will hear.

    Who asked before the road was closed, and fails after it was, changes nothing: it is the same failure.
    """
    now, gate = rate_store.read_gate(ROAD)
    if not passage.probe and gate.failures and gate.closed_until > now:
        return SsoClosed(gate.reason, gate.closed_until - now)
    pause = retry_after or back_off(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, gate.failures)
    if passage.probe:
        rate_store.keep_closed(ROAD, now + pause, reason)
    elif rate_store.close_gate(ROAD, now, now + pause, reason):
        logger.warning("%s: closed for %.0f s: %s", ROAD, pause, reason)
    return SsoClosed(reason, pause)
