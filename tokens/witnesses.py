"""Before one pilot's failure stops the refreshes of all: does the SSO give a token to another pilot?

Between two polls of the pilots whose logins work, those whose refreshes always fail may be the only ones who ask.
That many of them failed in a row then says nothing about the SSO. So it is asked for witnesses: the pilots whose syncs
ended last. A few, while it answers quickly; one that hangs is asked for one. What a refresh of a witness brings is
stored like that of any other.
"""

from __future__ import annotations

import time
from functools import partial

from database import execute
from esi import sso_gate
from esi.sso_gate import Permit
from tokens.cipher import TokenCipher
from tokens.errors import NeedsLogin, TokenUnavailable, UndecryptableToken
from tokens.refresh import Sso, refresh_with
from tokens.rows import claim, read, release

#: Witnesses asked at most, and seconds after which no further one is asked. A refresh takes well under a second.
MOST, SECONDS = 10, 2.0
#: Pilots looked at, those whose syncs ended last: so many are found through the index, however many there are.
AMONG = 50


def ask_for(sso: Sso, cipher: TokenCipher, permit: Permit) -> bool:
    """Whether the SSO serves another pilot than the one whose refresh has just failed with this permit."""
    began = time.monotonic()
    for user_id in _witnesses(permit.owner):
        if _is_served(user_id, sso, cipher, permit):
            return True
        if time.monotonic() - began > SECONDS:
            return False
    return False


def _is_served(user_id: int, sso: Sso, cipher: TokenCipher, failed: Permit) -> bool:
    """Refresh this pilot's access token, if no other caller does. A verdict is an answer, too."""
    try:
        user = read(user_id)
        refresh_token = cipher.decrypt(user.refresh_token)
    except (NeedsLogin, UndecryptableToken):
        return False
    lease = claim(user)
    if lease is None:
        return False
    permit = sso_gate.enter_as_witness(user_id, failed)
    try:
        if permit is None:
            return False
        refresh_with(permit, user, refresh_token, sso, cipher, witnesses=partial(ask_for, sso, cipher))
        return True
    except NeedsLogin:
        return True
    except TokenUnavailable:
        return False
    finally:
        release(user, lease)


def _witnesses(owner: int) -> list[int]:
    """Users whose syncs ended last, those first whose refreshes have not failed in the meantime."""
    rows = execute(
        f"""
        SELECT id FROM (
            SELECT id, last_killmail_sync_at FROM users
            WHERE last_killmail_sync_at IS NOT NULL AND next_sync_at IS NOT NULL AND refresh_token IS NOT NULL
              AND recheck_at IS NULL AND refresh_fails_since IS NULL AND id <> ?
            ORDER BY last_killmail_sync_at DESC LIMIT {AMONG}) AS recent
        ORDER BY EXISTS (SELECT 1 FROM failing_owners f WHERE f.gate IN (?, ?) AND f.owner = recent.id),
                 last_killmail_sync_at DESC
        LIMIT {MOST}
        """,
        (owner, sso_gate.GATE, sso_gate.WITNESSES),
    ).fetchall()
    return [user_id for (user_id,) in rows]
