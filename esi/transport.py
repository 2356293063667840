"""One HTTP request, one bounded answer, over one kept-alive connection a thread.

The invariant: no exception, text or log line of the HTTP libraries leaves this module, because theirs hold URLs
(a killmail's URL ends with its hash), headers (access tokens) and bodies (refresh tokens). And a permit hears exactly
once how its request ended. Nothing is retried and no redirect is followed: each request was paid for one by one.
Decoding an answer, and what its status means, is left to `answers.py`, `client.py` and `sso.py`.

Time is bounded as a whole, however slowly a server sends: for the connection, from the request to the last header, and
over the body. A weakness: a connection that the server closes between `ready` and `send` is opened by `send` again.
"""

from __future__ import annotations

import http.client
import io
import logging
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

#: urllib3 logs the request's path at DEBUG, and at WARNING when an answer's headers are malformed; with the path goes
#: the killmail_hash. At ERROR it logs nothing.
logging.getLogger("urllib3").setLevel(logging.ERROR)

#: Bytes of a decoded body read at once.
CHUNK = 64 * 1024
#: Of the read timeout: until when the body may be read, but for the last read.
BODY_PART = 2 / 3

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
    """The request ended without a whole answer. The text is ours: it names the reason and nothing of the request.

    `timed_out`: it was sent, and the answer was waited for in vain for the whole read timeout.
    """

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, case-insensitive headers and the whole decoded body.

    `broken` says why the body could not be read to its end (`body` is then empty), None when it was. `timed_out`:
    because the rest of it was waited for in vain.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    broken: str | None = None
    timed_out: bool = False


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
        self._base_url = base_url
        self._headers = dict(headers)
        self._timeout = (connect_timeout, read_timeout)
        self._max_bytes = max_bytes
        # Read once: requests would read the environment, and ~/.netrc in place of our Authorization, every time.
        self._proxies = get_environ_proxies(base_url)
        self._verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        self._local = threading.local()
        self._sessions: weakref.WeakSet[requests.Session] = weakref.WeakSet()
        self._sessions_lock = threading.Lock()

    def ready(self) -> None:
        """Open this thread's connection to `base_url`, TLS and all, if it is not open. Sends no request.

        Without it a first request arrives later than it left by a whole handshake, together with those that left
        meanwhile. Raises TransportError when there is no connection to be had.
        """
        try:
            self._session().open(self._base_url, self._timeout[0])
        except _FAILURES as error:
            reason = _why_not_connected(error)
        else:
            return
        raise TransportError(reason)

    def send(
        self,
        method: str,
        url: str,
        permit: Permit,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        read_timeout: float | None = None,
    ) -> Answer:
        """Make one request and tell `permit` how it ended. Raises TransportError when there was no answer.

        `read_timeout`: seconds, where this request has another than the others.
        """
        failure: tuple[bool, str]
        connect_timeout, usual = self._timeout
        timeout = (connect_timeout, usual if read_timeout is None else read_timeout)
        try:
            response = self._session().request(
                method, url, headers=headers, data=data, timeout=timeout, stream=True, allow_redirects=False
            )
        except _FAILURES as error:
            failure, timed_out = _classify(error), isinstance(error, requests.ReadTimeout)
        except BaseException:  # the thread is being interrupted; what was sent is unknown
            permit.unanswered()
            raise
        else:
            try:
                permit.answered(response.status_code, response.headers)
                return _read(response, timeout[1], self._max_bytes)
            finally:
                response.close()
        # Raised here and not above, so that the library's exception is not even the context of ours.
        sent, reason = failure
        if sent:
            permit.unanswered()
        else:
            permit.unsent()
        raise TransportError(reason, timed_out=timed_out)

    def close(self) -> None:
        """Close the connections of all threads. A later request opens a new one."""
        with self._sessions_lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.close()

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.headers.update({"Accept-Encoding": "gzip", **self._headers})
            session.trust_env = False
            session.proxies.update(self._proxies)
            session.verify = self._verify
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            adapter = _Adapter(pool_connections=1, pool_maxsize=1, max_retries=0)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            with self._sessions_lock:
                self._sessions.add(session)
        return session


def _read(response: requests.Response, read_timeout: float, max_bytes: int) -> Answer:
    """The answer with its body. The clock is looked at between two reads, so that the last one may take `read_timeout`
    more: with the default timeouts a request ends within 3 + 15 + 10 + 15 s, below the 45 s a killmail's fetch may
    take."""
    body, broken, timed_out = bytearray(), None, False
    body_seconds = read_timeout * BODY_PART
    deadline = time.monotonic() + body_seconds
    try:
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            body += chunk
            if len(body) > max_bytes:
                broken = f"the answer is larger than {max_bytes // 1024} KiB"
                break
            if time.monotonic() > deadline:
                broken, timed_out = f"the answer took longer than {body_seconds:g} s", True
                break
    except _FAILURES as error:
        broken, timed_out = _why_broken(error), _is_timeout(error)
    return Answer(response.status_code, response.headers, b"" if broken else bytes(body), broken, timed_out)


class _UntilDeadline(io.RawIOBase):
    """What a socket receives, each read within the socket's timeout and all of them before a deadline."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._raw: Any = sock.makefile("rb", buffering=0)  # keeps the socket open until it is closed, too
        self._timeout = timeout
        self.end_within(timeout)

    def end_within(self, seconds: float) -> None:
        """The deadline is so many seconds from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, self._timeout))
        try:
            received: int | None = self._raw.readinto(buffer)
            return received
        finally:
            self._sock.settimeout(self._timeout)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Ends in time, also where a server sends it byte by byte: the head within the read timeout from the request on;
    the body, whose chunks' own heads and trailers only this bounds, in the time that `Transport` allows it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        timeout = sock.gettimeout()
        assert timeout is not None, "Transport sets one for each request"
        self._timeout = timeout
        self._received = _UntilDeadline(sock, timeout)
        self.fp = io.BufferedReader(self._received)

    def begin(self) -> None:
        super().begin()
        self._received.end_within(self._timeout * (BODY_PART + 1))


class _Connection(HTTPConnection):
    response_class = _Response


class _TlsConnection(HTTPSConnection):
    response_class = _Response

    @property
    def is_connected(self) -> bool:
        """Whether it can take a request. Bytes that wait on an idle connection mean its end, says urllib3; but in
        TLS 1.3 a server sends session tickets after the handshake, ahead of any request."""
        if self.sock is None or super().is_connected:
            return self.sock is not None
        before = self.sock.gettimeout()
        self.sock.settimeout(0.0)
        try:
            self.sock.recv(1)  # takes in the tickets; whatever else there is to read was not asked for
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        finally:
            self.sock.settimeout(before)
        return False


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection

    def open(self, connect_timeout: float) -> None:
        """Have an open connection in the pool: the kept one, or a new one where the peer has closed it."""
        connection = self._get_conn()
        try:
            if connection.is_closed:
                connection.timeout = connect_timeout
                self._connect(connection)
        except BaseException:  # half a handshake must not be taken for a connection
            connection.close()
            raise
        finally:
            self._put_conn(connection)

    def _connect(self, connection: Any) -> None:
        connection.connect()


class _TlsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def _connect(self, connection: Any) -> None:
        if self.proxy is not None:
            self._prepare_proxy(connection)  # the tunnel, which `urlopen` makes for a closed connection only
        else:
            connection.connect()


class _Adapter(HTTPAdapter):
    """Pools that can be opened ahead of a request."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def open(self, request: requests.PreparedRequest, connect_timeout: float, verify: Any, proxies: Any) -> None:
        """Open the connection that `request` would go by."""
        pool = self.get_connection_with_tls_context(request, verify, proxies=proxies)
        self.cert_verify(pool, request.url, verify, None)  # type: ignore[no-untyped-call]
        if isinstance(pool, _Pool):
            pool.open(connect_timeout)


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


class _Session(requests.Session):
    _opening: requests.PreparedRequest | None = None

    def open(self, url: str, connect_timeout: float) -> None:
        """Open the connection that requests for `url` go by, if it is not open. Always called with the same `url`."""
        adapter = self.get_adapter(url)
        assert isinstance(adapter, _Adapter)
        if self._opening is None:
            self._opening = requests.Request("GET", url).prepare()
        adapter.open(self._opening, connect_timeout, self.verify, self.proxies)

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


def _why_not_connected(error: Exception) -> str:
    """Why no connection could be opened, in words of our own."""
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "no connection: refused, or the host was not found"
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError):
        return "no connection within the connect timeout"
    if isinstance(error, ssl.SSLError | urllib3.exceptions.SSLError | ssl.CertificateError):
        return "TLS failed: check the certificate and the clock"
    if isinstance(error, ValueError):  # InvalidURL, InvalidProxyURL
        return "no connection: the address, or the proxy's, is none"
    return "no connection: it broke while it was opened"


def _urllib3_cause(error: Exception) -> object:
    """urllib3's reason inside requests' exception: `ConnectionError(MaxRetryError(reason))`."""
    return getattr(error.args[0], "reason", None) if error.args else None


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, urllib3.exceptions.ReadTimeoutError | TimeoutError)


def _why_broken(error: Exception) -> str:
    if _is_timeout(error):
        return "the answer stopped within the read timeout"
    if isinstance(error, urllib3.exceptions.DecodeError):
        return "the answer's compression is broken"
    return "the answer broke off"
