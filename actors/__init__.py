"""The actors: a few lines each, calling the ledger and the clients.

The broker comes first, so that whichever actor module is imported first still gets ours; then every actor module, so
that `dramatiq actors` and `periodiq actors` know them all. Nothing here imports the web.
"""

import settings  # noqa: F401  # isort: skip - first: it tells a Python that is too old
from actors import broker as broker_module

broker = broker_module.broker

from actors import (  # noqa: E402
    dispatching,
    downtime,
    killmails,
    names,
    prices,
    schedule,
    sync_dispatching,
    syncs,
    users,
)

__all__ = [
    "broker",
    "dispatching",
    "downtime",
    "killmails",
    "names",
    "prices",
    "schedule",
    "sync_dispatching",
    "syncs",
    "users",
]
