"""Queue users for a sync by hand, at priority 5.

Without options every user who can be synced and is not in cool-down is queued. Beside a running embedded system the
rows are written and the running process picks them up within a second or two. While RabbitMQ takes no messages the rows
are written as well: the scheduler sends them when it does again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import command

import migrations
import tokens
from database import db
from ledger import Outcome
from models import Trigger, User
from settings import Settings

if TYPE_CHECKING:
    from actors.requests import SyncRequest


@dataclass(frozen=True, slots=True)
class Line:
    """What came of one user."""

    character_id: int
    character_name: str
    queued: bool
    mode: str
    message: str


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    """Queue the users and tell what came of each. Raises command.Failure."""
    migrations.check()
    with db.connection_context():
        users = _users(arguments.character)
        lines = _queue_all(users, settings, full=arguments.full, force=arguments.force)
    if arguments.json:
        print(json.dumps({"queued": sum(line.queued for line in lines), "users": [_as_json(line) for line in lines]}))
    else:
        _tell(lines, settings)


def _users(character_ids: list[int]) -> list[User]:
    query = User.select().where(User.next_sync_at.is_null(False)).order_by(User.character_id)
    if character_ids:
        query = query.where(User.character_id.in_(character_ids))
    users = list(query)
    missing = set(character_ids) - {user.character_id for user in users}
    if missing:
        raise command.Failure("; ".join(_why_not(character_id) for character_id in sorted(missing)))
    return users


def _why_not(character_id: int) -> str:
    user = User.get_or_none(User.character_id == character_id)
    if user is None:
        return f"no user with character id {character_id}: the pilot has to log in first"
    return (
        f"{user.character_name} ({character_id}) cannot be synced: {tokens.login_needed(user) or 'a login is needed'}"
    )


def _queue_all(users: list[User], settings: Settings, *, full: bool, force: bool) -> list[Line]:
    """Queue each. After the first message that RabbitMQ does not take, only rows are written: each more would wait."""
    # Imported late: the actors bring the broker, and `--help` needs none.
    from actors.requests import request_sync

    logging.getLogger("actors.sending").setLevel(logging.ERROR)  # told by us, once, and with what to do
    may_send = not settings.embedded
    lines = []
    for user in users:
        asked = request_sync(user.id, Trigger.MANUAL, full=full, force=force, may_send=may_send)
        if may_send and not asked.sent:
            may_send = False
            print(f"warning: {_why_not_sent()}; the syncs are recorded, and start when that is over", file=sys.stderr)
        lines.append(_line(user, asked))
    return lines


def _why_not_sent() -> str:
    from actors.counts import BrokerUnreachable, check_broker

    try:
        check_broker()
    except BrokerUnreachable as error:
        return str(error)
    return "RabbitMQ did not take a message"


def _line(user: User, asked: SyncRequest) -> Line:
    opened = asked.opened
    if opened.outcome == Outcome.CREATED:
        mode = "FIRST SYNC" if opened.first else "FULL SYNC" if opened.full else "INCREMENTAL"
    else:
        mode = "ALREADY RUNNING" if opened.outcome == Outcome.JOINED else "COOL-DOWN"
    return Line(user.character_id, user.character_name, opened.outcome == Outcome.CREATED, mode, asked.message)


def _as_json(line: Line) -> dict[str, object]:
    return {name: getattr(line, name) for name in line.__slots__}


def _tell(lines: list[Line], settings: Settings) -> None:
    if not lines:
        print("No active users found. A pilot has to log in first: start the system and open its address in a browser.")
        return
    for line in lines:
        print(f"{line.mode:<15} {line.character_name} ({line.character_id}): {line.message}")
    queued = sum(line.queued for line in lines)
    running = sum(line.mode == "ALREADY RUNNING" for line in lines)
    if running:
        print(f"A sync is under way already for {running} of {len(lines)} users.")
    if queued:
        print(f"Queued {queued} of {len(lines)} users. Watch them: .venv/bin/python scripts/check_queue.py --watch")
        if settings.embedded:
            print("Embedded mode: the running `.venv/bin/python app.py` takes them up within a second or two.")
    elif not running:
        print(
            "Nothing queued: everybody is in cool-down. To ignore that: .venv/bin/python scripts/queue_users.py --force"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--force", action="store_true", help="ignore the cool-down (and nothing else)")
    parser.add_argument("--full", action="store_true", help="read every page of the list, without its ETag")
    parser.add_argument(
        "--character",
        type=command.id_of_64_bits,
        action="append",
        default=[],
        metavar="ID",
        help="only this character; repeatable",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    command.run(parser, main)
