"""Leave for one request to ESI: first the connection, then the slot, so that the request arrives when its slot is.

Who may go is left to `esi/limiter.py`, opening connections to `esi/transport.py`.
"""

from __future__ import annotations

import runtime
from esi.errors import EsiTransport
from esi.limiter import Closed, RequestPermit
from esi.rate_limit import Doubt, RateGroup


def permit_for(
    group: RateGroup,
    owner: str,
    *,
    background: bool,
    failed_before: bool = False,
    conditional: bool = False,
    subject: int | None = None,
    doubt: Doubt = Doubt.NONE,
) -> RequestPermit:
    """A permit for a request that is to be made at once, by a connection of this thread that is open.

    `failed_before`, `conditional`, `subject`, `doubt`: see `Limiter.acquire`.

    Raises Closed, and EsiTransport where ESI cannot be reached: then nothing is spent, neither slot nor tokens. A few
    in a row close the road, and where it is closed it is Closed: what is not there in a downtime is nobody's failure.
    """
    try:
        runtime.esi().connect()
    except EsiTransport as error:
        runtime.limiter().unreachable()
        road = runtime.limiter().allowance(group, owner, background=background)
        if road.reopens_at is not None:
            raise Closed(road.reopens_at, road.reason or "", group.name) from error
        raise
    return runtime.limiter().acquire(
        group,
        owner,
        background=background,
        failed_before=failed_before,
        conditional=conditional,
        subject=subject,
        doubt=doubt,
    )
