"""How many files the web may have open: a usual limit is 1,024, and every socket takes three."""

from __future__ import annotations

import logging
import resource

from api.hub import MAX_SOCKETS

log = logging.getLogger(__name__)

#: Three for each socket, and room for requests and the database's connections.
FILES = 3 * MAX_SOCKETS + 2_000


def allow() -> None:
    """Raise this process's own limit to FILES, or as far as the system lets it, which is then said."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    if wanted < FILES:
        log.warning(
            "only %s files may be open, which will do for some %s live pages; raise the hard limit (ulimit -Hn) to %s",
            wanted, max(0, wanted - FILES + 3 * MAX_SOCKETS) // 3, FILES,
        )  # fmt: skip
