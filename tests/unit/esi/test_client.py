"""The client's routes over real sockets: what is sent, what comes back, what is refused."""

from __future__ import annotations

import json

import pytest

from esi.client import EsiClient, NotModified, Prices, RecentPage, Reference, ServerStatus
from esi.errors import EsiDowntime, EsiForbidden, EsiNotFound, EsiRateLimited, EsiStatus, EsiTransport
from tests.unit.esi.raw_server import Step, reply

HASH = "0123456789abcdef0123456789abcdef01234567"
OTHER_HASH = "f" * 40
TOKEN = "header.payload.signature"
PAST_END = "Requested page does not exist!"


def entry(killmail_id: object = 7, killmail_hash: object = HASH) -> dict[str, object]:
    return {"killmail_id": killmail_id, "killmail_hash": killmail_hash}


# --- recent_killmails


def test_a_page_is_asked_for_as_esi_wants_it(client, server, permit):
    server.script(reply(200, []))

    client.recent_killmails(90000001, TOKEN, 3, permit)

    request = server.last
    assert (request.method, request.target) == ("GET", "/characters/90000001/killmails/recent?page=3")
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["user-agent"] == "tests/1.0 (tests@example.com)"
    assert request.headers["x-compatibility-date"] == "2026-08-18"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "gzip"
    assert "if-none-match" not in request.headers


def test_a_page_is_its_references_and_what_the_headers_say(client, server, permit):
    headers = {"X-Pages": "4", "ETag": 'W/"abc"', "Cache-Control": "max-age=120", "Last-Modified": "yesterday"}
    server.script(reply(200, [entry(9), entry(7, OTHER_HASH), entry(9)], headers))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert page == RecentPage(
        references=(Reference(9, HASH), Reference(7, OTHER_HASH)),
        pages=4,
        etag='W/"abc"',
        fresh_for=120,
        last_modified="yesterday",
        past_end=False,
        entries=3,
    )
    assert permit.calls == ["answered 200"]


def test_a_page_without_headers_does_not_say_how_many_there_are_and_is_never_fresh(client, server, permit):
    server.script(reply(200, [entry()]))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert (page.pages, page.etag, page.fresh_for, page.last_modified) == (None, None, 0, None)


def test_an_unchanged_page_is_not_modified(client, server, permit):
    server.script(Step(b"HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n"))

    assert client.recent_killmails(90000001, TOKEN, 1, permit, etag='"abc"') == NotModified(60)
    assert server.last.headers["if-none-match"] == '"abc"'
    assert permit.calls == ["answered 304"]


def test_a_304_nobody_asked_for_is_an_error(client, server, permit):
    server.script(Step(b"HTTP/1.1 304 Not Modified\r\n\r\n"))

    with pytest.raises(EsiStatus):
        client.recent_killmails(90000001, TOKEN, 1, permit)


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize("said", [PAST_END, f"Undefined 404 response. Original message: {PAST_END}"])
def test_past_the_end_is_an_empty_page(client, server, permit, page, said):
    server.script(reply(404, {"error": said}))

    found = client.recent_killmails(90000001, TOKEN, page, permit)

    assert isinstance(found, RecentPage)
    assert (found.references, found.past_end) == ((), True)


@pytest.mark.parametrize("body", [{"error": "Not found"}, {"error": ["?"]}, [PAST_END], b"<html>", b""])
def test_any_other_404_is_not_the_end_of_the_list(client, server, permit, body):
    server.script(reply(404, body))

    with pytest.raises(EsiNotFound) as caught:
        client.recent_killmails(90000001, TOKEN, 2, permit)

    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "references"),
        (None, "references"),
    ],
)
def test_what_is_no_list_is_a_broken_answer(client, server, permit, body, field):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport, match=field) as caught:
        client.recent_killmails(90000001, TOKEN, 1, permit)

    assert caught.value.status == 200
    assert permit.calls == ["answered 200"]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        None,
        "9",
        {},
        {"killmail_id": 8},
        {"killmail_id": 8, "killmail_hash": None},
        {"killmail_hash": HASH},
        entry(0),
        entry(-7),
        entry(True),
        entry("7"),
        entry(7.0),
        entry(2**63),
        entry(10**400),
        entry(float("nan")),
        entry(7, HASH[:-1]),
        entry(7, HASH + "\n"),
        entry(7, "../../../status?aaaaaaaaaaaaaaaaaaaaaaaaaa"),
        entry(7, "ſ" * 40),
    ],
)
def test_a_malformed_entry_is_left_out_and_its_position_kept(client, server, permit, wrong):
    server.script(reply(200, [entry(9), wrong, entry(8, OTHER_HASH), wrong]))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert page.references == (Reference(9, HASH), Reference(8, OTHER_HASH))
    assert (page.unreadable, page.entries) == ((1, 3), 4)
    assert permit.calls == ["answered 200"]


def test_a_hash_in_capitals_is_the_same_hash(client, server, permit):
    server.script(reply(200, [entry(9, HASH.upper()), entry(9)]))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert (page.references, page.other_hashes, page.unreadable) == ((Reference(9, HASH),), (), ())


def test_what_is_behind_the_longest_page_is_unread(client, server, permit):
    server.script(reply(200, [entry(n) for n in range(1, 10_003)]))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert (len(page.references), page.unreadable) == (10_000, (10_000, 10_001))


def test_an_id_with_two_hashes_keeps_both(client, server, permit):
    server.script(reply(200, [entry(9), entry(9, OTHER_HASH), entry(9), entry(7)]))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert page.references == (Reference(9, HASH), Reference(7, HASH))
    assert page.other_hashes == (Reference(9, OTHER_HASH),)


@pytest.mark.parametrize("pages", ["10001", "-1", "many", "", "1.5", "9" * 30])
def test_a_page_count_that_is_none_is_as_good_as_missing(client, server, permit, pages):
    server.script(reply(200, [entry()], {"X-Pages": pages}))

    page = client.recent_killmails(90000001, TOKEN, 1, permit)

    assert (page.pages, page.references) == (None, (Reference(7, HASH),))


def test_an_empty_list_may_have_no_page(client, server, permit):
    server.script(reply(200, [], {"X-Pages": "0"}))

    assert client.recent_killmails(90000001, TOKEN, 1, permit).pages == 1


def test_a_403_says_whether_the_scope_is_missing(client, server, permit):
    server.script(reply(403, {"error": "token is not valid for scope"}))

    with pytest.raises(EsiForbidden) as caught:
        client.recent_killmails(90000001, TOKEN, 1, permit)

    assert caught.value.missing_scope


# --- killmail


def test_a_killmail_is_its_json_object(client, server, permit):
    body = {"killmail_id": 5, "victim": {"damage_taken": 2**62}, "new_field": None}
    server.script(reply(200, body))

    assert client.killmail(5, HASH, permit) == body
    assert (server.last.method, server.last.target) == ("GET", f"/killmails/5/{HASH}")
    assert "authorization" not in server.last.headers


@pytest.mark.parametrize(
    "body",
    [{"killmail_id": 6}, {"killmail_id": 5.0}, {"killmail_id": "5"}, {}, [5], None, b"<html></html>", b"{", b""],
)
def test_what_is_not_that_killmail_is_a_broken_answer(client, server, permit, body):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport) as caught:
        client.killmail(5, HASH, permit)

    assert not caught.value.permanent
    assert permit.calls == ["answered 200"]


@pytest.mark.parametrize("killmail_hash", ["", "x" * 40, HASH.upper(), "../" + HASH[3:], HASH + "/"])
def test_what_is_no_hash_is_never_sent(client, server, permit, killmail_hash):
    with pytest.raises(ValueError, match="killmail 5"):
        client.killmail(5, killmail_hash, permit)

    assert permit.calls == ["unsent"]
    assert server.received == []


@pytest.mark.parametrize(
    ("step", "calls", "reason"),
    [
        (Step(b"", then="reset"), ["unanswered"], "connection broke"),
        (Step(b"", then="hang"), ["unanswered"], "no answer within"),
        (Step(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then="close"), ["answered 200"], "broke off"),
    ],
    ids=["reset", "hang", "truncated"],
)
def test_no_whole_answer_is_a_transport_error(client, server, permit, step, calls, reason):
    server.script(step)

    with pytest.raises(EsiTransport, match=f"^killmail 5: .*{reason}"):
        client.killmail(5, HASH, permit)

    assert permit.calls == calls


def test_nobody_listening_is_a_transport_error(dead_url, permit):
    with pytest.raises(EsiTransport):
        EsiClient(dead_url, "tests", "2026-08-18").killmail(5, HASH, permit)

    assert permit.calls == ["unsent"]


def test_a_429_whose_body_breaks_off_is_still_a_429(client, server, permit):
    head = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 8\r\nContent-Length: 99\r\n\r\n{"
    server.script(Step(head, then="close"))

    with pytest.raises(EsiRateLimited) as caught:
        client.killmail(5, HASH, permit)

    assert caught.value.retry_after == 8


# --- status, prices, character, solar system


def test_the_status_of_the_server(client, server, permit):
    server.script(reply(200, {"players": 0, "server_version": "2987654", "start_time": "x", "vip": True}))

    assert client.status(permit) == ServerStatus(players=0, vip=True, server_version="2987654")
    assert server.last.target == "/status"


@pytest.mark.parametrize("body", [{}, [], {"players": -1, "server_version": "1"}, {"players": 5}])
def test_a_malformed_status_is_a_broken_answer(client, server, permit, body):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport):
        client.status(permit)


def test_a_failing_status_is_downtime(client, server, permit):
    server.script(reply(503, {"error": "The datasource tranquility is temporarily unavailable"}))

    with pytest.raises(EsiDowntime):
        client.status(permit)


def test_prices_are_the_average_else_the_adjusted_one(client, server, permit):
    entries = [
        {"type_id": 34, "average_price": 4.5, "adjusted_price": 9},
        {"type_id": 35, "adjusted_price": 9},
        {"type_id": 36},
        {"type_id": 37, "average_price": 0},
    ]
    server.script(reply(200, entries))

    assert client.market_prices(permit) == Prices({34: 4.5, 35: 9.0, 37: 0.0})


ODD_PRICES = [{"type_id": 34, "average_price": price} for price in ("5", True, -1, [5])]


@pytest.mark.parametrize("entry", [*ODD_PRICES, {"type_id": "34", "average_price": 1}, {"average_price": 1}, None, []])
def test_a_malformed_price_hurts_only_itself(client, server, permit, entry):
    server.script(reply(200, [entry, {"type_id": 35, "average_price": 9}]))

    assert client.market_prices(permit) == Prices({35: 9.0}, unreadable=1)


@pytest.mark.parametrize("body", [{}, [None], [{"type_id": 34, "average_price": -1}]])
def test_a_list_without_any_price_is_a_broken_answer(client, server, permit, body):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport, match="prices"):
        client.market_prices(permit)


def test_a_characters_name(client, server, permit):
    server.script(reply(200, {"name": "Jita\0 Local", "corporation_id": 1}))

    assert client.character_name(90000001, permit) == "Jita\ufffd Local"
    assert server.last.target == "/characters/90000001"


@pytest.mark.parametrize("name", [None, "", 5, "x" * 501])
def test_a_character_without_a_usable_name_is_a_broken_answer(client, server, permit, name):
    server.script(reply(200, {"name": name}))

    with pytest.raises(EsiTransport, match="name"):
        client.character_name(90000001, permit)


@pytest.mark.parametrize("status", [0.9459131360054016, -0.99, 1, 0, -1.0])
def test_a_solar_systems_security_status(client, server, permit, status):
    server.script(reply(200, {"system_id": 30000142, "security_status": status, "name": "Jita"}))

    assert client.security_status(30000142, permit) == status
    assert server.last.target == "/universe/systems/30000142"
    assert permit.calls == ["answered 200"]


@pytest.mark.parametrize("status", ["0.9", None, True, [0.9], {}, 1.0000001, -1.1, 1e308, 2**63 - 1])
def test_a_security_status_that_is_none_is_a_broken_answer(client, server, permit, status):
    server.script(reply(200, {"system_id": 30000142, "security_status": status}))

    with pytest.raises(EsiTransport, match="security_status"):
        client.security_status(30000142, permit)


@pytest.mark.parametrize(
    "body",
    [
        b'{"system_id": 30000142, "security_status": NaN}',
        b'{"system_id": 30000142, "security_status": -1e999}',
        b'{"system_id": 30000144, "security_status": 0.5}',
        b'{"system_id": "30000142", "security_status": 0.5}',
        b'{"security_status": 0.5}',
        b"[0.5]",
        b"<html>",
    ],
)
def test_what_is_not_that_solar_system_is_a_broken_answer(client, server, permit, body):
    server.script(reply(200, body))

    with pytest.raises(EsiTransport, match=r"^solar system 30000142: the answer is broken"):
        client.security_status(30000142, permit)


def test_a_solar_system_nobody_knows_is_not_found(client, server, permit):
    server.script(reply(404, {"error": "Solar system not found!"}))

    with pytest.raises(EsiNotFound):
        client.security_status(30000142, permit)


def test_bodies_are_sent_and_read_as_json(client, server, permit):
    server.script(reply(200, json.dumps({"name": "Zoë", "x": 1}).encode("utf-16"), {"Content-Type": "x/y"}))

    assert client.character_name(90000001, permit) == "Zoë"
