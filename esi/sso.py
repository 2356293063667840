"""EVE SSO: authorize, exchange, refresh, verify, revoke. No HTTP-library exception leaves this module.

The address is https://login.eveonline.com (SSO v2, OAuth 2.0 with PKCE S256 and a client secret). The invariants:
secrets go to endpoints of the configured SSO only, whatever its metadata says; no text or repr holds a token, code,
verifier or secret; and only the token endpoint's own refusal is an SsoRefused, so that an outage signs nobody out.
Nothing is retried here. Storing tokens, and who may refresh when, is left to the caller.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from esi.access_token import Identity, KeySet, Verifier
from esi.answers import MalformedError, decode, error_text, integer
from esi.errors import SsoConfiguration, SsoError, SsoRefused, SsoUnavailable
from esi.rate_headers import parse_rate_headers
from esi.sso_metadata import METADATA_PATH, Metadata, read_metadata
from esi.transport import Answer, Transport, TransportError

__all__ = ["Identity", "LoginRequest", "SsoClient", "TokenSet"]

#: Bytes of a decoded answer. Tokens have 2 KiB, key sets 1.
MAX_ANSWER_BYTES = 256 * 1024
#: Seconds the metadata is believed; seconds until it is asked for again when that failed.
METADATA_MAX_AGE = 3600.0
METADATA_RETRY = 60.0
#: Characters of a token that is taken over and stored.
MAX_TOKEN = 16 * 1024

#: The historic wordings of a refused refresh token under `invalid_token` (SeAT). Any other is not believed.
_REFUSED_WORDS = ("the refresh token is expired", "does not match the client specified")
#: Statuses of a proxy that got no answer from the SSO behind it, which may have carried the request out.
_FROM_A_PROXY = (502, 504)
#: Seconds to wait for the answer to a token refresh, of which few may be in progress (`esi/refresh_slots.py`): the SSO
#: answers in well under a second. Not less: what it answers later is lost, with the refresh token in it. Until then
#: the next try, some five seconds later, is within the twenty for which the SSO may still accept the old one.
REFRESH_READ_SECONDS = 8.0
#: OAuth errors (RFC 6749 §5.2) that are our setup, and what to check.
_SETUP = {
    "invalid_client": "EVE_CLIENT_ID and EVE_CLIENT_SECRET",
    "unauthorized_client": "EVE_CLIENT_ID and EVE_CLIENT_SECRET",
    "invalid_scope": "EVE_CLIENT_SCOPES against the application's scopes",
    "invalid_request": "EVE_CALLBACK_URL and the application's settings",
    "unsupported_grant_type": "the application's settings",
}


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """One login on its way: to be kept by the browser's session and used once. Both are secrets."""

    state: str = field(repr=False)
    code_verifier: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What the token endpoint hands out. `expires_in`: seconds. No scope asked for means no refresh token."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in: int


class SsoClient:
    """Safe to share between threads: each has its own connection. Make it after a fork, not before."""

    def __init__(
        self,
        sso_url: str,
        client_id: str,
        client_secret: str,
        callback_url: str,
        user_agent: str,
        connect_timeout: float = 3.05,
        read_timeout: float = 15.0,
        key_refetch_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Timeouts in seconds. `key_refetch_seconds`: how often unknown keys may make the key set be fetched again."""
        self._sso_url = sso_url.rstrip("/")
        self._client_id = client_id
        self._callback_url = callback_url
        credentials = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._authorization = f"Basic {credentials}"
        self._clock = clock
        self._read_timeout = read_timeout
        self._http = Transport(
            self._sso_url,
            {"Accept": "application/json", "User-Agent": user_agent},
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_bytes=MAX_ANSWER_BYTES,
        )
        self._lock = threading.Lock()
        self._metadata: Metadata | None = None
        self._metadata_at = 0.0
        self._metadata_due = 0.0
        self._verifier = Verifier(client_id, KeySet(self._fetch_keys, clock, key_refetch_seconds))

    def close(self) -> None:
        """Close the connections of all threads."""
        self._http.close()

    def new_login(self) -> LoginRequest:
        """A fresh state and PKCE verifier.

        The verifier is base64url of 48 bytes: 64 characters that need no padding, so that CCP's form (padded) and
        the RFC's (unpadded) are the same text.
        """
        return LoginRequest(state=secrets.token_urlsafe(32), code_verifier=secrets.token_urlsafe(48))

    def authorize_url(self, login: LoginRequest, scopes: Sequence[str]) -> str:
        """Where to send the browser. Raises SsoUnavailable or SsoConfiguration when the endpoint is not known."""
        digest = hashlib.sha256(login.code_verifier.encode()).digest()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._callback_url,
            "scope": " ".join(scopes),
            "state": login.state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{self._discover().authorization_endpoint}?{urlencode(query, quote_via=quote)}"

    def exchange(self, code: str, code_verifier: str) -> TokenSet:
        """Turn a callback's code into tokens. Never try it twice: a code is good for one use, sent or not answered.

        Raises SsoRefused (a bad, used or old code), SsoUnavailable, SsoConfiguration.
        """
        return self._tokens({"grant_type": "authorization_code", "code": code, "code_verifier": code_verifier}, "login")

    def refresh(self, refresh_token: str) -> TokenSet:
        """A new access token. Store the refresh token that comes with it, if one does: it may differ.

        Raises SsoRefused (only a new login helps), SsoUnavailable (try again later), SsoConfiguration.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._tokens(form, "token refresh", read_timeout=min(REFRESH_READ_SECONDS, self._read_timeout))

    def verify(self, access_token: str) -> Identity:
        """Who an access token speaks for. Raises SsoInvalidToken, and SsoUnavailable when keys cannot be had."""
        return self._verifier.verify(access_token, self._discover().issuer)

    def revoke(self, refresh_token: str) -> None:
        """Make the SSO forget a refresh token; an unknown one is no error. Raises SsoUnavailable, SsoConfiguration."""
        form = {"token_type_hint": "refresh_token", "token": refresh_token}
        answer = self._post(self._discover().revocation_endpoint, form, "token revocation")
        if answer.status != 200 and not isinstance(error := _error_of(answer, "token revocation"), SsoRefused):
            raise error

    def _tokens(self, form: Mapping[str, str], what: str, read_timeout: float | None = None) -> TokenSet:
        answer = self._post(self._discover().token_endpoint, form, what, read_timeout)
        if answer.status != 200:
            raise _error_of(answer, what)
        return _token_set(_body(answer, what), what)

    def _post(self, url: str, form: Mapping[str, str], what: str, read_timeout: float | None = None) -> Answer:
        headers = {"Authorization": self._authorization, "Content-Type": "application/x-www-form-urlencoded"}
        answer = self._send("POST", url, what, headers, urlencode(form).encode(), read_timeout)
        if answer.status >= 500 or answer.status == 404:
            self._doubt_metadata()
        return answer

    def _send(
        self,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        read_timeout: float | None = None,
    ) -> Answer:
        delivery = _Delivery()
        try:
            return self._http.send(method, url, delivery, headers=headers, data=data, read_timeout=read_timeout)
        except TransportError as failure:
            self._doubt_metadata()
            lost = delivery.may_have_arrived
            raise SsoUnavailable(
                f"{what}: {failure}", answer_lost=lost, timed_out=failure.timed_out, whole_service=not lost
            ) from failure

    def _discover(self) -> Metadata:
        """The SSO's endpoints: fetched at most once an hour, the last good ones when that fails."""
        with self._lock:
            if self._metadata is not None and self._clock() < self._metadata_due:
                return self._metadata
        try:
            metadata = self._fetch_metadata()
        except SsoError:
            with self._lock:
                if self._metadata is None:
                    raise
                self._metadata_due = self._clock() + METADATA_RETRY
                return self._metadata
        with self._lock:
            self._metadata, self._metadata_at = metadata, self._clock()
            self._metadata_due = self._metadata_at + METADATA_MAX_AGE
        return metadata

    def _doubt_metadata(self) -> None:
        """After a failure: ask for the endpoints again before they are used again, but not for every failure."""
        with self._lock:
            self._metadata_due = min(self._metadata_due, self._metadata_at + METADATA_RETRY)

    def _fetch_metadata(self) -> Metadata:
        what = "SSO metadata"
        with _whole_service():
            answer = self._send("GET", self._sso_url + METADATA_PATH, what)
            if answer.status == 404:
                raise SsoConfiguration(f"{what}: not found (404); check SSO_URL")
            return read_metadata(_body(answer, what), self._sso_url)

    def _fetch_keys(self) -> Mapping[str, Any]:
        with _whole_service():
            answer = self._send("GET", self._discover().jwks_uri, "SSO keys")
            return _body(answer, "SSO keys")


class _Delivery:
    """The permit of a request that is not counted: notes whether the request may have reached the SSO."""

    may_have_arrived = True

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """It arrived."""

    def unsent(self) -> None:
        self.may_have_arrived = False

    def unanswered(self) -> None:
        """It may have arrived."""


@contextmanager
def _whole_service() -> Iterator[None]:
    """Marks what fails inside: these requests carry nothing of a pilot's, so no single pilot is the cause."""
    try:
        yield
    except SsoError as error:
        error.whole_service, error.answer_lost = True, False
        raise


def _body(answer: Answer, what: str) -> dict[str, Any]:
    """The JSON object of a 200; raises SsoUnavailable for every other answer."""
    wait = parse_rate_headers(answer.headers).retry_after
    if answer.status != 200:
        raise SsoUnavailable(f"{what}: unexpected status {answer.status}", retry_after=wait)
    try:
        if answer.broken:
            raise MalformedError(answer.broken)
        body = decode(answer.body)
        if not isinstance(body, dict):
            raise MalformedError("it is not an object")
    except MalformedError as error:
        raise SsoUnavailable(
            f"{what}: the answer is broken: {error}", retry_after=wait, answer_lost=True, timed_out=answer.timed_out
        ) from error
    return body


def _error_of(answer: Answer, what: str) -> SsoError:
    """The error that a status other than 200 of the token or revocation endpoint is."""
    if 400 <= answer.status < 500 and answer.status != 429:
        error, description = _oauth_error(answer)
        if error == "invalid_grant":
            return SsoRefused(f"{what}: the SSO refused the grant (invalid_grant); a new login is needed")
        if error == "invalid_token" and any(words in description for words in _REFUSED_WORDS):
            return SsoRefused(f"{what}: the SSO refused the token (invalid_token); a new login is needed")
        if error in _SETUP:
            return SsoConfiguration(f"{what}: the SSO answered {error}; check {_SETUP[error]}")
    wait = parse_rate_headers(answer.headers).retry_after
    return SsoUnavailable(
        f"{what}: the SSO answered {answer.status}; try again later",
        retry_after=wait,
        answer_lost=answer.status in _FROM_A_PROXY,
        timed_out=answer.status == 504,
    )


def _oauth_error(answer: Answer) -> tuple[str, str]:
    """`error` and the lower-case `error_description` of an OAuth error (RFC 6749 §5.2), else empty."""
    return error_text(answer), error_text(answer, "error_description").lower()


def _token_set(body: Mapping[str, Any], what: str) -> TokenSet:
    try:
        if str(body.get("token_type", "")).lower() != "bearer":
            raise MalformedError("token_type is not Bearer")
        refresh_token = body.get("refresh_token")
        return TokenSet(
            access_token=_token(body.get("access_token"), "access_token"),
            refresh_token=_token(refresh_token, "refresh_token") if refresh_token else None,
            expires_in=integer(body.get("expires_in"), "expires_in", most=24 * 3600),
        )
    except MalformedError as error:
        raise SsoUnavailable(f"{what}: the answer is broken: {error}") from error


def _token(value: Any, name: str) -> str:
    """A token is 1 to MAX_TOKEN printable ASCII characters without spaces (RFC 6749 §A.12 and §A.17)."""
    if type(value) is not str or not 1 <= len(value) <= MAX_TOKEN:
        raise MalformedError(f"{name} is not text of 1 to {MAX_TOKEN} characters")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise MalformedError(f"{name} holds characters a token cannot have")
    return value
