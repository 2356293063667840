"""What the dashboard and `check_queue.py` are told about the queues in embedded mode."""

from __future__ import annotations

from datetime import timedelta

from actors.counts import QueueCount, check_broker, queue_counts
from actors.dispatching import dispatch_now
from database import utcnow
from models import Fetch
from tests.actors.asking import ask


def _counts() -> dict[str, QueueCount]:
    return {count.queue_name: count for count in queue_counts()}


def test_embedded_counts_are_what_is_under_way(simulated, crew, post):
    check_broker()
    assert {(c.message_count, c.delayed_count, c.dead_count) for c in queue_counts()} == {(0, 0, 0)}
    ask(simulated.pilot())
    assert _counts()["esi_user_killmails_queue"].message_count == 1

    post.refuse("fetch_killmail")
    ask(simulated.pilot(5))
    crew.drain()
    post.mend()
    ids = sorted(row.killmail_id for row in Fetch.select())
    later = utcnow() + timedelta(minutes=5)
    Fetch.update(state="deferred", not_before=later).where(Fetch.killmail_id == ids[0]).execute()
    Fetch.update(state="rejected").where(Fetch.killmail_id.in_(ids[1:3])).execute()
    assert dispatch_now() == 2
    details = _counts()["esi_killmail_details_queue"]
    assert (details.message_count, details.delayed_count, details.dead_count) == (2, 1, 2)
    assert details.consumer_count == 0, "nobody is at work here"


def test_every_queue_is_counted():
    assert [count.queue_name for count in queue_counts()] == [
        "esi_user_killmails_queue",
        "esi_killmail_details_queue",
        "esi_names_queue",
        "maintenance_queue",
    ]
