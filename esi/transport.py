"""One HTTP request, one bounded answer, over one kept-alive connection a thread.

The invariant: no exception, text or log line of the HTTP libraries leaves this module, because theirs hold URLs
(a killmail's URL ends with its hash), headers (access tokens) and bodies (refresh tokens). And a permit hears exactly
once how its request ended. Nothing is retried and no redirect is followed: each request was paid for one by one.
Decoding an answer, and what its status means, is left to `answers.py`, `client.py` and `sso.py`.

A weakness: time is bounded from connect to the headers' first byte and over the body, but a server that sends its
headers byte by byte is only bounded by `read_timeout` between two bytes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Protocol

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

#: urllib3 logs the request's path at DEBUG, and at WARNING when an answer's headers are malformed; with the path goes
#: the killmail_hash. At ERROR it logs nothing.
logging.getLogger("urllib3").setLevel(logging.ERROR)

#: Bytes of a decoded body read at once.
CHUNK = 64 * 1024

#: What a failing request can raise: requests' own, urllib3's that requests lets through, the socket's, and ValueError
#: (with UnicodeError) from headers and URLs that cannot be written.
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)


class Permit(Protocol):
    """Leave to make one request. Exactly one of the three is called, exactly once."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The status line and headers were read. `headers` is case-insensitive. Called before the body is read."""

    def unsent(self) -> None:
        """The request surely never left this machine: nothing was charged."""

    def unanswered(self) -> None:
        """The request may have been sent and was not answered: it may have been charged."""


class Unmetered:
    """The permit for requests nobody counts."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """Nothing to tell."""

    def unsent(self) -> None:
        """Nothing to tell."""

    def unanswered(self) -> None:
        """Nothing to tell."""


class TransportError(Exception):
    """The request ended without a whole answer. The text is ours: it names the reason and nothing of the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, case-insensitive headers and the whole decoded body.

    `broken` says why the body could not be read to its end (`body` is then empty), None when it was.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str | None = None


class Transport:
    """Makes requests to one host. Safe to share between threads; make it after a fork, not before."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        connect_timeout: float,
        read_timeout: float,
        max_bytes: int,
    ) -> None:
        """`headers` go with every request; timeouts in seconds; a decoded body over `max_bytes` is refused."""
        self._headers = dict(headers)
        self._timeout = (connect_timeout, read_timeout)
        # The clock is looked at between two reads, so that the last one may take `read_timeout` more: with the default
        # timeouts a request ends within 3 + 15 + 10 + 15 s, below the 45 s a killmail's fetch may take.
        self._body_seconds = read_timeout * 2 / 3
        self._max_bytes = max_bytes
        # Read once: requests would read the environment, and ~/.netrc in place of our Authorization, every time.
        self._proxies = get_environ_proxies(base_url)
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._sessions_lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        permit: Permit,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        """Make one request and tell `permit` how it ended. Raises TransportError when there was no answer."""
        failure: tuple[bool, str]
        try:
            response = self._session().request(
                method, url, headers=headers, data=data, timeout=self._timeout, stream=True, allow_redirects=False
            )
        except _FAILURES as error:
            failure = _classify(error)
        except BaseException:  # the thread is being interrupted; what was sent is unknown
            permit.unanswered()
            raise
        else:
            try:
                permit.answered(response.status_code, response.headers)
                return self._read(response)
            finally:
                response.close()
        # Raised here and not above, so that the library's exception is not even the context of ours.
        sent, reason = failure
        if sent:
            permit.unanswered()
        else:
            permit.unsent()
        raise TransportError(reason)

    def close(self) -> None:
        """Close the connections of all threads. A later request opens a new one."""
        with self._sessions_lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.headers.update({"Accept-Encoding": "gzip", **self._headers})
            session.trust_env = False
            session.proxies.update(self._proxies)
            session.verify = self._verify
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            adapter = HTTPAdapter(pool_connections=1, pool_maxsize=1, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            with self._sessions_lock:
                self._sessions.add(session)
        return session

    def _read(self, response: requests.Response) -> Answer:
        body, broken = bytearray(), None
        deadline = time.monotonic() + self._body_seconds
        try:
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                body += chunk
                if len(body) > self._max_bytes:
                    broken = f"the answer is larger than {self._max_bytes // 1024} KiB"
                    break
                if time.monotonic() > deadline:
                    broken = f"the answer took longer than {self._body_seconds:g} s"
                    break
        except _FAILURES as error:
            broken = _why_broken(error)
        return Answer(response.status_code, response.headers, b"" if broken else bytes(body), broken)


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """No redirect has a target: requests would read the whole body, unbounded, only to prepare the next request."""
        return None


def _classify(error: Exception) -> tuple[bool, str]:
    """Whether the request may have been sent, and the reason in words of our own."""
    cause = _urllib3_cause(error)
    if isinstance(error, requests.ConnectTimeout):
        return False, "no connection within the connect timeout"
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return False, "no connection: refused, or the host was not found"
    if isinstance(error, requests.exceptions.ProxyError):
        return False, "the proxy gave no connection"
    if isinstance(error, requests.exceptions.SSLError):
        return True, "TLS failed: check the certificate and the clock"
    if isinstance(error, requests.ReadTimeout):
        return True, "no answer within the read timeout"
    if isinstance(error, requests.ConnectionError):
        return True, "the connection broke before the answer"
    if isinstance(error, ValueError):  # InvalidURL, InvalidHeader, UnicodeError: never got as far as the socket
        return False, "the request cannot be written: a header or the address holds what HTTP does not allow"
    return True, "the answer is not HTTP"


def _urllib3_cause(error: Exception) -> object:
    """urllib3's reason inside requests' exception: `ConnectionError(MaxRetryError(reason))`."""
    return getattr(error.args[0], "reason", None) if error.args else None


def _why_broken(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError):
        return "the answer stopped within the read timeout"
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "the answer's compression is broken"
    return "the answer broke off"
