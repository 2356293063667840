"""What EVE SSO's error codes at the callback mean: a page for the pilot, a log line with the code for the operator.

The codes are those of RFC 6749, section 4.1.2.1. Code and description come with the address, so a stranger can choose
them: no page shows them, and the log has them escaped and cut.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

log = logging.getLogger(__name__)

#: Characters of a code and of a description that are logged.
MAX_CODE, MAX_DESCRIPTION = 40, 200

_DOWN = "Logging in does not work now"


@dataclass(frozen=True, slots=True)
class SsoError:
    """The page for one code, and what the operator reads beside it in the log."""

    status: int
    title: str
    text: str
    advice: str


_CANCELLED = SsoError(
    400, "Login cancelled", "EVE SSO says the login was cancelled. Nothing has changed.", "the pilot cancelled"
)
_ERRORS: Mapping[str, SsoError] = {
    "access_denied": _CANCELLED,
    "invalid_scope": SsoError(
        503,
        _DOWN,
        "EVE SSO refuses a permission that this site asks for. The site's operator has to correct that; nothing has "
        "changed.",
        "no pilot can log in until the application's registration has all of EVE_CLIENT_SCOPES",
    ),
    "unauthorized_client": SsoError(
        503,
        _DOWN,
        "EVE SSO does not let this site log pilots in. The site's operator has to correct its registration; nothing "
        "has changed.",
        "no pilot can log in until the application's registration is corrected (EVE_CLIENT_ID, its callback)",
    ),
    "invalid_request": SsoError(
        503,
        _DOWN,
        "EVE SSO could not read this site's request. Please log in again; if that does not help, tell the site's "
        "operator. Nothing has changed.",
        "check EVE_CLIENT_ID and EVE_CALLBACK_URL against the application's registration",
    ),
    "unsupported_response_type": SsoError(
        503,
        _DOWN,
        "EVE SSO does not offer this kind of login any more. The site's operator has to look; nothing has changed.",
        "EVE SSO does not offer the authorization code flow to this application",
    ),
    "server_error": SsoError(
        503,
        _DOWN,
        "EVE SSO had an error of its own. Please try again in a few minutes; nothing has changed.",
        "the pilot is asked to try again",
    ),
    "temporarily_unavailable": SsoError(
        503,
        _DOWN,
        "EVE SSO is overloaded or under maintenance. Please try again in a few minutes; nothing has changed.",
        "the pilot is asked to try again",
    ),
}
_UNKNOWN = SsoError(
    503,
    _DOWN,
    "EVE SSO refused this login and gave a reason that this site does not know. Please log in again; if that does not "
    "help, tell the site's operator. Nothing has changed.",
    "the code is not in RFC 6749",
)


def look_up(code: str, description: str, *, begun_here: bool) -> SsoError:
    """The page for this code. Logs the code; as a warning only where the login was begun in this browser."""
    error = _ERRORS.get(code, _UNKNOWN)
    level = logging.WARNING if begun_here and error is not _CANCELLED else logging.INFO
    shown = code if code in _ERRORS else ascii(code[:MAX_CODE])
    told = f", description {description[:MAX_DESCRIPTION]!a}" if description else ""
    log.log(level, "a login failed: EVE SSO answered with the error %s%s; %s", shown, told, error.advice)
    return error
