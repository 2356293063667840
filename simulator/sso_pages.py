"""The few pages a person sees of the simulated SSO. Every name on them is escaped."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Final
from urllib.parse import urlencode

from simulator.wire import Response
from simulator.world import Pilot

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; background: #10141a; color: #d7dde5; margin: 0;
  display: grid; place-items: center; min-height: 100vh }}
main {{ width: min(28rem, 90vw) }}
a {{ display: block; padding: .8rem 1rem; margin: .5rem 0; border: 1px solid #33404f; border-radius: .4rem;
  color: inherit; text-decoration: none; overflow-wrap: anywhere }}
a:hover, a:focus {{ border-color: #7fb2ff }}
small {{ color: #8b98a8 }}
</style></head><body><main><h1>{title}</h1>{body}</main></body></html>
"""


def _page(status: int, title: str, body: str) -> Response:
    return Response.html(status, _PAGE.format(title=escape(title), body=body))


def choose_pilot(pilots: Iterable[Pilot], path: str, query: Mapping[str, str], scopes: tuple[str, ...]) -> Response:
    """The page where a person picks who to log in as; each link goes on with the same question."""
    links = []
    for pilot in pilots:
        address = f"{path}?{urlencode({**query, 'character_id': pilot.character_id})}"
        count = f"{len(pilot.killmail_ids)} killmails"
        links.append(f'<a href="{escape(address)}">{escape(pilot.name)} <small>{count}</small></a>')
    asked = escape(", ".join(scopes) or "nothing but who you are")
    return _page(200, "Choose a pilot", f"<p>The application asks for: {asked}</p>{''.join(links)}")


def refusal(reason: str) -> Response:
    """A question that must not be answered by a redirect."""
    return _page(400, "This login cannot go on", f"<p>{escape(reason)}</p>")


def unavailable() -> Response:
    """What the load balancer says while SSO is down."""
    return _page(503, "Service Unavailable", "<p>EVE SSO is temporarily unavailable.</p>")
