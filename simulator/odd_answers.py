"""What an odd list or an odd token endpoint answers: well-formed HTTP with a content that no document describes.

Each kind changes the answer the simulator would have given, or replaces it. Which requests it strikes is left to
`faults.py`.
"""

import json
from collections.abc import Callable
from typing import Any, Final

from simulator.wire import Delivery, Payload, Response

Body = list[Any]


def spoil(kind: str, real: Callable[[], Response]) -> Response | None:
    """The answer of this kind, or None for a kind that is not of this module."""
    if kind in _REPLACED:
        status, body = _REPLACED[kind]
        return Response.of_json(status, body)
    if kind == "malformed_tokens":
        real()
        return Response.of_json(200, {"access_token": "not a token", "token_type": "Bearer", "expires_in": "soon"})
    if kind in (*_LISTS, *_HEADERS, "lost", "foreign_list", "frozen"):
        return _changed(kind, real())
    return None


def _changed(kind: str, response: Response) -> Response:
    if kind == "lost":
        response.delivery = Delivery.RESET
    elif response.status == 200 and kind in _LISTS:
        response.payload = Payload.of_json(_LISTS[kind](json.loads(response.payload.raw)))
    elif response.status == 200 and kind in _HEADERS:
        response.headers.pop("X-Pages", None)
        if _HEADERS[kind] is not None:
            response.headers["X-Pages"] = str(_HEADERS[kind])
    return response


def _malformed(body: Body) -> Body:
    """Every true reference, and between them what is none."""
    known = body[0]["killmail_id"] if body else 1
    wrong = [
        {"killmail_id": 1, "killmail_hash": None},
        {"killmail_id": 2},
        {"killmail_id": 3, "killmail_hash": "not a hash"},
        {"killmail_id": str(known), "killmail_hash": "0" * 40},
        {"killmail_id": 2**70, "killmail_hash": "0" * 40},
        None,
    ]
    return [*body[:1], *wrong, *body[1:]]


def _upper_case(body: Body) -> Body:
    return [reference | {"killmail_hash": reference["killmail_hash"].upper()} for reference in body]


def _two_hashes(body: Body) -> Body:
    """The first reference twice, first with a hash that opens nothing."""
    return [body[0] | {"killmail_hash": f"{0:040x}"}, *body] if body else body


_LISTS: Final[dict[str, Callable[[Body], Body]]] = {
    "malformed_entries": _malformed,
    "upper_case_hashes": _upper_case,
    "empty_page": lambda _: [],
    "two_hashes": _two_hashes,
}
#: What X-Pages says; None leaves it out.
_HEADERS: Final[dict[str, str | None]] = {"no_x_pages": None, "malformed_x_pages": "many"}
_REPLACED: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "sso_status": (403, {"error": "the token's scope could not be checked", "sso_status": 503}),
    "invalid_grant": (
        400,
        {"error": "invalid_grant", "error_description": "Invalid refresh token. Token missing/expired."},
    ),
    "invalid_token": (400, {"error": "invalid_token", "error_description": "The token could not be processed."}),
    "invalid_scope": (400, {"error": "invalid_scope", "error_description": "The requested scope is invalid."}),
}
#: What only a killmail list can suffer.
OF_LISTS: Final = (*_LISTS, *_HEADERS, "foreign_list")
KINDS: Final = (*_LISTS, *_HEADERS, *_REPLACED, "foreign_list", "frozen", "lost", "malformed_tokens")
