"""Who is calling: the address or user a limit counts against, and whether a page of another site sent the request."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from flask import Request, request
from flask_limiter import Limiter
from limits import parse

from api import system
from api.errors import RateLimited
from api.session import current_user
from settings import Settings

#: Requests a minute: per address for logins, per user (or address, signed out) for the API.
LOGIN_LIMIT = "30/minute"
GRAPHQL_LIMIT = "600/minute"
MUTATION_LIMIT = "60/minute"
#: Bits of an IPv6 address that its holder chooses: the smallest network anybody is given is a /64.
HOST_BITS = 64
#: An address as some proxies write it: with the client's port, an IPv6 one in brackets.
_WITH_PORT = re.compile(r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::\d{1,5})?|(?P<v4>[0-9.]+):\d{1,5}", re.ASCII)


def client_address() -> str:
    """Whose request this is, as the limits count: an IPv4 address, or the /64 of an IPv6 one.

    A proxy in TRUSTED_PROXIES is believed about the address it adds last, and about nothing that stands before that.
    """
    peer = _address(request.remote_addr or "")
    if peer is None:
        return "unknown"
    trusted = system.current().settings.trusted_proxies
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    while hops and any(peer in network for network in trusted):
        told = _forwarded(hops.pop().strip())
        if told is None:
            break
        peer = told
    return str(peer) if peer.version == 4 else str(IPv6Network((int(peer) >> HOST_BITS << HOST_BITS, 128 - HOST_BITS)))


def _forwarded(text: str) -> IPv4Address | IPv6Address | None:
    """The address in one entry of X-Forwarded-For, without its port; None for anything else."""
    match = _WITH_PORT.fullmatch(text)
    return _address(text if match is None else match["v6"] or match["v4"])


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # A socket that listens to both shows an IPv4 peer like this.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def user_or_address() -> str:
    """Whom the API's limits count against."""
    user = current_user()
    return f"user {user.id}" if user is not None else client_address()


#: Counts are kept per process: a guard against floods, not an accounting.
limiter = Limiter(client_address, storage_uri="memory://", strategy="fixed-window")


def count_mutation() -> None:
    """Raises RateLimited for a caller who changes things too often."""
    if not limiter.limiter.hit(parse(MUTATION_LIMIT), "mutation", user_or_address()):
        raise RateLimited("Too many changes. Please wait a minute.")


def is_own_origin(incoming: Request, settings: Settings) -> bool:
    """False for a request that a page of another site made. Programs send no Origin, and have no cookie to misuse."""
    origin = incoming.headers.get("Origin")
    if origin is None:
        return True
    callback = urlsplit(settings.eve_callback_url)
    # Compared as text: what cannot be parsed is not ours either.
    ours = (f"{callback.scheme}://{callback.netloc}", f"http://{incoming.host}", f"https://{incoming.host}")
    return origin in ours
