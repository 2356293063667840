"""The SSO's metadata document (RFC 8414), believed only as far as it stays at home.

The invariant: every endpoint is HTTPS, or HTTP on this machine, on the host of SSO_URL or a subdomain of it, at the
same port. So a hostile or misconfigured document cannot send a secret, a code or a browser elsewhere, nor name the
keys and the issuer of somebody else. Fetching and caching are left to `sso.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from esi.errors import SsoConfiguration, SsoUnavailable

METADATA_PATH = "/.well-known/oauth-authorization-server"
#: Characters of an address in the document.
MAX_URL = 2000


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where the SSO's endpoints are, and the issuer its tokens name."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    revocation_endpoint: str


def read_metadata(document: Mapping[str, Any], sso_url: str) -> Metadata:
    """The endpoints of a decoded document.

    Raises SsoUnavailable for one that is broken, SsoConfiguration for one that leads away from `sso_url`.
    """
    home = urlsplit(sso_url)
    return Metadata(**{name: _address(document, name, home) for name in Metadata.__slots__})


def _address(document: Mapping[str, Any], name: str, home: SplitResult) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_URL:
        raise SsoUnavailable(f"SSO metadata: the answer is broken: {name} is missing or not an address")
    if not _at_home(value, home):
        raise SsoConfiguration(
            f"SSO metadata: {name} is not at the host of SSO_URL by https (or http on this machine); check SSO_URL"
        )
    return value


def _at_home(address: str, home: SplitResult) -> bool:
    if not (address.isascii() and address.isprintable()) or any(mark in address for mark in " \\@?#"):
        return False  # where parsers disagree about the host there is no good reason to be
    try:
        url = urlsplit(address)
        host, home_host = url.hostname or "", home.hostname or ""
        if _port(url) != _port(home):
            return False
    except ValueError:
        return False
    if is_loopback(host) and is_loopback(home_host):
        return url.scheme in ("http", "https")
    return url.scheme == "https" and (host == home_host or host.endswith(f".{home_host}"))


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _port(url: SplitResult) -> int | None:
    return url.port or {"https": 443, "http": 80}.get(url.scheme)
