"""What a pilot reads when ESI did not give their killmail list. The technical detail is for the log."""

from __future__ import annotations

from esi.errors import (
    EsiDowntime,
    EsiError,
    EsiErrorLimited,
    EsiForbidden,
    EsiRateLimited,
    EsiTransport,
    EsiUnauthorized,
)
from ledger.rules import ESI_ASKS_TO_WAIT


def sentence(error: EsiError) -> str:
    """One sentence without a full stop, with the status of ESI's answer where there was one."""
    said = _said(error)
    return said if error.status is None else f"{said} ({error.status})"


def _said(error: EsiError) -> str:
    match error:
        case EsiForbidden(missing_scope=True):
            return "ESI says that this login lacks the scope for the killmail list"
        case EsiUnauthorized() | EsiForbidden():
            return "ESI does not accept this character's login for the killmail list"
        case EsiRateLimited() | EsiErrorLimited():
            return ESI_ASKS_TO_WAIT
        case EsiDowntime():
            return "ESI is not up for the killmail list"
        case EsiTransport():
            return "ESI gave no usable answer for the killmail list"
        case _:
            return "ESI does not give the killmail list"
