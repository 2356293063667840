"""Who needs a login and why, and a second try for logins that the SSO turned away.

`list` shows the characters that cannot be synced until their pilot logs in. `retry-tokens` makes those that still have
a stored refresh token eligible again: use it after an incident at EVE's login service, or after EVE_CLIENT_ID was
wrong. Their next sync asks the SSO once more; those it turns away again need a login.

`restore-sold` gives a character's present owner the killmails of its former owner, which are hidden since the sale and
deleted after 30 days: use it when there was no sale. When EVE has changed how it names owners, every pilot's next login
looks like a sale: `restore-sold --all-since TIME` does it for all characters whose owner changed since then and whose
pilot has logged in since.

Deletion of former owners' data is paused when many characters in a row change their owner, or by `pause-deletion`. It
stays paused until `resume-deletion`; `list` says so.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime

import command
import peewee

import accounts
import migrations
import tokens
from database import db
from esi import owner_changes
from ledger import former_owners
from ledger.former_owners import Sold
from models import User
from settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    """Run the chosen command; without one, `list`. Raises command.Failure."""
    migrations.check()
    with db.connection_context():
        if arguments.command == "retry-tokens":
            _retry(arguments.character, as_json=arguments.json)
        elif arguments.command == "restore-sold" and arguments.all_since is not None:
            _restore_all(arguments.all_since, as_json=arguments.json, sure=arguments.yes)
        elif arguments.command == "restore-sold":
            _restore_sold(arguments.character, as_json=arguments.json, sure=arguments.yes)
        elif arguments.command == "pause-deletion":
            _pause_deletion(as_json=arguments.json)
        elif arguments.command == "resume-deletion":
            _resume_deletion(as_json=arguments.json, sure=arguments.yes)
        else:
            _list(as_json=arguments.json)


def _list(*, as_json: bool) -> None:
    users = [_entry(user) for user in User.select().where(User.next_sync_at.is_null()).order_by(User.character_id)]
    paused = owner_changes.paused_since()
    if as_json:
        print(json.dumps({"users": users, "deletion_paused_since": _text(paused)}))
        return
    for user in users:
        again = f" EVE's login service is asked again at {user['recheck_at']} EVE time." if user["recheck_at"] else ""
        print(f"{user['token_state']:<13} {user['character_name']} ({user['character_id']}): {user['reason']}{again}")
    if not users:
        print("No one needs a login.")
    elif any(user["can_retry"] for user in users):
        print("To ask EVE's login service again now: .venv/bin/python scripts/users.py retry-tokens [ID ...]")
    if paused:
        print(
            f"Deletion of former owners' data is paused since {_text(paused)} EVE time. To end that: "
            ".venv/bin/python scripts/users.py resume-deletion"
        )


def _entry(user: User) -> dict[str, object]:
    return {
        "character_id": user.character_id,
        "character_name": user.character_name,
        "token_state": accounts.token_state(user),
        "reason": tokens.login_needed(user),
        "recheck_at": _text(user.recheck_at),
        "can_retry": user.refresh_token is not None,
    }


def _retry(character_ids: list[int], *, as_json: bool) -> None:
    if problems := [text for each in character_ids if (text := _why_not(each))]:
        raise command.Failure("; ".join(problems))
    retried = tokens.retry_now(character_ids)
    if as_json:
        print(json.dumps({"eligible_again": retried}))
    elif retried:
        print(f"{_users(retried)} eligible again; the next sync asks EVE's login service once more.")
    else:
        print("No one was turned away with a refresh token still stored.")


def _restore_sold(character_id: int, *, as_json: bool, sure: bool) -> None:
    user = User.get_or_none(User.character_id == character_id)
    if user is None:
        raise command.Failure(f"no user with character id {character_id}: its present owner has to log in first")
    former = former_owners.latest(character_id)
    if former is None:
        raise command.Failure(f"no former owner of {user.character_name} ({character_id}) has data here")
    if not sure:
        _confirm(
            f"The former owner of {user.character_name} ({character_id}), until {former.sold_at:%Y-%m-%d %H:%M} EVE "
            f"time, had {_killmails(former.killmails)}. Its present owner sees all of them but {former.hidden}, "
            "and will see those, too."
        )
    restored = former_owners.restore(user.id)
    if restored is None:
        raise command.Failure("the former owner's data was deleted or given back in the meantime")
    if as_json:
        print(json.dumps({"character_id": character_id, "restored": restored}))
    else:
        print(f"{user.character_name} ({character_id}): {_killmails(restored)} of the former owner visible again.")


def _restore_all(since: datetime, *, as_json: bool, sure: bool) -> None:
    """Raises command.Failure, after it has told of all, if any character's killmails were not restored."""
    sold = former_owners.sold_since(since)
    if not as_json and not sold:
        print(f"No character whose owner changed since {_text(since)} EVE time has hidden data here.")
        return
    if sold and not sure:
        _confirm(
            f"{len(sold)} characters with {sum(each.killmails for each in sold)} hidden killmails changed their owner "
            f"since {_text(since)} EVE time, of whom {sum(each.user_id is not None for each in sold)} have logged in "
            "since. Each of these will see all that the character's former owners saw."
        )
    restored: dict[int, int] = {}
    why_not: dict[int, str] = {}
    for each in sold:
        try:
            restored[each.character_id] = _restore_one(each, since)
        except (command.Failure, peewee.PeeweeException) as error:
            why_not[each.character_id] = str(error).partition("\n")[0]
    _tell_restored(sold, restored, why_not, as_json=as_json)


def _restore_one(sold: Sold, since: datetime) -> int:
    """All that former owners of the character had since then; returns how many killmails. Raises command.Failure."""
    if sold.user_id is None:
        raise command.Failure("its present owner has to log in first")
    restored = former_owners.restore(sold.user_id, since=since)
    if restored is None:
        raise command.Failure("it was deleted or given back in the meantime")
    while (more := former_owners.restore(sold.user_id, since=since)) is not None:
        restored += more
    return restored


def _tell_restored(sold: list[Sold], restored: dict[int, int], why_not: dict[int, str], *, as_json: bool) -> None:
    if as_json:
        done = [{"character_id": id_, "restored": killmails} for id_, killmails in restored.items()]
        left = [{"character_id": id_, "reason": reason} for id_, reason in why_not.items()]
        print(json.dumps({"restored": done, "not_restored": left}))
    else:
        for each in sold:
            if each.character_id in why_not:
                print(f"not restored: {each.character_name} ({each.character_id}): {why_not[each.character_id]}")
        print(f"{len(restored)} characters: {sum(restored.values())} killmails of former owners are visible again.")
    if why_not:
        raise command.Failure(f"{len(why_not)} of {len(sold)} characters were not restored")


def _pause_deletion(*, as_json: bool) -> None:
    owner_changes.pause()
    since = _text(owner_changes.paused_since())
    if as_json:
        print(json.dumps({"deletion_paused_since": since}))
    else:
        print(f"Deletion of former owners' data is paused since {since} EVE time, until resume-deletion.")


def _resume_deletion(*, as_json: bool, sure: bool) -> None:
    paused, due = owner_changes.paused_since(), former_owners.count_due()
    if paused and not sure:
        _confirm(
            f"Deletion of former owners' data is paused since {_text(paused)} EVE time. After this, the data of {due} "
            f"former owners, who were sold more than {former_owners.KEPT_FOR.days} days ago, is deleted for good."
        )
    owner_changes.resume()
    if as_json:
        print(json.dumps({"was_paused_since": _text(paused), "due": due}))
    elif paused:
        print(f"Deletion goes on; the data of {due} former owners is due.")
    else:
        print("Deletion was not paused.")


def _text(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(sep=" ", timespec="seconds")


def _past_time(text: str) -> datetime:
    """An argument that is a time in the past, EVE time (UTC) unless it names an offset; as the database stores it."""
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2026-01-31 or 2026-01-31T18:30") from None
    if time > datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is in the future")
    return time.replace(tzinfo=None)


def _confirm(what: str) -> None:
    """Raises command.Failure unless the operator types yes."""
    print(what, file=sys.stderr)
    print("Type yes to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise command.Failure("nothing was changed (use --yes to skip this question)")


def _why_not(character_id: int) -> str | None:
    user = User.get_or_none(User.character_id == character_id)
    if user is None:
        return f"no user with character id {character_id}"
    if user.next_sync_at is not None:
        return f"{user.character_name} ({character_id}) needs no login"
    if user.refresh_token is None:
        return f"{user.character_name} ({character_id}) has no stored refresh token: only a login helps"
    return None


def _killmails(count: int) -> str:
    return "1 killmail" if count == 1 else f"{count} killmails"


def _users(count: int) -> str:
    return "1 user is" if count == 1 else f"{count} users are"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    json_option = argparse.ArgumentParser(add_help=False)
    json_option.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("list", parents=[json_option], help="the characters that need a login, and why (the default)")
    retry = commands.add_parser(
        "retry-tokens", parents=[json_option], help="make them eligible again, all or those with these character ids"
    )
    retry.add_argument("character", type=command.id_of_64_bits, nargs="*", metavar="ID", help="only this character")
    restore = commands.add_parser(
        "restore-sold", parents=[json_option], help="give a character's former owner's killmails to its present owner"
    )
    which = restore.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "character", type=command.id_of_64_bits, nargs="?", metavar="CHARACTER_ID", help="the character's id"
    )
    which.add_argument(
        "--all-since",
        type=_past_time,
        metavar="TIME",
        help="all characters whose owner changed since then (EVE time), such as 2026-01-31 or 2026-01-31T18:30",
    )
    restore.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    commands.add_parser(
        "pause-deletion", parents=[json_option], help="delete nothing of former owners until resume-deletion"
    )
    resume = commands.add_parser(
        "resume-deletion", parents=[json_option], help="delete former owners' data again, 30 days after each sale"
    )
    resume.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    command.run(parser, main)
