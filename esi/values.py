"""What ESI's routes return, as values, checked field by field.

Pure. The invariant: a value that exists is within the bounds written here; a body that is not raises MalformedError
with the field's name. A malformed entry in a list of killmails is left out and counted (`RecentPage.unreadable`), so
that the others are stored and the reader knows that the list is not whole; so is a malformed name or price.
The shapes are those of the OpenAPI document of 2026-08-18.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esi.answers import INT64_MAX, MalformedError, fresh_for, integer, text

#: Ids a POST /universe/names takes (OpenAPI: maxItems).
MAX_NAMES = 1000
#: X-Pages believed; 1,000 killmails a page.
MAX_PAGES = 10_000
#: References on one page (Swagger: maxItems 1000), with room for a larger page. Those after it are not read.
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
#: ESI lists lower-case digits. A SHA-1 in capitals is the same number, and asked for in lower case.
_ANY_CASE_HASH = re.compile(r"[0-9a-fA-F]{40}")
_PAGES = re.compile(r"[0-9]{1,6}")
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

    `pages`: how many there are now; None where ESI does not say. `fresh_for`: seconds until asking again can tell
    something new. `past_end`: the page lies behind the end of the list, or the list is empty. `other_hashes`: of an id
    that stands on the page again with another hash, that one. `unreadable`: the positions (from 0) of entries that are
    no reference. `entries`: how long the page is, with those and with ids that are repeated.
    """

    references: tuple[Reference, ...]
    pages: int | None
    etag: str | None
    fresh_for: float
    last_modified: str | None
    past_end: bool = False
    other_hashes: tuple[Reference, ...] = ()
    unreadable: tuple[int, ...] = ()
    entries: int = 0


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
    """`unknown`: ids ESI refused by themselves. An id in neither was not settled: ask again later.

    `unreadable`: entries of ESI's answers that are no name of an id that was asked for.
    """

    names: tuple[Name, ...]
    unknown: frozenset[int]
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Prices:
    """ISK by type_id. `unreadable`: entries of the list that are no price."""

    by_type: dict[int, float]
    unreadable: int = 0


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
    """One page of a list from its decoded body and its answer's headers. Raises MalformedError if it is no list."""
    if type(body) is not list:
        raise MalformedError("references is not a list")
    first: dict[int, Reference] = {}
    other: dict[int, Reference] = {}
    unreadable = list(range(MAX_REFERENCES, len(body)))
    for position, entry in enumerate(body[:MAX_REFERENCES]):
        reference = _reference(entry)
        if reference is None:
            unreadable.append(position)
        elif first.setdefault(reference.killmail_id, reference) != reference:
            other.setdefault(reference.killmail_id, reference)
    return RecentPage(
        references=tuple(first.values()),
        pages=_pages(headers),
        etag=_etag(headers),
        fresh_for=fresh_for(headers),
        last_modified=headers.get("Last-Modified"),
        other_hashes=tuple(other.values()),
        unreadable=tuple(sorted(unreadable)),
        entries=len(body),
    )


def killmail_body(body: Any, killmail_id: int) -> dict[str, Any]:
    """The JSON object of one killmail, checked only for being the one that was asked for."""
    mapping = _mapping(body)
    if integer(mapping.get("killmail_id"), "killmail_id") != killmail_id:
        raise MalformedError("it is another killmail")
    return mapping


def names(body: Any, asked: frozenset[int]) -> NamesFound:
    """The usable names of ids that were asked for; every other entry is left out and counted.

    Raises MalformedError if it is no list.
    """
    found: dict[int, Name] = {}
    unreadable = 0
    for entry in _entries(body, "names"):
        usable = _name(entry)
        if usable is not None and usable.id in asked:
            found[usable.id] = usable
        else:
            unreadable += 1
    return NamesFound(tuple(found.values()), frozenset(), unreadable)


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


def prices(body: Any) -> Prices:
    """The average price of each type, else the adjusted one; types that have neither are left out.

    A malformed entry is left out and counted. Raises MalformedError if it is no list, or one without any price.
    """
    by_type: dict[int, float] = {}
    unreadable = 0
    for entry in _entries(body, "prices"):
        try:
            type_id, price = _price(entry)
        except MalformedError:
            unreadable += 1
            continue
        if price is not None:
            by_type[type_id] = price
    if unreadable and not by_type:
        raise MalformedError("prices has no usable entry")
    return Prices(by_type, unreadable)


def _entries(body: Any, field: str) -> list[Any]:
    """The entries of a list, which are checked one by one."""
    if type(body) is not list:
        raise MalformedError(f"{field} is not a list")
    return body


def _name(entry: Any) -> Name | None:
    """The name in an entry; None for one that is malformed."""
    try:
        mapping = _mapping(entry)
        return Name(
            integer(mapping.get("id"), "id"), text(mapping.get("name"), "name", most=MAX_NAME), _category(mapping)
        )
    except MalformedError:
        return None


def _price(entry: Any) -> tuple[int, float | None]:
    """The type_id in an entry, and its price if it has one. Raises MalformedError."""
    mapping = _mapping(entry)
    type_id = integer(mapping.get("type_id"), "type_id")
    price: Any = mapping.get("average_price")
    if price is None:
        price = mapping.get("adjusted_price")
    if price is None:
        return type_id, None
    if type(price) not in (int, float) or price < 0:
        raise MalformedError("price is not a positive number")
    return type_id, float(price)


def _reference(entry: Any) -> Reference | None:
    """The reference in an entry of a list, its hash in lower case; None for an entry that is malformed."""
    if type(entry) is not dict:
        return None
    killmail_id, killmail_hash = entry.get("killmail_id"), entry.get("killmail_hash")
    if type(killmail_id) is not int or not 1 <= killmail_id <= INT64_MAX:
        return None
    if not isinstance(killmail_hash, str) or not _ANY_CASE_HASH.fullmatch(killmail_hash):
        return None
    return Reference(killmail_id, killmail_hash.lower())


def _pages(headers: Mapping[str, str]) -> int | None:
    """X-Pages; None where it is missing, no number or out of bounds."""
    value = headers.get("X-Pages", "").strip()
    if not _PAGES.fullmatch(value) or int(value) > MAX_PAGES:
        return None
    return max(int(value), 1)  # an empty list may well have no page


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
