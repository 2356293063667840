"""Compare what is stored with what the simulator knows: the demo's and the tests' last word on "nothing lost".

The bodies come from the simulator's control address, past every rule and fault; the rows come back as the killmails
they were stored from. Anything missing, doubled or different is one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import requests

from database import execute
from killmails import parse_killmail, to_json
from ledger.storing import load

#: Differences after which counting on tells nobody anything.
ENOUGH = 50


def differences(simulator_url: str, character_ids: set[int] | None = None) -> list[str]:
    """What is wrong with the database, as the simulator sees it; empty when nothing is.

    Only the lists of `character_ids` are expected, or those of every character the simulator knows.
    """
    control = f"{simulator_url}/_simulator"
    truth = requests.get(f"{control}/truth", timeout=60).json()["characters"]
    lists = {
        int(character_id): {int(killmail_id): killmail_hash for killmail_id, killmail_hash in character["killmails"]}
        for character_id, character in truth.items()
    }
    found = []
    with requests.Session() as session:
        for line in _all_differences(lists, character_ids or set(lists), session, control):
            found.append(line)
            if len(found) == ENOUGH:
                break
    return found


def _all_differences(
    lists: dict[int, dict[int, str]], wanted: set[int], session: requests.Session, control: str
) -> Iterator[str]:
    listed_by_anyone = {killmail_id for listed in lists.values() for killmail_id in listed}
    lists = {character_id: listed for character_id, listed in lists.items() if character_id in wanted}
    expected = {killmail_id: hash_ for listed in lists.values() for killmail_id, hash_ in listed.items()}
    stored = dict(execute("SELECT killmail_id, killmail_hash FROM killmails").fetchall())
    yield from (f"killmail {killmail_id} is missing" for killmail_id in sorted(expected.keys() - stored.keys()))
    yield from (f"killmail {killmail_id} stood in no list" for killmail_id in sorted(stored.keys() - listed_by_anyone))
    named: dict[int, set[int]] = {}  # characters, by killmail
    for killmail_id in sorted(expected):
        body = session.get(f"{control}/killmails/{killmail_id}", timeout=60).json()
        named[killmail_id] = {one.get("character_id") for one in (body["victim"], *body["attackers"])}
        if killmail_id not in stored:
            continue
        if stored[killmail_id] != expected[killmail_id]:
            yield f"killmail {killmail_id} has another hash"
        yield from _body_differences(killmail_id, body)
    for character_id, listed in lists.items():
        # What a list holds without naming the character is fetched and stored, and not shown to its pilot.
        yield from _link_differences(character_id, {each for each in listed if character_id in named[each]})


def _link_differences(character_id: int, listed: set[int]) -> Iterator[str]:
    rows = execute(
        "SELECT l.killmail_id FROM user_killmails l JOIN users u ON u.id = l.user_id WHERE u.character_id = ?",
        (character_id,),
    ).fetchall()
    linked = {killmail_id for (killmail_id,) in rows}
    yield from (f"killmail {each} is not linked to character {character_id}" for each in sorted(listed - linked))
    yield from (f"killmail {each} is wrongly linked to character {character_id}" for each in sorted(linked - listed))


def _body_differences(killmail_id: int, body: dict[str, Any]) -> Iterator[str]:
    try:
        killmail = load(killmail_id)
    except ValueError:  # no victim, or more than one
        killmail = None
    if killmail is None:
        yield f"killmail {killmail_id} cannot be read back"
        return
    stored, sent = to_json(killmail), to_json(parse_killmail(body))
    for field in sorted(stored.keys() | sent.keys()):
        if stored.get(field) != sent.get(field):
            yield f"killmail {killmail_id}: {field} differs"
