"""A killmail that ESI lists with two hashes: only one of them opens it, and no list says which."""

from __future__ import annotations

from database import execute
from ledger.fetching import Claim


def try_other_hash(claim: Claim) -> bool:
    """Let the next attempt use the row's other hash, after a refusal of this one. False: there is none.

    To be called while the claim is held. The two take turns, because ESI also refuses right ones under load.
    """
    rows = execute(
        """UPDATE ledger SET killmail_hash = other_hash, other_hash = killmail_hash
           WHERE killmail_id = ? AND state = 'fetching' AND claimed_until = ? AND other_hash IS NOT NULL""",
        (claim.killmail_id, claim.lease),
    )
    return bool(rows.rowcount)
