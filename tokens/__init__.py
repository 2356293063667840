"""Access tokens for ESI; refresh tokens encrypted at rest.

The invariants: of all callers that need a user's token at once, one calls the SSO; what comes back never overwrites
something newer; one pilot's problem at the SSO stops no other pilot; only the SSO's own refusal, or a sold character,
confirmed over a day, ends a login for good; and no text, log or column holds a token in clear. The SSO is never called
inside a transaction.

Who may be synced, and what a login stores, is left to `accounts.py`; refresh tokens:
https://developers.eveonline.com/docs/services/sso/.
"""

from tokens.access import access_token, forget_access_token
from tokens.cipher import TokenCipher
from tokens.errors import NeedsLogin, TokenError, TokenUnavailable, UndecryptableToken
from tokens.rechecks import retry_now, start_due_rechecks
from tokens.rows import expiry, first_token_version, has_scope, login_needed, new_session_epoch

__all__ = [
    "NeedsLogin",
    "TokenCipher",
    "TokenError",
    "TokenUnavailable",
    "UndecryptableToken",
    "access_token",
    "expiry",
    "first_token_version",
    "forget_access_token",
    "has_scope",
    "login_needed",
    "new_session_epoch",
    "retry_now",
    "start_due_rechecks",
]
