"""The path under which the site is served, where it shares its domain: what EVE_CALLBACK_URL has before /auth/callback.

The proxy passes paths on as they are. What comes without the prefix is served as well: a health check at the port
itself, a proxy that strips it. Links, redirects and cookies name the prefix either way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from settings import CALLBACK_PATH, Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def prefix_of(settings: Settings) -> str:
    """`/tools/eve` for https://example.org/tools/eve/auth/callback; empty where the site has the domain to itself."""
    return urlsplit(settings.eve_callback_url).path.removesuffix(CALLBACK_PATH)


class UnderPrefix:
    """WSGI middleware: moves the prefix from the path to SCRIPT_NAME, from which Flask makes every address."""

    def __init__(self, app: WSGIApplication, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if f"{path}/".startswith(f"{self._prefix}/"):
            environ["PATH_INFO"] = path[len(self._prefix) :]
        environ["SCRIPT_NAME"] = self._prefix
        return self._app(environ, start_response)
