"""What can go wrong at ESI and at EVE SSO, as one tree. Each error says whether it is final, or when to come back.

    EsiError                    permanent, retry_after (seconds), status
    ├── EsiTransport            no answer, or a broken one: timeout, reset, cut or invalid JSON, HTML with a 200
    ├── EsiStatus               a status nobody expected here
    │   ├── EsiUnauthorized     401: the access token is not (or no longer) good
    │   ├── EsiForbidden        403: the access token may not do this
    │   ├── EsiNotFound         404: never a reason to delete anything
    │   └── EsiInvalidHash      422: ESI does not know this killmail by this hash
    ├── EsiRateLimited          429: the bucket is empty
    ├── EsiErrorLimited         420: too many errors; every route is closed until the window ends
    └── EsiDowntime             502, 503, 504, maintenance
    SsoError                    permanent, retry_after (seconds), answer_lost, timed_out, whole_service
    ├── SsoRefused              the code or refresh token is not accepted and never will be
    ├── SsoUnavailable          no answer, a broken one, 429 or 5xx: no refresh token was refused
    ├── SsoConfiguration        our own setup is wrong
    └── SsoInvalidToken         an access token that does not verify; `check` says at what

`permanent` means that the same call can never succeed; when it is False, `retry_after` is the number of seconds the
other side asked for, or None when it did not say. Texts are short, fit for a log, and hold no access token, refresh
token, code, secret, killmail_hash or URL. What follows from an error (retry, defer, sign out) is left to the caller.
"""

from __future__ import annotations


class EsiError(Exception):
    """ESI did not give what was asked for.

    `permanent`: the same request can never succeed. `retry_after`: seconds ESI asked to wait, None when it did not
    say. `status`: HTTP status of the answer, None when there was none.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.status = status


class EsiTransport(EsiError):
    """No answer, or one that cannot be read or believed. Says nothing about the thing that was asked for."""


class EsiStatus(EsiError):
    """A status that the route does not document, such as 400, 500 or a redirect."""


class EsiUnauthorized(EsiStatus):
    """401. Another access token may help; the refresh token is not refused by this (only the SSO can say that)."""


class EsiForbidden(EsiStatus):
    """403. `missing_scope`: ESI said that the access token lacks the scope.

    Its own check may be what failed, so that is to be believed only if a fresh token's claims say the same.
    """

    def __init__(self, message: str, *, missing_scope: bool = False) -> None:
        super().__init__(message, status=403)
        self.missing_scope = missing_scope


class EsiNotFound(EsiStatus):
    """404. Also seen for things that exist, during maintenance (esi-issues #1005), so never permanent."""


class EsiInvalidHash(EsiStatus):
    """422. Seen for right hashes under load (zKillboard #210), so final only for whoever has counted a few of them."""


class EsiRateLimited(EsiError):
    """429. `bare`: it came without the bucket's headers, from a limiter inside the game server."""

    def __init__(self, message: str, *, retry_after: float | None, bare: bool) -> None:
        super().__init__(message, retry_after=retry_after, status=429)
        self.bare = bare


class EsiErrorLimited(EsiError):
    """420. `retry_after` is always set: the seconds until the error window ends."""


class EsiDowntime(EsiError):
    """ESI or the game server behind it is away: 502, 503, 504, another 5xx of its load balancer, maintenance."""


class SsoError(Exception):
    """EVE SSO did not give what was asked for. `permanent` and `retry_after` (seconds) as in EsiError.

    `answer_lost`: the request was sent and may have been carried out, but no whole answer arrived. `timed_out`: because
    it was waited for in vain, for as long as is waited for an answer.
    `whole_service`: it failed before anything of a pilot's was sent, so that no single pilot can be the cause.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        answer_lost: bool = False,
        timed_out: bool = False,
        whole_service: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after
        self.answer_lost = answer_lost
        self.timed_out = timed_out
        self.whole_service = whole_service


class SsoRefused(SsoError):
    """The token endpoint refused the code or refresh token itself. Only a new login helps."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class SsoUnavailable(SsoError):
    """The SSO could not answer. Nobody may be signed out for it."""


class SsoConfiguration(SsoError):
    """Our application's setup is at fault; the text says what to check. Nobody may be signed out for it."""


class SsoInvalidToken(SsoError):
    """An access token does not verify. `check` names the check that failed: signature, expiry, issuer, …"""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(f"access token refused: {message}", permanent=True)
        self.check = check
