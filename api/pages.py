"""Relay pages: opaque cursors over ids that fall, never an OFFSET."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from api.errors import BadUserInput

MAX_PAGE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageInfo:
    """Relay's PageInfo, forwards only."""

    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@dataclass(frozen=True, slots=True)
class Edge(Generic[T]):
    """A node and the cursor behind it."""

    cursor: str
    node: T


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A connection in Relay's form, with its nodes by themselves, too."""

    edges: Sequence[Edge[T]]
    page_info: PageInfo

    @property
    def nodes(self) -> list[T]:
        return [edge.node for edge in self.edges]


def make_page(kind: str, nodes: Sequence[tuple[int, T]], has_next: bool, after: str | None) -> Page[T]:
    """A page of `kind` from (id, node) pairs in their order."""
    edges = [Edge(encode_cursor(kind, node_id), node) for node_id, node in nodes]
    return Page(
        edges,
        PageInfo(
            has_next_page=has_next,
            has_previous_page=after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
    )


def check_first(first: int | None) -> int:
    """The size of a page, 1 to MAX_PAGE. Raises BadUserInput."""
    if first is None or not 1 <= first <= MAX_PAGE:
        raise BadUserInput(f"first must be 1 to {MAX_PAGE}.")
    return first


def encode_cursor(kind: str, node_id: int) -> str:
    """An opaque text; `kind` keeps one list from taking the cursors of another."""
    return base64.urlsafe_b64encode(f"{kind}:{node_id}".encode()).decode().rstrip("=")


def decode_cursor(kind: str, cursor: str) -> int:
    """The id a cursor of `kind` stands at. Raises BadUserInput for anything we did not hand out."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    match = re.fullmatch(rf"{kind}:([1-9][0-9]{{0,18}})", text)
    if match is None or int(match[1]) >= 2**63:
        raise BadUserInput("after is not a cursor of this list.")
    return int(match[1])
