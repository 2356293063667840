"""Login, tokens and revocation over real sockets: what the SSO is sent, and what each of its answers means."""

from __future__ import annotations

import base64
import hashlib
import time
from contextlib import closing
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

import esi.sso
from esi.errors import SsoConfiguration, SsoError, SsoRefused, SsoUnavailable
from esi.rate_headers import MAX_WAIT_SECONDS
from esi.sso import LoginRequest, SsoClient, TokenSet
from tests.unit.esi.conftest import READ_TIMEOUT
from tests.unit.esi.raw_server import Step, reply
from tests.unit.esi.sso_world import CALLBACK, CLIENT_ID, CLIENT_SECRET, JWKS, METADATA, REVOKE, TOKEN

REFRESH_TOKEN = "MDEyMzQ1Njc4OWFiY2RlZg=="
TOKENS = {"access_token": "a.b.c", "expires_in": 1199, "token_type": "Bearer", "refresh_token": REFRESH_TOKEN}
BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()


def refused(description: str, error: str = "invalid_grant") -> Step:
    return reply(400, {"error": error, "error_description": description})


def test_the_authorize_address_binds_state_and_verifier(sso, server):
    login = sso.new_login()

    url = urlsplit(sso.authorize_url(login, ["publicData", "esi-killmails.read_killmails.v1"]))

    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{server.url}/v2/oauth/authorize"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(login.code_verifier.encode()).digest()).decode()
    assert dict(parse_qsl(url.query, strict_parsing=True)) == {
        "response_type": "code",
        "client_id": CLIENT_ID,
        "redirect_uri": CALLBACK,
        "scope": "publicData esi-killmails.read_killmails.v1",
        "state": login.state,
        "code_challenge": challenge.rstrip("="),
        "code_challenge_method": "S256",
    }
    assert "+" not in url.query, "a space as + is not read as one by every server"


def test_each_login_is_new_and_its_verifier_needs_no_padding(sso):
    logins = [sso.new_login() for _ in range(5)]

    assert len({login.state for login in logins} | {login.code_verifier for login in logins}) == 10
    for login in logins:
        assert 43 <= len(login.code_verifier) <= 128  # RFC 7636 §4.1
        assert base64.urlsafe_b64encode(base64.urlsafe_b64decode(login.code_verifier)).decode() == login.code_verifier


def test_a_code_is_exchanged_with_basic_auth_and_the_verifier_in_the_form(sso, world):
    world.answer(TOKEN, reply(200, TOKENS))

    tokens = sso.exchange("the code&=", "the-verifier")

    assert tokens == TokenSet(access_token="a.b.c", refresh_token=REFRESH_TOKEN, expires_in=1199)
    (request,) = world.asked(TOKEN)
    assert request.method == "POST"
    assert request.headers["authorization"] == BASIC
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode(), strict_parsing=True) == {
        "grant_type": ["authorization_code"],
        "code": ["the code&="],
        "code_verifier": ["the-verifier"],
    }


def test_a_refresh_returns_the_token_that_replaces_the_old_one(sso, world):
    world.answer(TOKEN, reply(200, {**TOKENS, "refresh_token": "rotated=="}))

    assert sso.refresh(REFRESH_TOKEN).refresh_token == "rotated=="
    (request,) = world.asked(TOKEN)
    assert parse_qs(request.body.decode()) == {"grant_type": ["refresh_token"], "refresh_token": [REFRESH_TOKEN]}
    assert REFRESH_TOKEN.encode() not in request.body, "the padding has to be url-encoded"


@pytest.mark.parametrize("absent", [{}, {"refresh_token": None}, {"refresh_token": ""}])
def test_no_scope_means_no_refresh_token(sso, world, absent):
    world.answer(TOKEN, reply(200, {"access_token": "a.b.c", "expires_in": 1200, "token_type": "bearer", **absent}))

    assert sso.exchange("code", "verifier").refresh_token is None


#: Answers of the token endpoint to a refresh, and what each means. Bodies: esi/sso/token-responses.json.
REFRESH_ERRORS = {
    "expired": (refused("Invalid refresh token. Token missing/expired."), SsoRefused, None),
    "grant": (refused("Invalid refresh token. Character grant missing/expired."), SsoRefused, None),
    "migrate": (refused("Invalid refresh token. Unable to migrate grant."), SsoRefused, None),
    "old expired": (refused("The refresh token is expired.", "invalid_token"), SsoRefused, None),
    "old client": (
        refused("The refresh token does not match the client specified.", "invalid_token"),
        SsoRefused,
        None,
    ),
    "another invalid_token": (refused("Signature service is busy.", "invalid_token"), SsoUnavailable, None),
    "client": (reply(401, {"error": "invalid_client", "error_description": "Missing"}), SsoConfiguration, None),
    "scope": (refused("Invalid scope", "invalid_scope"), SsoConfiguration, None),
    "request": (refused("Missing code", "invalid_request"), SsoConfiguration, None),
    "429": (reply(429, b"", {"Retry-After": "30"}), SsoUnavailable, 30),
    "429 in the words of a refusal": (reply(429, {"error": "invalid_grant"}), SsoUnavailable, None),
    "500 in the words of a refusal": (reply(500, {"error": "invalid_grant"}), SsoUnavailable, None),
    "502": (reply(502, b"<html>"), SsoUnavailable, None),
    "503": (reply(503, b"", {"Retry-After": "5"}), SsoUnavailable, 5),
    "503 for a day": (reply(503, b"", {"Retry-After": "86400"}), SsoUnavailable, MAX_WAIT_SECONDS),
    "504": (reply(504, b""), SsoUnavailable, None),
    "400 html": (reply(400, b"<html>invalid_grant</html>"), SsoUnavailable, None),
    "400 unknown": (reply(400, {"error": "something_new"}), SsoUnavailable, None),
    "400 odd": (reply(400, {"error": {"invalid_grant": 1}}), SsoUnavailable, None),
    "400 broken off": (Step(b"HTTP/1.1 400 No\r\nContent-Length: 99\r\n\r\n{", then="close"), SsoUnavailable, None),
    "401 plain": (reply(401, b""), SsoUnavailable, None),
    "404": (reply(404, b""), SsoUnavailable, None),
    "redirect": (reply(302, b"", {"Location": "http://127.0.0.1:9/"}), SsoUnavailable, None),
    "reset": (Step(b"", then="reset"), SsoUnavailable, None),
    "hang": (Step(b"", then="hang"), SsoUnavailable, None),
    "truncated": (Step(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", then="close"), SsoUnavailable, None),
    "200 html": (reply(200, b"<html>"), SsoUnavailable, None),
    "200 list": (reply(200, [TOKENS]), SsoUnavailable, None),
    "200 error": (reply(200, {"error": "invalid_grant"}), SsoUnavailable, None),
}


@pytest.mark.parametrize(("step", "kind", "wait"), REFRESH_ERRORS.values(), ids=REFRESH_ERRORS.keys())
def test_only_a_refusal_of_the_token_endpoint_is_permanent(sso, world, step, kind, wait):
    world.answer(TOKEN, step)

    with pytest.raises((SsoRefused, SsoUnavailable, SsoConfiguration)) as caught:
        sso.refresh(REFRESH_TOKEN)

    assert type(caught.value) is kind
    assert caught.value.permanent is (kind is SsoRefused)
    assert caught.value.retry_after == wait
    assert len(world.asked(TOKEN)) == 1, "nothing is retried here"


def test_a_refresh_waits_for_less_long_than_other_requests(server, world, monkeypatch):
    monkeypatch.setattr(esi.sso, "REFRESH_READ_SECONDS", READ_TIMEOUT)
    world.answer(TOKEN, Step(b"", then="hang"))
    client = SsoClient(server.url, CLIENT_ID, CLIENT_SECRET, CALLBACK, "tests/1.0", read_timeout=60.0)
    began = time.monotonic()
    with closing(client), pytest.raises(SsoUnavailable) as caught:
        client.refresh(REFRESH_TOKEN)
    assert caught.value.timed_out
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("name", REFRESH_ERRORS)
def test_a_failure_says_whether_the_sso_may_have_replaced_the_token(sso, world, name):
    """It may have, where the request arrived and no whole answer came back, or a proxy's in its place."""
    world.answer(TOKEN, REFRESH_ERRORS[name][0])

    with pytest.raises(SsoError) as caught:
        sso.refresh(REFRESH_TOKEN)

    lost = ("reset", "hang", "502", "504", "truncated", "200 html", "200 list")
    assert caught.value.answer_lost is (name in lost)
    assert caught.value.timed_out is (name in ("hang", "504"))
    assert caught.value.whole_service is False, "the token was sent: it may be this pilot's alone"


@pytest.mark.parametrize("path", [METADATA, JWKS])
@pytest.mark.parametrize("step", [reply(500, b""), reply(200, b"<html>"), Step(b"", then="reset")])
def test_what_fails_before_a_token_is_sent_concerns_all_pilots(sso, world, path, step):
    world.answer(path, step)

    with pytest.raises(SsoError) as caught:
        sso.verify(world.token())

    assert (caught.value.whole_service, caught.value.answer_lost) == (True, False)


def test_a_refused_connection_concerns_all_pilots(sso, world, server):
    world.answer(TOKEN, reply(500, b""))
    with pytest.raises(SsoError):
        sso.refresh(REFRESH_TOKEN)  # the endpoints are known now
    sso.close()
    server.stop()

    with pytest.raises(SsoUnavailable) as caught:
        sso.refresh(REFRESH_TOKEN)

    assert (caught.value.whole_service, caught.value.answer_lost) == (True, False)


@pytest.mark.parametrize(
    "change",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "a b"},
        {"access_token": "a\nb"},
        {"access_token": "é"},
        {"access_token": "x" * 16385},
        {"refresh_token": 5},
        {"refresh_token": "x" * 16385},
        {"refresh_token": ["x"]},
        {"expires_in": "1200"},
        {"expires_in": 0},
        {"expires_in": True},
        {"expires_in": 10**9},
        {"token_type": "mac"},
        {"token_type": None},
    ],
    ids=lambda change: "-".join(f"{name}={str(value)[:8]!r}" for name, value in change.items()),
)
def test_a_malformed_token_set_is_a_broken_answer(sso, world, change):
    world.answer(TOKEN, reply(200, {**TOKENS, **change}))

    with pytest.raises(SsoUnavailable, match=next(iter(change))):
        sso.refresh(REFRESH_TOKEN)


def test_a_wrong_setup_says_what_to_check(sso, world):
    world.answer(TOKEN, reply(401, {"error": "invalid_client"}))

    with pytest.raises(SsoConfiguration, match="EVE_CLIENT_ID and EVE_CLIENT_SECRET"):
        sso.exchange("code", "verifier")


def test_revoking_sends_the_token_to_the_revocation_endpoint(sso, world):
    world.answer(REVOKE, reply(200, b""))

    sso.revoke(REFRESH_TOKEN)

    (request,) = world.asked(REVOKE)
    assert request.headers["authorization"] == BASIC
    assert parse_qs(request.body.decode()) == {"token_type_hint": ["refresh_token"], "token": [REFRESH_TOKEN]}


def test_revoking_a_token_the_sso_refuses_is_done(sso, world):
    world.answer(REVOKE, refused("Token missing/expired."))

    sso.revoke(REFRESH_TOKEN)

    assert len(world.asked(REVOKE)) == 1


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (reply(503, b""), SsoUnavailable),
        (Step(b"", then="reset"), SsoUnavailable),
        (reply(401, {"error": "invalid_client"}), SsoConfiguration),
    ],
    ids=["503", "reset", "client"],
)
def test_a_revocation_that_failed_says_so(sso, world, step, kind):
    world.answer(REVOKE, step)

    with pytest.raises(kind):
        sso.revoke(REFRESH_TOKEN)


# --- metadata


def test_the_endpoints_are_asked_for_once_an_hour(sso, world, clock):
    world.answer(TOKEN, *[reply(200, TOKENS)] * 4)

    for seconds in (0, 10, 3500, 200):
        clock.now += seconds
        sso.refresh(REFRESH_TOKEN)

    assert len(world.asked(METADATA)) == 2


def test_new_endpoints_are_found_after_a_failure(sso, world, clock, server):
    world.answer(TOKEN, reply(200, TOKENS), reply(404, b"moved"))
    sso.refresh(REFRESH_TOKEN)
    world.metadata["token_endpoint"] = f"{server.url}/v3/token"
    world.answer("/v3/token", reply(200, TOKENS))
    clock.now += 120

    with pytest.raises(SsoUnavailable):
        sso.refresh(REFRESH_TOKEN)

    assert sso.refresh(REFRESH_TOKEN).access_token == "a.b.c"


def test_an_outage_does_not_double_the_requests(sso, world):
    world.answer(TOKEN, *[reply(503, b"")] * 5)

    for _ in range(5):
        with pytest.raises(SsoUnavailable):
            sso.refresh(REFRESH_TOKEN)

    assert len(world.asked(METADATA)) == 1


def test_known_endpoints_outlive_an_outage_of_the_metadata(sso, world, clock):
    world.answer(TOKEN, *[reply(200, TOKENS)] * 4)
    sso.refresh(REFRESH_TOKEN)
    world.answer(METADATA, reply(503, b""), Step(b"", then="reset"), reply(404, b""))

    for seconds in (4000, 100, 100):
        clock.now += seconds
        assert sso.refresh(REFRESH_TOKEN).access_token == "a.b.c"

    assert len(world.asked(METADATA)) == 4


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (reply(503, b""), SsoUnavailable),
        (reply(200, b"<html>"), SsoUnavailable),
        (reply(200, {}), SsoUnavailable),
        (reply(404, b""), SsoConfiguration),
        (Step(b"", then="close"), SsoUnavailable),
    ],
    ids=["503", "html", "empty", "404", "closed"],
)
def test_without_metadata_nothing_is_sent_anywhere(sso, world, step, kind):
    world.answer(METADATA, step)

    with pytest.raises(kind):
        sso.refresh(REFRESH_TOKEN)

    assert world.asked(TOKEN) == []


def test_hostile_metadata_gets_no_secret(sso, world, server):
    world.metadata["token_endpoint"] = "https://login.example.org/v2/oauth/token"

    with pytest.raises(SsoConfiguration, match="token_endpoint"):
        sso.refresh(REFRESH_TOKEN)

    assert [request.target for request in server.received] == [METADATA]


def test_nobody_listening_is_unavailable(dead_url):
    sso = SsoClient(dead_url, CLIENT_ID, CLIENT_SECRET, CALLBACK, "tests/1.0")

    with pytest.raises(SsoUnavailable):
        sso.authorize_url(LoginRequest("state", "verifier"), [])


def test_secrets_are_not_in_any_repr(sso, world):
    world.answer(TOKEN, reply(200, TOKENS))
    tokens, login = sso.refresh(REFRESH_TOKEN), sso.new_login()

    shown = f"{tokens!r} {tokens} {login!r} {login} {sso!r}"

    for secret in (tokens.access_token, REFRESH_TOKEN, login.state, login.code_verifier, CLIENT_SECRET):
        assert secret not in shown


def test_keys_are_fetched_from_the_metadatas_address(sso, world, server):
    world.metadata["jwks_uri"] = f"{server.url}/keys"
    world.answer("/keys", reply(200, {"keys": world.keys}))

    assert sso.verify(world.token()).character_id == 90000001
    assert world.asked(JWKS) == []
