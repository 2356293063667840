"""What ESI's routes return, as values, checked field by field.

Pure. The invariant: a value that exists is within the bounds written here; a body that is not raises MalformedError
with the field's name. One broken entry in a list of killmails breaks the answer, because a list that lacks an entry
would be taken for whole; one broken name is left out, because it would keep the others from being named.
The shapes are those of the OpenAPI document of 2026-08-18.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esi.answers import MalformedError, fresh_for, integer, objects, text

#: Ids a POST /universe/names takes (OpenAPI: maxItems).
MAX_NAMES = 1000
#: X-Pages believed; 1,000 killmails a page.
MAX_PAGES = 10_000
#: References on one page (Swagger: maxItems 1000), with room for a larger page.
MAX_REFERENCES = 10_000
#: Characters of a name. Far above any name in the game; a wall against what is not one.
MAX_NAME = 500

#: The categories of POST /universe/names (OpenAPI).
CATEGORIES = frozenset(
    {
        "alliance",
        "character",
        "constellation",
        "corporation",
        "faction",
        "inventory_type",
        "region",
        "solar_system",
        "station",
    }
)

_HASH = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[\x20-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a list tells of a killmail. The hash is a secret of those in whose lists it stands, hence not in repr."""

    killmail_id: int
    killmail_hash: str

    def __repr__(self) -> str:
        return f"Reference(killmail_id={self.killmail_id})"


@dataclass(frozen=True, slots=True)
class RecentPage:
    """One page of a list, in ESI's order, no killmail_id twice.

    `pages`: how many there are now. `fresh_for`: seconds until asking again can tell something new. `past_end`: the
    page lies behind the end of the list, or the list is empty.
    """

    references: tuple[Reference, ...]
    pages: int
    etag: str | None
    fresh_for: float
    last_modified: str | None
    past_end: bool = False


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page is the one whose ETag was sent. `fresh_for` in seconds."""

    fresh_for: float


@dataclass(frozen=True, slots=True)
class Name:
    """What an id is called; `category` is one of CATEGORIES."""

    id: int
    name: str
    category: str


@dataclass(frozen=True, slots=True)
class NamesFound:
    """`unknown`: ids ESI refused by themselves. An id in neither was not settled: ask again later."""

    names: tuple[Name, ...]
    unknown: frozenset[int]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The game server. `vip`: only staff may log in, as after a downtime."""

    players: int
    vip: bool
    server_version: str


def is_killmail_hash(value: object) -> bool:
    """Whether `value` is 40 lower-case hexadecimal digits."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def recent_page(body: Any, headers: Mapping[str, str]) -> RecentPage:
    """One page of a list from its decoded body and its answer's headers."""
    return RecentPage(
        references=_references(body),
        pages=_pages(headers),
        etag=_etag(headers),
        fresh_for=fresh_for(headers),
        last_modified=headers.get("Last-Modified"),
    )


def killmail_body(body: Any, killmail_id: int) -> dict[str, Any]:
    """The JSON object of one killmail, checked only for being the one that was asked for."""
    mapping = _mapping(body)
    if integer(mapping.get("killmail_id"), "killmail_id") != killmail_id:
        raise MalformedError("it is another killmail")
    return mapping


def names(body: Any, asked: frozenset[int]) -> list[Name]:
    """The usable names of ids that were asked for; every other entry is left out."""
    found: dict[int, Name] = {}
    for entry in objects(body, "names"):
        try:
            name = text(entry.get("name"), "name", most=MAX_NAME)
            usable = Name(integer(entry.get("id"), "id"), name, _category(entry))
        except MalformedError:
            continue
        if usable.id in asked:
            found[usable.id] = usable
    return list(found.values())


def character_name(body: Any) -> str:
    """The name of a character."""
    return text(_mapping(body).get("name"), "name", most=MAX_NAME)


def security_status(body: Any, solar_system_id: int) -> float:
    """The security status in a solar system's body, which has to be that of the one that was asked for."""
    mapping = _mapping(body)
    if integer(mapping.get("system_id"), "system_id") != solar_system_id:
        raise MalformedError("it is another solar system")
    status: Any = mapping.get("security_status")
    if type(status) not in (int, float) or not -1.0 <= status <= 1.0:
        raise MalformedError("security_status is not a number from -1.0 to 1.0")
    return float(status)


def server_status(body: Any) -> ServerStatus:
    """The state of the game server; before 2026 `vip` was left out when false."""
    mapping = _mapping(body)
    return ServerStatus(
        players=integer(mapping.get("players"), "players", least=0),
        vip=mapping.get("vip") is True,
        server_version=text(mapping.get("server_version"), "server_version", most=100),
    )


def prices(body: Any) -> dict[int, float]:
    """ISK by type_id: the average price, else the adjusted one; types that have neither are left out."""
    by_type: dict[int, float] = {}
    for position, entry in enumerate(objects(body, "prices")):
        type_id = integer(entry.get("type_id"), f"prices[{position}].type_id")
        price = entry.get("average_price")
        if price is None:
            price = entry.get("adjusted_price")
        if price is None:
            continue
        if type(price) not in (int, float) or price < 0:
            raise MalformedError(f"prices[{position}] has a price that is not a positive number")
        by_type[type_id] = float(price)
    return by_type


def _references(body: Any) -> tuple[Reference, ...]:
    entries = objects(body, "references")
    if len(entries) > MAX_REFERENCES:
        raise MalformedError(f"references has more than {MAX_REFERENCES} entries")
    by_id: dict[int, Reference] = {}
    for position, entry in enumerate(entries):
        killmail_id = integer(entry.get("killmail_id"), f"references[{position}].killmail_id")
        killmail_hash = entry.get("killmail_hash")
        if not is_killmail_hash(killmail_hash):
            raise MalformedError(f"references[{position}].killmail_hash is not 40 lower-case hexadecimal digits")
        by_id.setdefault(killmail_id, Reference(killmail_id, str(killmail_hash)))
    return tuple(by_id.values())


def _pages(headers: Mapping[str, str]) -> int:
    value = headers.get("X-Pages", "1").strip()
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise MalformedError("X-Pages is not a number")
    return integer(max(int(value), 1), "X-Pages", most=MAX_PAGES)  # an empty list may well have no page


def _etag(headers: Mapping[str, str]) -> str | None:
    value = headers.get("ETag", "").strip()
    return value if _ETAG.fullmatch(value) else None


def _category(entry: Mapping[str, Any]) -> str:
    category = entry.get("category")
    if not isinstance(category, str) or category not in CATEGORIES:
        raise MalformedError("category is not a known one")
    return category


def _mapping(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise MalformedError("it is not an object")
    return body
