"""Who needs a login and why, and a second try for logins that the SSO turned away.

`list` shows the characters that cannot be synced until their pilot logs in. `retry-tokens` makes those that still have
a stored refresh token eligible again: use it after an incident at EVE's login service, or after EVE_CLIENT_ID was
wrong. Their next sync asks the SSO once more; those it turns away again need a login.

`restore-sold` gives a character's present owner the killmails of its former owner, which are hidden since the sale and
deleted after 30 days: use it when there was no sale, for example after EVE changed how it names owners.
"""

from __future__ import annotations

import argparse
import json
import sys

import command

import accounts
import migrations
import tokens
from database import db
from ledger import former_owners
from models import User
from settings import Settings


def main(arguments: argparse.Namespace, settings: Settings) -> None:
    """Run the chosen command; without one, `list`. Raises command.Failure."""
    migrations.check()
    with db.connection_context():
        if arguments.command == "retry-tokens":
            _retry(arguments.character, as_json=arguments.json)
        elif arguments.command == "restore-sold":
            _restore_sold(arguments.character, as_json=arguments.json, sure=arguments.yes)
        else:
            _list(as_json=arguments.json)


def _list(*, as_json: bool) -> None:
    users = [_entry(user) for user in User.select().where(User.next_sync_at.is_null()).order_by(User.character_id)]
    if as_json:
        print(json.dumps({"users": users}))
        return
    for user in users:
        again = f" EVE's login service is asked again at {user['recheck_at']} EVE time." if user["recheck_at"] else ""
        print(f"{user['token_state']:<13} {user['character_name']} ({user['character_id']}): {user['reason']}{again}")
    if not users:
        print("No one needs a login.")
    elif any(user["can_retry"] for user in users):
        print("To ask EVE's login service again now: .venv/bin/python scripts/users.py retry-tokens [ID ...]")


def _entry(user: User) -> dict[str, object]:
    return {
        "character_id": user.character_id,
        "character_name": user.character_name,
        "token_state": accounts.token_state(user),
        "reason": tokens.login_needed(user),
        "recheck_at": user.recheck_at and user.recheck_at.isoformat(sep=" ", timespec="seconds"),
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
            f"time, had {former.killmails} killmails. Its present owner will see all of them."
        )
    restored = former_owners.restore(user.id)
    if restored is None:
        raise command.Failure("the former owner's data was deleted or given back in the meantime")
    if as_json:
        print(json.dumps({"character_id": character_id, "restored": restored}))
    else:
        print(f"{user.character_name} ({character_id}): {restored} killmails of the former owner are visible again.")


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
    restore.add_argument("character", type=command.id_of_64_bits, metavar="CHARACTER_ID", help="the character's id")
    restore.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    command.run(parser, main)
