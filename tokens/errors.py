"""Why there is no access token, as one tree, and the sentences a pilot reads.

    TokenError
    ├── NeedsLogin           only a login by the pilot helps
    ├── TokenUnavailable     try again later; `own_fault` says whether it concerns this user alone
    └── UndecryptableToken   the stored token needs a key that TOKEN_KEYS lacks

The texts are fit for the pilot and hold no token.
"""

from __future__ import annotations

from settings import KILLMAIL_SCOPE

NO_ANSWER = "EVE's login service does not answer"
ASKS_TO_WAIT = "EVE's login service asks us to wait"
NO_TOKEN = "EVE's login service gave no usable access token for this character"  # noqa: S105 (a sentence)
BUSY = "other pilots' logins are being renewed; this one is next in a moment"
OUR_FAULT = "EVE's login service answers, but this server cannot use its answer"
REFUSED = "EVE SSO no longer accepts this login. Log in again to go on."
REFUSED_AFTER_LOSS = (
    "EVE's login service replaced this login, but its answer was lost on the way. Log in again to go on."
)
INCIDENT = "EVE's login service turns away one pilot after the other; nothing is lost, and it is tried again"
OWNER_CHANGED = "This character belongs to another account now. Its owner has to log in."
NO_REFRESH_TOKEN = "EVE SSO granted no lasting access. Log in again to go on."  # noqa: S105 (a sentence, not a secret)
NO_SCOPE = f"The login does not allow reading killmails ({KILLMAIL_SCOPE}). Log in again and allow it."
NOT_LINKED = "This character is not linked."


class TokenError(Exception):
    """No access token is available now."""


class NeedsLogin(TokenError):
    """Only a login by the pilot helps. `reason`: a sentence fit for the pilot."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenUnavailable(TokenError):
    """No token now: try again in `retry_after` seconds. The text: why, for the pilot.

    `own_fault`: the refresh failed for this user, while others' may succeed: to be tried a few times, and not for ever.
    `retry_after` is then what the SSO asked for, 0 if it did not say. Otherwise waiting costs no attempt.
    """

    def __init__(self, reason: str, retry_after: float, *, own_fault: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.own_fault = own_fault


class UndecryptableToken(TokenError):
    """A stored token was encrypted with a key that is not in TOKEN_KEYS. It is kept: put the key back."""

    def __init__(self) -> None:
        super().__init__("a stored token cannot be decrypted: TOKEN_KEYS lacks the key that encrypted it; add it again")
