"""`python -m benchmarks.storm SECONDS FIRST_ID`: killmails are stored and told as a worker would, at a steady pace.

Fifty a second for each of two users, and twice a second one for everybody; the links are there already. Prints when
each was committed.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from datetime import datetime

import database
import events
import settings
from benchmarks.crowd_rows import PACE, killmail_ids
from database import db
from events import KillmailStored
from killmails import Attacker, Item, Killmail, Position, Victim
from ledger.storing import store

_ATTACKER = Attacker(96_000_001, 98_000_001, None, None, 621, 2488, 10, False, -1.5)
TEMPLATE = Killmail(
    killmail_id=1,
    killmail_time=datetime(2026, 11, 1),
    solar_system_id=30_000_142,
    moon_id=None,
    war_id=None,
    victim=Victim(
        95_000_001, 98_000_002, None, None, 587, 80, Position(1.0, 2.0, 3.0),
        tuple(Item(34 + n, 5, 0, 1, None) for n in range(12)),
    ),
    attackers=(*[_ATTACKER] * 5, replace(_ATTACKER, final_blow=True)),
)  # fmt: skip


def main() -> None:
    seconds, first_id = int(sys.argv[1]), int(sys.argv[2])
    config = settings.current()
    database.connect(config.database_url).connect()
    events.configure(config.rabbitmq_url)
    committed = {}
    began = time.monotonic()
    for number, killmail_id in enumerate(killmail_ids(first_id, seconds)):
        time.sleep(max(0.0, began + number / PACE - time.monotonic()))
        with db.atomic():
            store(replace(TEMPLATE, killmail_id=killmail_id), "0" * 40)
        committed[killmail_id] = time.time()
        events.publish(KillmailStored(killmail_id))
    late = time.monotonic() - began - seconds
    events.close()
    print("RESULT", json.dumps({"committed": committed, "seconds_late": late}), flush=True)


if __name__ == "__main__":
    main()
