"""Pilots of the simulator as users of the system, as their logins would have left them: with tokens, and synced before.

Tokens come from the simulated SSO itself, because its ESI takes no others. Nothing goes through the web: a thousand
logins there would take minutes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import requests

from benchmarks.harness import Cluster
from database import insert_rows, utcnow
from settings import KILLMAIL_SCOPE
from tokens import TokenCipher

#: Logins at the simulated SSO at a time.
AT_ONCE = 8
#: Seconds for which the simulator's access tokens live: longer than any of these scripts runs.
TOKEN_SECONDS = 6 * 3600

COLUMNS = (
    "character_id", "character_name", "owner_hash", "scopes", "access_token", "refresh_token", "expires_at",
    "token_version", "session_epoch", "last_sync_complete", "full_requested", "last_full_sync_at",
    "last_killmail_sync_at", "next_sync_at", "consecutive_failures", "created_at",
)  # fmt: skip


def users(made: Cluster, due_at: datetime) -> int:
    """Make a user of every pilot that the simulator has, to be synced from `due_at` on; returns how many."""
    pilots = made.simulated.truth()
    cipher, now = TokenCipher([made.processes.environment["TOKEN_KEYS"]]), utcnow()
    with ThreadPoolExecutor(AT_ONCE) as logins:
        tokens = list(logins.map(lambda character_id: _tokens(made.simulated.url, character_id), pilots))
    rows = [
        (
            character_id, pilot["name"], pilot["owner"], KILLMAIL_SCOPE, cipher.encrypt(access_token),
            cipher.encrypt(refresh_token), now + timedelta(seconds=TOKEN_SECONDS), 0, 1, True, False, now,
            now - timedelta(minutes=20), due_at, 0, now,
        )
        for (character_id, pilot), (access_token, refresh_token) in zip(pilots.items(), tokens, strict=True)
    ]  # fmt: skip
    return insert_rows("users", COLUMNS, rows)


def _tokens(sso_url: str, character_id: int) -> tuple[str, str]:
    """The access and the refresh token of a login at the simulated SSO."""
    asked = {
        "response_type": "code", "client_id": "demo", "redirect_uri": "http://127.0.0.1/callback", "state": "bench",
        "scope": KILLMAIL_SCOPE, "character_id": str(character_id),
    }  # fmt: skip
    back = requests.get(f"{sso_url}/v2/oauth/authorize", params=asked, allow_redirects=False, timeout=30)
    code = parse_qs(urlsplit(back.headers["Location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": asked["redirect_uri"]}
    answer = requests.post(f"{sso_url}/v2/oauth/token", data=form, auth=("demo", "demo"), timeout=30)
    answer.raise_for_status()
    found = answer.json()
    return str(found["access_token"]), str(found["refresh_token"])
