"""ESI: the seven requests a killmail sync needs. Each takes a permit, makes one request, and returns values.

The address is https://esi.evetech.net, its contract the OpenAPI document of the compatibility date that is sent. The
invariant: what is returned was checked field by field (`values.py`), and whatever goes wrong is an EsiError whose text
holds no token, hash or URL. Waiting, retrying and counting are left to the limiter and the ledger; parsing a killmail
to `killmails.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from esi import values
from esi.answers import MalformedError, decode, error_of, error_text, fresh_for
from esi.errors import EsiError, EsiStatus, EsiTransport
from esi.transport import Answer, Permit, Transport, TransportError
from esi.values import Name, NamesFound, NotModified, Prices, RecentPage, Reference, ServerStatus

__all__ = [
    "EsiClient",
    "Name",
    "NamesFound",
    "NotModified",
    "Permit",
    "Prices",
    "RecentPage",
    "Reference",
    "ServerStatus",
]

T = TypeVar("T")

#: Bytes of a decoded answer. The largest known killmail (3,753 attackers) has under 1 MiB, the market prices 2.
MAX_ANSWER_BYTES = 32 * 1024 * 1024
#: In the body of the 404 for a page past the end (seen with and without a preamble), and of one for an unknown id.
_PAST_END = "Requested page does not exist"
_UNKNOWN_ID = "Ensure all IDs are valid"
#: Statuses with which ESI refuses a batch of ids for what is in it.
_REFUSALS = frozenset({400, 404, 422})


class UnusableHash(ValueError):
    """What is no killmail_hash: a hand has written it."""


class EsiClient:
    """Safe to share between threads: each has its own connection. Make it after a fork, not before."""

    def __init__(
        self,
        base_url: str,
        user_agent: str,
        compatibility_date: str,
        connect_timeout: float = 3.05,
        read_timeout: float = 15.0,
    ) -> None:
        """`compatibility_date` is YYYY-MM-DD. Timeouts in seconds; ESI itself gives up on its backend after 10."""
        self._base = base_url.rstrip("/")
        self._http = Transport(
            self._base,
            {
                "Accept": "application/json",
                "User-Agent": user_agent,
                "X-Compatibility-Date": compatibility_date,
            },
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            max_bytes=MAX_ANSWER_BYTES,
        )

    def close(self) -> None:
        """Close the connections of all threads."""
        self._http.close()

    def connect(self) -> None:
        """Open this thread's connection if it is not open; no request, and next to nothing when it is.

        To be called before a slot is reserved: a request leaves when its slot comes, and arrives then only if it does
        not have to wait for a handshake first. Raises EsiTransport; nothing was sent or charged then.
        """
        try:
            self._http.ready()
        except TransportError as failure:
            raise EsiTransport(f"connection to ESI: {failure}") from failure

    def recent_killmails(
        self, character_id: int, access_token: str, page: int, permit: Permit, etag: str | None = None
    ) -> RecentPage | NotModified:
        """One page (from 1) of a character's losses and final blows of the last 90 days, up to 1,000 of them.

        Malformed entries are left out and counted: see RecentPage.
        With `etag`, an unchanged page is NotModified and costs half. Raises EsiError; a 404 is EsiNotFound unless
        ESI says that the page lies past the end.
        """
        what = f"recent killmails of character {character_id}, page {page}"
        path = f"/characters/{character_id:d}/killmails/recent?page={page:d}"
        headers = {"Authorization": f"Bearer {access_token}"} | ({"If-None-Match": etag} if etag else {})
        answer = self._send("GET", path, permit, what, headers)
        if answer.status == 304 and etag:
            return NotModified(fresh_for(answer.headers))
        if answer.status == 404 and _PAST_END in error_text(answer):
            return RecentPage((), None, None, fresh_for(answer.headers), None, past_end=True)
        return _read(answer, what, lambda body: values.recent_page(body, answer.headers), lenient=True)

    def killmail(self, killmail_id: int, killmail_hash: str, permit: Permit) -> dict[str, Any]:
        """The decoded JSON object of one killmail, whose killmail_id is the one asked for.

        Raises EsiError, and UnusableHash (`permit` then hears that nothing was sent).
        """
        what = f"killmail {killmail_id}"
        if not values.is_killmail_hash(killmail_hash):
            permit.unsent()
            raise UnusableHash(f"{what}: its killmail_hash is not 40 lower-case hexadecimal digits")
        answer = self._send("GET", f"/killmails/{killmail_id:d}/{killmail_hash}", permit, what)
        return _read(answer, what, lambda body: values.killmail_body(body, killmail_id))

    def names(self, ids: Iterable[int], acquire: Callable[[], Permit | None], max_not_found: int = 20) -> NamesFound:
        """Names of up to 1,000 positive ids; `acquire` is called for the permit of each request.

        When `acquire` returns None, the call ends with what was settled so far; when it raises, that is lost.

        ESI refuses a whole batch for one unknown id, so a refused batch is halved until the id stands alone. Depth
        first: each call pins down at least one unknown id, however many there are, and so gets further than the last.
        A refusal in other words than "unknown id" may also be for everything, as a 404 during maintenance is
        (esi-issues 1005): it is believed only of an id beside others that have a name, and raised where none has.
        So is a 500, which ESI may fail with at one id, too; but the whole batch, and an id that stands alone, is asked
        for twice, because most are accidents.
        After `max_not_found` refusals (of the 100 errors a minute that close all routes; to find one id among 1,000
        takes up to 13) the rest stays unsettled. An error after the first success also ends the call early; before it,
        it is raised. Raises EsiError, ValueError for more than 1,000 ids or one that is not positive, and what
        `acquire` raises.
        """
        wanted = sorted(set(ids))
        if len(wanted) > values.MAX_NAMES or (wanted and wanted[0] < 1):
            raise ValueError(f"names takes up to {values.MAX_NAMES} positive ids")
        found: list[Name] = []
        unreadable = 0
        unknown: set[int] = set()
        doubted: dict[int, EsiError] = {}
        error: EsiError
        asked_again: list[int] = []
        batches = [wanted] if wanted else []
        while batches and max_not_found > 0:
            permit = acquire()
            if permit is None:
                break
            batch = batches.pop()
            try:
                answered = self._names(batch, permit)
                found += answered.names
                unreadable += answered.unreadable
                continue
            except _Refused as refusal:
                error, sure, may_pass = refusal.error, refusal.sure, False
            except EsiError as failure:
                if isinstance(failure, EsiStatus) and (failure.status or 0) >= 500:
                    error, sure, may_pass = failure, False, True
                elif found or unknown:
                    break
                else:
                    raise
            max_not_found -= 1
            if may_pass and len(batch) in (1, len(wanted)) and batch != asked_again:
                asked_again = batch
                batches.append(batch)
            elif len(batch) > 1:
                middle = len(batch) // 2
                batches += [batch[middle:], batch[:middle]]
            elif sure:
                unknown.update(batch)
            else:
                doubted[batch[0]] = error
        if found:
            unknown |= doubted.keys()
        elif doubted and not unknown:
            raise next(iter(doubted.values()))
        return NamesFound(tuple(found), frozenset(unknown), unreadable)

    def character_name(self, character_id: int, permit: Permit) -> str:
        """A character's name, for those POST /universe/names does not know. Raises EsiError."""
        what = f"character {character_id}"
        return _read(self._send("GET", f"/characters/{character_id:d}", permit, what), what, values.character_name)

    def security_status(self, solar_system_id: int, permit: Permit) -> float:
        """A solar system's security status, 1.0 to -1.0, as exact as ESI tells it. Raises EsiError."""
        what = f"solar system {solar_system_id}"
        answer = self._send("GET", f"/universe/systems/{solar_system_id:d}", permit, what)
        return _read(answer, what, lambda body: values.security_status(body, solar_system_id))

    def status(self, permit: Permit) -> ServerStatus:
        """The state of the game server. Raises EsiError."""
        return _read(self._send("GET", "/status", permit, "status"), "status", values.server_status)

    def market_prices(self, permit: Permit) -> Prices:
        """The average price of each type, else the adjusted one; see Prices. Raises EsiError."""
        what = "market prices"
        return _read(self._send("GET", "/markets/prices", permit, what), what, values.prices, lenient=True)

    def _names(self, batch: list[int], permit: Permit) -> NamesFound:
        """The names of a batch. Raises _Refused when ESI refuses it for what is in it, EsiError for all else."""
        what = f"names of {len(batch)} ids"
        body = json.dumps(batch).encode()
        answer = self._send("POST", "/universe/names", permit, what, {"Content-Type": "application/json"}, body)
        try:
            return _read(answer, what, lambda body: values.names(body, asked=frozenset(batch)), lenient=True)
        except EsiStatus as error:
            if answer.status not in _REFUSALS:
                raise
            raise _Refused(error, sure=_UNKNOWN_ID in error_text(answer)) from error

    def _send(
        self,
        method: str,
        path: str,
        permit: Permit,
        what: str,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        try:
            return self._http.send(method, self._base + path, permit, headers=headers, data=data)
        except TransportError as failure:
            raise EsiTransport(f"{what}: {failure}") from failure


class _Refused(Exception):
    """ESI refused a batch of ids. `sure`: for one of them; else perhaps for what befalls all batches alike."""

    def __init__(self, error: EsiError, *, sure: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.sure = sure


def _read(answer: Answer, what: str, parse: Callable[[Any], T], *, lenient: bool = False) -> T:
    """What `parse` makes of the decoded body of a 200. Raises EsiError for every other answer and a broken body.

    `lenient`: see `decode`.
    """
    if answer.status != 200:
        raise error_of(answer, what)
    try:
        if answer.broken:
            raise MalformedError(answer.broken)
        return parse(decode(answer.body, lenient=lenient))
    except MalformedError as error:
        raise EsiTransport(f"{what}: the answer is broken: {error}", status=200) from error
