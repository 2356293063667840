"""Who is calling: the address or user a limit counts against, and whether a page of another site sent the request."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Request, request
from flask_limiter import Limiter
from limits import parse

from api.errors import RateLimited
from api.session import current_user
from settings import Settings

#: Requests a minute: per address for logins, per user (or address, signed out) for the API.
LOGIN_LIMIT = "30/minute"
GRAPHQL_LIMIT = "600/minute"
MUTATION_LIMIT = "60/minute"


def client_address() -> str:
    """Whose request this is. A reverse proxy on this machine is believed about the address it adds last."""
    peer = request.remote_addr or "unknown"
    forwarded = request.headers.get("X-Forwarded-For", "")
    if forwarded and peer in ("127.0.0.1", "::1"):
        return forwarded.rpartition(",")[2].strip()
    return peer


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
