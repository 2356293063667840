"""A body that is not the killmail that was asked for: asked for again, and believed only when it comes again and again.

It does not match its hash, and names none of the pilots who list it. Stored, it would be hidden from them for ever. But
CCP promises no rule for hashes, and a list may have been another character's: then every answer is the same.
"""

from __future__ import annotations

import json
from hashlib import sha256

from database import execute
from killmails import Killmail, named_characters, to_json
from ledger.fetching import Claim

#: Identical answers in a row that are believed. With the waits between them (`FETCH_BACKOFF`) that takes a quarter of
#: an hour; the syncs wait for the first four only.
BELIEVED_AFTER = 5


def doubt(claim: Claim, killmail: Killmail) -> bool:
    """Count a body that does not match the hash it was asked for with. True: it is to be asked for again.

    To be called while the claim is held. False for a body that names a pilot who lists it, or that is believed by now.
    """
    rows = execute(
        "SELECT u.character_id FROM user_killmails l JOIN users u ON u.id = l.user_id WHERE l.killmail_id = ?",
        (claim.killmail_id,),
    ).fetchall()
    listed_by = {character_id for (character_id,) in rows}
    if not listed_by or listed_by & named_characters(killmail):
        return False
    digest = sha256(json.dumps(to_json(killmail), sort_keys=True).encode()).hexdigest()
    counted = execute(
        """UPDATE ledger SET wrong_bodies = CASE WHEN wrong_body = ? THEN wrong_bodies + 1 ELSE 1 END, wrong_body = ?
           WHERE killmail_id = ? AND state = 'fetching' AND claimed_until = ? RETURNING wrong_bodies""",
        (digest, digest, claim.killmail_id, claim.lease),
    ).fetchone()
    return counted is None or counted[0] < BELIEVED_AFTER
