"""Misbehaviour on request: statuses, pages of HTML, cut bodies, resets and silence.

A fault strikes a route with a probability, or a number of times. It replaces or spoils the answer the
simulator would have given; what that costs in tokens is left to `esi_gate.py`.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from simulator.request_log import ROUTES, Note
from simulator.wire import Delivery, Payload, Response

KINDS: Final = (
    "html", "reset", "hang", "truncated", "invalid_json", "420", "429", "429_bare", "429_bare_wait",
    "not_found", "scope",
)  # fmt: skip
_STATUS: Final = re.compile(r"status:([45]\d\d)")
_HTML: Final = "<html><body><h1>503 Service Unavailable</h1>No server is available.</body></html>"


@dataclass
class Fault:
    """One kind of misbehaviour, where it strikes, and how often it did."""

    route: str
    kind: str
    rate: float = 1.0
    #: How often it strikes before it is spent; None is for ever.
    count: int | None = None
    killmail_id: int | None = None
    page: int | None = None
    #: How long a hang holds, or what Retry-After and the error limit's reset say.
    seconds: float = 5.0
    hits: int = 0

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "Fault":
        """Read the control API's object. Raises ValueError saying what is wrong with it."""
        unknown = value.keys() - {"route", "kind", "rate", "count", "killmail_id", "page", "seconds"}
        if unknown:
            raise ValueError(f"fault: unknown keys {sorted(unknown)}")
        route, kind = str(value.get("route", "any")), str(value.get("kind", ""))
        if route != "any" and route not in ROUTES:
            raise ValueError(f"fault: unknown route {route!r}; there are any, {', '.join(sorted(ROUTES))}")
        if kind not in KINDS and not _STATUS.fullmatch(kind):
            raise ValueError(f"fault: unknown kind {kind!r}; there are status:NNN, {', '.join(KINDS)}")
        fault = cls(route, kind, rate=float(value.get("rate", 1.0)), seconds=float(value.get("seconds", 5.0)))
        for key in ("count", "killmail_id", "page"):
            if value.get(key) is not None:
                setattr(fault, key, int(value[key]))
        return fault

    @classmethod
    def of_text(cls, text: str) -> "Fault":
        """Read the command line's `route=killmail,kind=status:502,rate=0.05`. Raises ValueError."""
        pairs = [part.partition("=") for part in text.split(",")]
        return cls.of_json({key.strip(): value.strip() for key, _, value in pairs})

    def fits(self, note: Note) -> bool:
        """Whether it may strike this request at all."""
        return (
            self.count != 0
            and self.route in ("any", note.route)
            and self.killmail_id in (None, note.killmail_id)
            and self.page in (None, note.page)
        )

    def spoil(self, real: Callable[[], Response]) -> Response:
        """The answer a struck request gets; `real` gives what it would have been."""
        if found := _STATUS.fullmatch(self.kind):
            return Response.error(int(found[1]), "The simulator was told to fail")
        match self.kind:
            case "html":
                return Response.html(503, _HTML)
            case "not_found":
                return Response.error(404, "Not found")
            case "scope":  # as ESI's own check of tokens fails
                return Response.error(403, "token is not valid for scope")
            case "420":
                return self._error_limited()
            case "429" | "429_bare" | "429_bare_wait":
                return self._rate_limited()
        response = real()
        match self.kind:
            case "reset":
                response.delivery = Delivery.RESET
            case "hang":
                response.delivery, response.delay = Delivery.HANG, self.seconds
            case "truncated":
                # Every other time nothing but the content shows that the body was cut.
                response.delivery = Delivery.CUT_SHORT if self.hits % 2 else Delivery.CUT_UNDECLARED
            case "invalid_json":
                response.payload = Payload(b'{"killmail_id": 1, "attackers": [}')
        return response

    def _error_limited(self) -> Response:
        response = Response.error(420, "This software has exceeded the error limit for ESI.")
        response.headers["X-ESI-Error-Limit-Remain"] = "0"
        response.headers["X-ESI-Error-Limit-Reset"] = str(round(self.seconds))
        return response

    def _rate_limited(self) -> Response:
        response = Response.error(429, "Too many requests")
        if self.kind != "429_bare":
            response.headers["Retry-After"] = str(round(self.seconds))
        return response


@dataclass
class FaultBoard:
    """The active faults, oldest first; the first one that strikes wins."""

    rng: random.Random
    faults: list[Fault] = field(default_factory=list)

    def pick(self, note: Note) -> Fault | None:
        """The fault that strikes this request, counted as a hit, or None."""
        for fault in self.faults:
            if fault.fits(note) and (fault.rate >= 1 or self.rng.random() < fault.rate):
                fault.hits += 1
                if fault.count is not None:
                    fault.count -= 1
                note.fault = fault.kind
                return fault
        return None

    def put_back(self, fault: Fault, note: Note) -> None:
        """Undo a hit whose request was refused before it could strike."""
        fault.hits -= 1
        if fault.count is not None:
            fault.count += 1
        note.fault = None
