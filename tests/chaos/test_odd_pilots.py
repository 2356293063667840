"""Some pilots of whom something is odd, each in a way of its own, among pilots of whom nothing is.

The invariant (design 9): a pilot whose token, list or killmails always fail delays no other pilot. Real processes, and
ESI's own limits. The short form runs with every change; CHAOS_LONG=1 (`make chaos`) has more rounds, and an SSO that
fails some refreshes of all pilots at random.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from esi.sso_gate import USERS_THAT_CLOSE
from settings import KILLMAIL_SCOPE
from tests.acceptance.cluster import Cluster
from tests.acceptance.conftest import services
from tests.acceptance.pilots import Browser
from tests.acceptance.processes import wait_until

LONG = os.environ.get("CHAOS_LONG") == "1"
#: Times that all pilots fight, and all lists are read.
ROUNDS = 8 if LONG else 2
#: Seconds from the scheduler's message to the end of a healthy pilot's sync, at most: two killmails, a new access token
#: and one or two pages, for all pilots at once, on two busy cores. Each pilot alone takes well under one. Where
#: refreshes fail at random, there is time for two failures in a row (`LIST_BACKOFF`: 5 and 30 s).
BOUND = 60.0 if LONG else 20.0
#: Seconds for an odd pilot's sync that ends at all. What ESI refuses has half of a minute's errors, and waits for more.
ODD_BOUND = 240.0 if LONG else 60.0
#: Of all refreshes, those that fail at random.
SHARE = 0.05 if LONG else 0.0
HEALTHY = 10
#: Killmails of each pilot at first, and of each in a round.
AT_FIRST, EACH_ROUND = 6, 2
#: Seconds for which an access token lives. The system uses none with less than 60 left: each list needs a new one.
TOKEN_LIFE = 61
#: What is odd of a pilot: a fault (`simulator/faults.py`) that strikes only what concerns this pilot.
ODD: dict[str, dict[str, Any]] = {
    "malformed entries": {"route": "recent", "kind": "malformed_entries"},
    "no X-Pages": {"route": "recent", "kind": "no_x_pages"},
    "empty page": {"route": "recent", "kind": "empty_page", "page": 2, "count": 1},
    "two hashes": {"route": "recent", "kind": "two_hashes", "count": 1},
    "foreign list": {"route": "recent", "kind": "foreign_list"},
    "bare 429": {"route": "recent", "kind": "429_bare_wait", "seconds": 5},
    "403 scope": {"route": "recent", "kind": "scope"},
    "403 sso_status": {"route": "recent", "kind": "sso_status"},
    "killmails 422": {"route": "killmail", "kind": "status:422"},
    "killmails 404": {"route": "killmail", "kind": "status:404"},
    "refresh 500": {"route": "refresh", "kind": "status:500"},
    "refresh invalid_token": {"route": "refresh", "kind": "invalid_token"},
    "refresh invalid_scope": {"route": "refresh", "kind": "invalid_scope"},
    "refresh malformed": {"route": "refresh", "kind": "malformed_tokens"},
    "refresh 503": {"route": "refresh", "kind": "status:503"},
    "refresh 403": {"route": "refresh", "kind": "status:403"},
    "refresh 418": {"route": "refresh", "kind": "status:418"},
    "refresh refused": {"route": "refresh", "kind": "invalid_grant"},
    "refresh lost": {"route": "refresh", "kind": "lost", "count": 1},
}
#: Those that have everything in the end, the fault notwithstanding.
WHOLE = ("malformed entries", "no X-Pages", "empty page", "two hashes", "refresh lost")
#: Those who get no access token, and need not log in again: more than close the SSO's gate.
WITHOUT_TOKEN = (
    "refresh 500", "refresh invalid_token", "refresh invalid_scope", "refresh malformed", "refresh 503", "refresh 403",
    "refresh 418",
)  # fmt: skip
assert len(WITHOUT_TOKEN) > USERS_THAT_CLOSE
#: Those whose lists are not read, and whose pilots need not log in again.
UNREAD = ("bare 429", "403 scope", "403 sso_status", *WITHOUT_TOKEN)
#: Those whose killmails ESI refuses.
REFUSED = ("killmails 422", "killmails 404")
SIMULATOR = (
    "--pilots", str(HEALTHY + len(ODD)), "--killmails-count", "0", "--latency-ms", "5-40", "--cache-seconds", "0",
    "--token-seconds", str(TOKEN_LIFE), "--page-size", "4",
    "--limit", f"char-killmail={300 if LONG else 30}/15m",
)  # fmt: skip


def test_odd_pilots_delay_no_other(tmp_path: Path, both_services: None) -> None:
    with services(tmp_path, *SIMULATOR) as system:
        system.simulated.post("settings", {"rotation_grace_seconds": 60})
        pilots = sorted(system.simulated.truth())
        healthy, odd = pilots[:HEALTHY], dict(zip(ODD, pilots[HEALTHY:], strict=True))
        for character_id in pilots:
            system.simulated.post(f"characters/{character_id}/killmails", {"count": AT_FIRST})
        system.start_web()
        workers = system.start_workers(processes=2, threads=6)
        scheduler = system.start_scheduler()
        browsers = {character_id: system.browser() for character_id in pilots}
        for character_id, browser in browsers.items():
            browser.log_in(character_id)
        wait_until(system.is_quiet, "what all have is stored while nothing is odd", 90)
        assert system.differences() == []
        logged = len(workers.output())

        be_odd(system, odd, healthy[0])
        delays = []
        without_token = [odd[name] for name in WITHOUT_TOKEN]
        for _ in range(ROUNDS):
            delays += fight_and_read(system, pilots, healthy)
            for name in (*WHOLE, *REFUSED, "foreign list"):
                wait_until(partial(is_finished, system, odd[name]), f"the sync of {name} ends", ODD_BOUND)
            wait_until(
                lambda: gates_closed(workers.output()[logged:]) or are_retried(system, without_token),
                "they try again, and no other pilot does",
                ODD_BOUND,
            )
        delays.sort()
        print(f"\nhealthy syncs: {len(delays)}, seconds: median {delays[len(delays) // 2]:.1f}, max {max(delays):.1f}")
        assert system.differences(*healthy) == []
        assert max(delays) < BOUND
        assert gates_closed(workers.output()[logged:]) == [], "no gate closed for all, not even for a moment"

        ends_as_it_should(system, odd)
        system.simulated.clear_faults()
        is_whole_again(system, odd, browsers)
        assert system.differences(*healthy) == []
        scheduler.stop()


def be_odd(system: Cluster, odd: dict[str, int], other_id: int) -> None:
    for name, fault in ODD.items():
        shown = {"other_id": other_id} if fault["kind"] == "foreign_list" else {}
        system.simulated.fault(character_id=odd[name], **fault, **shown)
    if SHARE:
        system.simulated.fault(route="refresh", kind="status:500", rate=SHARE)


def fight_and_read(system: Cluster, pilots: list[int], healthy: list[int]) -> list[float]:
    """New killmails for all, and a sync for all; returns the seconds that each healthy pilot's took."""
    last = system.scalar("SELECT MAX(id) FROM syncs")
    for character_id in pilots:
        system.simulated.post(f"characters/{character_id}/killmails", {"count": EACH_ROUND, "bust_cache": True})
    assert system.script("queue_users", "--force").returncode == 0
    marks = ", ".join("?" * len(healthy))
    mine = f"""FROM syncs s JOIN users u ON u.id = s.user_id
        WHERE s.id > ? AND s.finished_at IS NOT NULL AND u.character_id IN ({marks})"""
    ended = f"SELECT COUNT(DISTINCT u.id) {mine}"
    wait_until(lambda: system.scalar(ended, last, *healthy) == len(healthy), "healthy syncs end", 2 * BOUND)
    took = f"SELECT s.state, extract(epoch FROM s.finished_at - s.queued_at)::double precision {mine}"
    rows = system.rows(took, last, *healthy)
    assert {state for state, _ in rows} == {"FINISHED"}
    return [seconds for _, seconds in rows]


def ends_as_it_should(system: Cluster, odd: dict[str, int]) -> None:
    """While everything is still odd."""
    for name in WHOLE:
        assert system.differences(odd[name]) == [], name
    assert needing_login(system) == {odd["refresh refused"]}
    for name in UNREAD:
        state, scopes, next_sync_at, waiting_for = last_sync(system, odd[name])
        assert state in ("QUEUED", "LISTING", "FAILED"), name
        assert (KILLMAIL_SCOPE in scopes, next_sync_at is not None) == (True, True), name
        assert state == "FAILED" or waiting_for, f"{name}: the pilot is told what it waits for"

    told = "SELECT s.error FROM syncs s JOIN users u ON u.id = s.user_id WHERE u.character_id = ? ORDER BY s.id DESC"
    assert "entries of the list could not be read" in system.scalar(told, odd["malformed entries"])
    for name in REFUSED:
        new = ROUNDS * EACH_ROUND
        failed = "SELECT s.failed FROM syncs s JOIN users u ON u.id = s.user_id WHERE u.character_id = ? ORDER BY s.id"
        assert system.rows(failed, odd[name])[-1] == (new,), name
        assert len(system.differences(odd[name])) == new, f"{name}: the killmails and nothing else is missing"
    linked = "SELECT l.killmail_id FROM user_killmails l JOIN users u ON u.id = l.user_id WHERE u.character_id = ?"
    links = {killmail_id for (killmail_id,) in system.rows(linked, odd["foreign list"])}
    assert links <= system.simulated.killmail_ids(odd["foreign list"]), "another pilot's killmails are not shown"


def is_whole_again(system: Cluster, odd: dict[str, int], browsers: dict[int, Browser]) -> None:
    """Nothing is odd any more: whoever asks in person has everything, and the refused pilot after a login."""
    browsers[odd["refresh refused"]].log_in(odd["refresh refused"])
    assert system.script("queue_users", "--force").returncode == 0
    for name in UNREAD:
        browsers[odd[name]].sync_now()
    mended = [odd[name] for name in (*WHOLE, *UNREAD, "refresh refused", "foreign list")]
    wait_until(lambda: system.differences(*mended) == [], "the odd pilots have everything", 90)
    assert needing_login(system) == set()


def are_retried(system: Cluster, character_ids: list[int]) -> bool:
    """Whether each of these pilots' syncs has failed twice at least since its token was refused."""
    marks = ", ".join("?" * len(character_ids))
    sql = f"""SELECT COUNT(DISTINCT s.user_id) FROM syncs s JOIN users u ON u.id = s.user_id
              WHERE s.attempts >= 2 AND u.character_id IN ({marks})"""
    return bool(system.scalar(sql, *character_ids) == len(character_ids))


def gates_closed(log: str) -> list[str]:
    """What the workers logged of gates that closed, also of those that opened again. A bucket of one owner is none."""
    return [line for line in log.splitlines() if re.search(r"\b(?<!:)[a-z -]+: closed (after|until) ", line)]


def is_finished(system: Cluster, character_id: int) -> bool:
    return bool(last_sync(system, character_id)[0] == "FINISHED")


def last_sync(system: Cluster, character_id: int) -> tuple[Any, ...]:
    sql = """SELECT s.state, u.scopes, u.next_sync_at, s.waiting_for FROM syncs s JOIN users u ON u.id = s.user_id
             WHERE u.character_id = ? ORDER BY s.id DESC LIMIT 1"""
    return system.rows(sql, character_id)[0]


def needing_login(system: Cluster) -> set[int]:
    rows = system.rows("SELECT character_id FROM users WHERE needs_login_reason IS NOT NULL")
    return {character_id for (character_id,) in rows}
