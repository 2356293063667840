"""Forged and foreign access tokens, brought through the whole login: the real client, the callback, the database.

What each check of a token refuses is tested beside `esi/access_token.py`; here a token endpoint that lies hands the
token out in a login that is good in every other way, and nothing may come of it: no session, no user, no sync.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from flask.testing import FlaskClient
from peewee import Database

from api.callers import limiter
from app import create_app
from database import utcnow
from esi.sso import SsoClient
from models import Sync, User
from tests.security.asking import ask, codes, who
from tests.unit.esi.raw_server import RawServer, reply
from tests.unit.esi.sso_world import (
    CALLBACK,
    CLIENT_ID,
    CLIENT_SECRET,
    EC_KID,
    RSA_KID,
    TOKEN,
    SsoWorld,
    ec_key,
    rsa_jwk,
    rsa_key,
)  # fmt: skip
from tests.unit.esi.test_access_token import b64, hs256
from tests.web_app import FakeBackend
from tokens import TokenCipher, access_token

CHARACTER = 90_000_001
REFRESH_TOKEN = "MDEyMzQ1Njc4OWFiY2RlZg=="


@pytest.fixture
def world() -> Iterator[SsoWorld]:
    server = RawServer()
    yield SsoWorld(server)
    server.stop()


@pytest.fixture
def sso(world: SsoWorld) -> Iterator[SsoClient]:
    client = SsoClient(world.server.url, CLIENT_ID, CLIENT_SECRET, CALLBACK, "tests/1.0", read_timeout=2.0)
    yield client
    client.close()


@pytest.fixture
def client(
    sqlite_db: Database, make_settings: Callable[..., Any], backend: FakeBackend, sso: SsoClient
) -> Iterator[FlaskClient]:
    """A browser at an application whose SSO is `world`."""
    settings = make_settings(eve_client_id=CLIENT_ID, eve_client_secret=CLIENT_SECRET)
    app: Flask = create_app(settings, replace(backend.system(settings), sso=sso))
    limiter.reset()
    yield app.test_client()


def hand_out(world: SsoWorld, token: str) -> None:
    """What the token endpoint answers next."""
    body = {"access_token": token, "expires_in": 1199, "token_type": "Bearer", "refresh_token": REFRESH_TOKEN}
    world.answer(TOKEN, reply(200, body))


def log_in(client: FlaskClient) -> Any:
    location = client.get("/login").headers["Location"]
    state = parse_qs(urlsplit(location).query)["state"][0]
    return client.get("/auth/callback", query_string={"code": "a-good-code", "state": state})


def unsigned(claims: dict[str, Any], algorithm: str) -> str:
    return f"{b64({'alg': algorithm, 'kid': RSA_KID, 'typ': 'JWT'})}.{b64(claims)}."


def with_public_key_as_secret(world: SsoWorld) -> str:
    public = rsa_key("sso").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hs256(world.claims(), public, {"alg": "HS256", "kid": RSA_KID, "typ": "JWT"})


def with_changed_claims(world: SsoWorld) -> str:
    header, _, signature = world.token().split(".")
    return f"{header}.{b64(world.claims(sub='CHARACTER:EVE:90000009'))}.{signature}"


def with_a_key_of_its_own(world: SsoWorld) -> str:
    headers = {"kid": RSA_KID, "jwk": rsa_jwk(rsa_key("forger")), "jku": "https://evil.example/jwks"}
    return jwt.encode(world.claims(), rsa_key("forger"), "RS256", headers=headers)


def critical(world: SsoWorld) -> str:
    """An extension that has to be understood (RFC 7515 §4.1.11)."""
    return jwt.encode(world.claims(), rsa_key("sso"), "RS256", headers={"kid": RSA_KID, "crit": ["b64"], "b64": False})


FORGED: dict[str, Callable[[SsoWorld], str]] = {
    "wrong key": lambda world: world.token(rsa_key("forger")),
    "wrong key, the other algorithm": lambda world: world.token(ec_key("forger"), "ES256", EC_KID),
    "key of another algorithm": lambda world: world.token(ec_key("forger"), "ES256", RSA_KID),
    "unknown key": lambda world: world.token(kid="JWT-Signature-Key-2"),
    "no key named": lambda world: world.token(kid=None),
    "key named by a path": lambda world: world.token(kid="../../dev/null"),
    "alg none": lambda world: unsigned(world.claims(), "none"),
    "alg None": lambda world: unsigned(world.claims(), "None"),
    "alg nOnE": lambda world: unsigned(world.claims(), "nOnE"),
    "HS256 with the public key": with_public_key_as_secret,
    "HS256 with the client secret": lambda world: hs256(
        world.claims(), CLIENT_SECRET.encode(), {"alg": "HS256", "kid": RSA_KID}
    ),
    "changed claims": with_changed_claims,
    "its own key": with_a_key_of_its_own,
    "critical extension": critical,
    "signature cut off": lambda world: world.token().rpartition(".")[0] + ".",
    "expired": lambda world: world.token(exp=int(time.time()) - 60),
    "never expires": lambda world: world.token(exp=None),
    "not yet valid": lambda world: world.token(nbf=int(time.time()) + 3600),
    "another issuer": lambda world: world.token(iss="https://login.eveonline.com"),
    "an issuer that begins like ours": lambda world: world.token(iss=f"{world.server.url}.evil.example"),
    "no issuer": lambda world: world.token(iss=None),
    "another application's": lambda world: world.token(aud=["another-app", "EVE Online"], azp="another-app"),
    "another application's, our audience": lambda world: world.token(azp="another-app"),
    "EVE's audience alone": lambda world: world.token(aud="EVE Online"),
    "our audience alone": lambda world: world.token(aud=[CLIENT_ID]),
    "no audience": lambda world: world.token(aud=None),
    "audience that holds ours as a part": lambda world: world.token(aud=[f"x{CLIENT_ID}", "EVE Online"]),
    "a corporation": lambda world: world.token(sub=f"CORPORATION:EVE:{CHARACTER}"),
    "SQL for a subject": lambda world: world.token(sub="CHARACTER:EVE:1 OR 1=1"),
    "too big a subject": lambda world: world.token(sub="CHARACTER:EVE:9999999999999999999"),
    "no owner": lambda world: world.token(owner=None),
    "scopes as an object": lambda world: world.token(scp={"esi-killmails.read_killmails.v1": True}),
    "no JWT at all": lambda world: "opaque-token",
    "a bomb": lambda world: ".".join([base64.b64encode(b"[" * 4000).decode()] * 3),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_nothing_comes_of_a_forged_token(
    client: FlaskClient, world: SsoWorld, caplog: pytest.LogCaptureFixture, forge: Callable[[SsoWorld], str]
) -> None:
    token = forge(world)
    hand_out(world, token)

    response = log_in(client)

    assert response.status_code in (400, 503)
    assert who(client) is None
    assert User.select().count() == Sync.select().count() == 0
    assert token not in response.text + caplog.text
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]) <= 2


def test_the_same_login_with_a_good_token_works(client: FlaskClient, world: SsoWorld) -> None:
    """Or the refusals above would prove nothing."""
    hand_out(world, world.token())
    assert log_in(client).status_code == 302
    assert who(client) == str(CHARACTER)


def test_a_forged_token_does_not_sign_out_or_replace_who_is_signed_in(client: FlaskClient, world: SsoWorld) -> None:
    hand_out(world, world.token())
    log_in(client)
    before = User.get()
    hand_out(world, world.token(rsa_key("forger"), owner="the attacker"))
    assert log_in(client).status_code == 400
    after = User.get()
    assert who(client) == str(CHARACTER)
    assert (after.refresh_token, after.owner_hash, after.session_epoch) == (
        before.refresh_token, before.owner_hash, before.session_epoch,
    )  # fmt: skip


@pytest.mark.parametrize("forge", ["wrong key", "alg none", "another application's", "expired"])
def test_a_refresh_that_is_answered_with_a_forged_token_changes_nothing(
    client: FlaskClient, world: SsoWorld, sso: SsoClient, make_settings: Callable[..., Any], forge: str
) -> None:
    cipher = TokenCipher(make_settings().token_keys)
    user = User.create(
        character_id=CHARACTER, character_name="Ilse", owner_hash="8PmzCeTKb4VFUDrHLc/AeZXDSWM=", session_epoch=5,
        scopes="esi-killmails.read_killmails.v1", access_token=cipher.encrypt("old"), expires_at=utcnow(),
        refresh_token=cipher.encrypt(REFRESH_TOKEN), next_sync_at=utcnow(),
    )  # fmt: skip
    forged = FORGED[forge](world)
    hand_out(world, forged)

    with pytest.raises(Exception) as refused:
        access_token(user.id, sso, cipher)

    assert forged not in repr(refused.value) + str(refused.value.__cause__)
    after = User.get_by_id(user.id)
    assert (after.access_token, after.refresh_token) == (user.access_token, user.refresh_token)
    assert after.needs_login_reason is None


@pytest.mark.parametrize("name", ["x" * 500, "<img src=x onerror=alert(1)>", "\u202eRenn", "🚀" * 40, "a\u0000b\ud800"])
def test_whatever_a_pilot_is_called_they_can_log_in(client: FlaskClient, world: SsoWorld, name: str) -> None:
    hand_out(world, world.token(name=name))
    assert log_in(client).status_code == 302
    page = client.get("/")
    assert page.status_code == 200
    assert "<img src=x" not in page.text


@pytest.mark.parametrize("code", ["\ud800", "a\x00b", "a\r\nHost: evil.example", "a&grant_type=refresh_token&x="])
def test_no_code_breaks_the_request_to_the_sso(client: FlaskClient, world: SsoWorld, code: str) -> None:
    """The code is the attacker's text; the form it is sent in is ours."""
    world.answer(TOKEN, reply(400, {"error": "invalid_grant"}))
    state = parse_qs(urlsplit(client.get("/login").headers["Location"]).query)["state"][0]
    query = "mutation($c: String!, $s: String!) { authenticateWithCode(code: $c, state: $s) { user { id } } }"
    assert codes(ask(client, query, {"c": code, "s": state})) == ["BAD_USER_INPUT"]
    for sent in world.asked(TOKEN):
        form = parse_qs(sent.body.decode())
        assert form["grant_type"] == ["authorization_code"]
        assert "evil.example" not in json.dumps(dict(sent.headers))
