"""Show what is queued, who consumes it, what is pending in the ledger, and what ESI's budgets allow."""

from __future__ import annotations

import command  # isort: skip - first: it tells a Python that is too old for the rest
import argparse
import json
import sys
import time
from datetime import UTC, datetime
from typing import Any

import migrations
import row_counts
from database import clock, db
from settings import Settings

#: Seconds between two looks of --watch.
WATCH_SECONDS = 2.0
EMBEDDED = "embedded: no broker, no dead letters; what failed is deferred in the ledger"


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    """Print one look, or many. Raises command.Failure."""
    migrations.check()
    if arguments.dead or arguments.replay:
        _dead_letters(arguments, settings)
        return
    while True:
        with db.connection_context():
            report = _report(settings)
        if arguments.json:
            print(json.dumps(report), flush=True)
        else:
            _show(report, clear=arguments.watch and sys.stdout.isatty())
        if not arguments.watch:
            if report["broker"] != "ok":
                raise command.Failure(report["broker"])
            return
        time.sleep(WATCH_SECONDS)


def _dead_letters(arguments: argparse.Namespace, settings: Settings) -> None:
    # Imported late: the actors bring the broker, and `--help` needs none.
    from actors.counts import BrokerUnreachable
    from actors.dead_letters import dead_letters, replay

    try:
        if arguments.replay:
            sent, unreadable = replay()
            text = EMBEDDED if settings.embedded else f"Sent {sent} again; {unreadable} unreadable."
            _tell({"sent": sent, "unreadable": unreadable}, arguments.json, text)
            return
        found = dead_letters()
    except BrokerUnreachable as error:
        raise command.Failure(f"{error} (check RABBITMQ_URL)") from None
    if arguments.json:
        print(json.dumps([{name: getattr(each, name) for name in each.__slots__} for each in found], default=str))
        return
    for each in found:
        at = f"{each.sent_at:%Y-%m-%d %H:%M:%S}" if each.sent_at else "-"
        print(
            f"{at}  {each.queue_name}  {each.actor or 'unreadable'}{each.arguments if each.actor else ''}  {each.error}"
        )
    if settings.embedded:
        print(EMBEDDED)
    elif found:
        print(f"{len(found)} dead letters. Send them again: .venv/bin/python scripts/check_queue.py --replay")
    else:
        print("No dead letters.")


def _tell(result: dict[str, int], as_json: bool, text: str) -> None:
    print(json.dumps(result) if as_json else text)


def _report(settings: Settings) -> dict[str, Any]:
    # Imported late: the actors bring the broker, and `--help` needs none.
    import runtime
    from actors.counts import BrokerUnreachable, PublishingBlocked, QueueRefused, check_broker, queue_counts

    broker = "ok"
    try:
        queues = [{name: getattr(count, name) for name in count.__slots__} for count in queue_counts()]
        check_broker()
    except (PublishingBlocked, QueueRefused) as error:
        broker = str(error)
    except BrokerUnreachable as error:
        raise command.Failure(f"{error} (check RABBITMQ_URL)") from None
    counts = row_counts.read((row_counts.LEDGER, row_counts.ACTIVE_SYNCS, row_counts.KILLMAILS))
    ledger, syncs, killmails = (
        counts[each.name] for each in (row_counts.LEDGER, row_counts.ACTIVE_SYNCS, row_counts.KILLMAILS)
    )
    return {
        "mode": "embedded" if settings.embedded else "services",
        "broker": broker,
        "queues": queues,
        "ledger": ledger.rows,
        "active_syncs": syncs.rows,
        "killmails": killmails.total,
        # Small tables are counted now; of a large one the last count, or only that there are more.
        "counted": {name: {"at": _text(count.counted_at), "more": count.more} for name, count in counts.items()},
        "roads": [{name: getattr(state, name) for name in state.__slots__} for state in runtime.limiter().snapshot()],
    }


def _text(at: datetime | None) -> str:
    return "now" if at is None else f"{at:%Y-%m-%dT%H:%M:%SZ}"


def _show(report: dict[str, Any], *, clear: bool) -> None:
    if clear:
        print("\033[2J\033[H", end="")
    if report["mode"] == "embedded":
        print("embedded: one process, no broker; the counts are rows in the database")
    print(f"{'queue':<30}{'messages':>10}{'consumers':>11}{'delayed':>9}{'dead':>6}")
    for queue in report["queues"]:
        print(
            f"{queue['queue_name']:<30}{queue['message_count']:>10}{queue['consumer_count']:>11}"
            f"{queue['delayed_count']:>9}{queue['dead_count']:>6}"
        )
    if report["broker"] != "ok":
        print(f"broker: {report['broker']}")
    print(f"killmails to fetch: {_by_state(report, 'ledger', row_counts.LEDGER.name) or 'empty'}")
    print(f"active syncs: {_by_state(report, 'active_syncs', row_counts.ACTIVE_SYNCS.name) or 'none'}")
    more = "more than " if report["counted"][row_counts.KILLMAILS.name]["more"] else ""
    print(f"killmails stored: {more}{report['killmails']}{_counted_at(report, row_counts.KILLMAILS.name)}")
    for road in report["roads"]:
        print(f"{road['name']:<30}{_road(road)}")
    sys.stdout.flush()


def _by_state(report: dict[str, Any], key: str, name: str) -> str:
    if report["counted"][name]["more"]:
        return f"more than {sum(report[key].values())}"
    states = ", ".join(f"{count} {state}" for state, count in sorted(report[key].items()))
    return states + _counted_at(report, name)


def _counted_at(report: dict[str, Any], name: str) -> str:
    at = report["counted"][name]["at"]
    return "" if at == "now" else f" (counted at {at})"


def _road(road: dict[str, Any]) -> str:
    parts = []
    if road.get("remaining") is not None:
        parts.append(f"{road['remaining']} of {road['allowance']} tokens left")
    if road.get("buckets", 1) > 1:
        more = "more than " if road["more_buckets"] else ""
        sampled = f", {road['sampled']} of them looked at" if road["sampled"] else ""
        parts.append(f"the emptiest of {more}{road['buckets']} buckets{sampled}")
    until = road.get("closed_until")
    if until and until > clock.now():
        parts.append(f"closed until {datetime.fromtimestamp(until, UTC):%H:%M:%S} UTC: {road.get('reason') or ''}")
    return "; ".join(parts) or "open"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON, one object a look")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--watch", action="store_true", help="look again every two seconds until Ctrl-C")
    one.add_argument("--dead", action="store_true", help="list the dead letters instead, and leave them where they are")
    one.add_argument("--replay", action="store_true", help="send the dead letters again; every actor is idempotent")
    command.run(parser, main)
