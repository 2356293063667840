"""Access tokens, good and forged: only what the SSO signed for this application, in time, is believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from esi.errors import SsoInvalidToken, SsoUnavailable
from esi.sso import SsoClient
from tests.unit.esi.raw_server import Step, reply
from tests.unit.esi.sso_world import (
    CALLBACK,
    CLIENT_ID,
    CLIENT_SECRET,
    EC_KID,
    JWKS,
    RSA_KID,
    ec_jwk,
    ec_key,
    rsa_jwk,
    rsa_key,
)


def b64(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def hs256(claims: dict[str, Any], secret: bytes, header: dict[str, Any]) -> str:
    """A JWT signed by hand, because PyJWT refuses to sign with a public key."""
    signed = f"{b64(header)}.{b64(claims)}"
    return f"{signed}.{b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def refusal(sso: SsoClient, token: str) -> SsoInvalidToken:
    with pytest.raises(SsoInvalidToken) as caught:
        sso.verify(token)
    return caught.value


def test_a_good_token_is_an_identity(sso, world):
    expires = int(time.time()) + 700

    identity = sso.verify(world.token(exp=expires))

    assert identity.character_id == 90000001
    assert identity.name == "Ilse Vantor"
    assert identity.owner_hash == "8PmzCeTKb4VFUDrHLc/AeZXDSWM="
    assert identity.scopes == {"esi-killmails.read_killmails.v1", "publicData"}
    assert identity.expires_at == datetime.fromtimestamp(expires, UTC).replace(tzinfo=None)


def test_the_other_key_is_good_too(sso, world):
    assert sso.verify(world.token(ec_key("sso"), "ES256", EC_KID)).character_id == 90000001


@pytest.mark.parametrize(
    ("scp", "scopes"),
    [
        (None, set()),
        ("one.v1", {"one.v1"}),
        (["one.v1"], {"one.v1"}),
        (["one.v1", "two.v1"], {"one.v1", "two.v1"}),
        ([], set()),
        ("", set()),
    ],
)
def test_scopes_come_in_three_forms(sso, world, scp, scopes):
    assert sso.verify(world.token(scp=scp)).scopes == scopes


@pytest.mark.parametrize("form", ["{}", "{}/"])
def test_the_issuer_may_end_with_a_slash(sso, world, server, form):
    assert sso.verify(world.token(iss=form.format(server.url))).character_id


def test_the_issuer_may_be_the_bare_host(sso, world, server):
    assert sso.verify(world.token(iss=f"127.0.0.1:{server.port}")).character_id


def test_a_token_without_azp_is_good(sso, world):
    assert sso.verify(world.token(azp=None)).character_id


def test_a_clock_that_is_slow_refuses_no_fresh_token(sso, world):
    assert sso.verify(world.token(iat=int(time.time()) + 90)).character_id


@pytest.mark.parametrize("seconds", [51, 100, 290])
def test_a_machine_that_is_behind_takes_a_token_that_is_valid_from_now_on(sso, world, seconds):
    """By its clock the token will be valid in a while; the SSO has just made it."""
    assert sso.verify(world.token(nbf=int(time.time()) + seconds)).character_id


#: Changed claims, and the check that refuses them. Each token is signed with the SSO's own key.
WRONG_CLAIMS = [
    ({"exp": 1_600_000_000}, "expiry"),
    ({"exp": int(time.time()) - 60}, "expiry"),
    ({"exp": None}, "claims"),
    ({"exp": 10**18}, "expiry"),
    ({"nbf": int(time.time()) + 86_400}, "expiry"),
    ({"iss": None}, "issuer"),
    ({"iss": "https://login.eveonline.com"}, "issuer"),
    ({"iss": "logineveonline.com"}, "issuer"),
    ({"iss": "127.0.0.1"}, "issuer"),
    ({"aud": None}, "audience"),
    ({"aud": [CLIENT_ID]}, "audience"),
    ({"aud": ["EVE Online"]}, "audience"),
    ({"aud": "EVE Online"}, "audience"),
    ({"aud": CLIENT_ID}, "audience"),
    ({"aud": ["another-app", "EVE Online"]}, "audience"),
    ({"aud": f"{CLIENT_ID} EVE Online"}, "audience"),
    ({"azp": "another-app"}, "authorized party"),
    ({"azp": [CLIENT_ID]}, "authorized party"),
    ({"sub": None}, "claims"),
    ({"sub": "CHARACTER:EVE:"}, "subject"),
    ({"sub": "CHARACTER:EVE:0"}, "subject"),
    ({"sub": "CHARACTER:EVE:-5"}, "subject"),
    ({"sub": "CHARACTER:EVE:5\n"}, "subject"),
    ({"sub": "CHARACTER:EVE:5 OR 1=1"}, "subject"),
    ({"sub": "CHARACTER:EVE:1٥"}, "subject"),
    ({"sub": "CORPORATION:EVE:5"}, "subject"),
    ({"sub": "xCHARACTER:EVE:5"}, "subject"),
    ({"sub": "CHARACTER:EVE:9999999999999999999"}, "subject"),
    ({"owner": None}, "owner"),
    ({"owner": ""}, "owner"),
    ({"owner": 5}, "owner"),
    ({"name": None}, "name"),
    ({"name": "x" * 1001}, "name"),
    ({"scp": 5}, "scopes"),
    ({"scp": ["one.v1", 5]}, "scopes"),
    ({"scp": {"one.v1": True}}, "scopes"),
]


@pytest.mark.parametrize(
    ("changes", "check"), WRONG_CLAIMS, ids=lambda value: re.sub(r"\d{10}", "time", str(value))[:40]
)
def test_a_wrong_claim_is_refused_by_name(sso, world, changes, check):
    error = refusal(sso, world.token(**changes))

    assert error.check == check
    assert error.permanent


def test_a_subject_that_is_no_text_is_refused(sso, world):
    claims = world.claims(sub=5)
    signed = jwt.api_jws.encode(json.dumps(claims).encode(), rsa_key("sso"), "RS256", {"kid": RSA_KID})

    assert refusal(sso, signed).check == "claims"


def test_another_key_under_the_ssos_kid_is_refused(sso, world):
    assert refusal(sso, world.token(rsa_key("forger"))).check == "signature"
    assert refusal(sso, world.token(ec_key("forger"), "ES256", EC_KID)).check == "signature"


def test_changed_claims_under_a_good_signature_are_refused(sso, world):
    header, _, signature = world.token().split(".")

    assert refusal(sso, f"{header}.{b64(world.claims(sub='CHARACTER:EVE:5'))}.{signature}").check == "signature"


def test_a_key_is_good_for_its_own_algorithm_only(sso, world):
    assert refusal(sso, world.token(ec_key("forger"), "ES256", RSA_KID)).check == "key"


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None])
def test_an_unsigned_token_is_refused(sso, world, algorithm):
    unsigned = f"{b64({'alg': algorithm, 'kid': RSA_KID})}.{b64(world.claims())}."

    assert refusal(sso, unsigned).check in ("algorithm", "form")


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(sso, world, encoding):
    public = rsa_key("sso").public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)

    for secret in (public, public.strip(), CLIENT_SECRET.encode()):
        forged = hs256(world.claims(), secret, {"alg": "HS256", "kid": RSA_KID, "typ": "JWT"})
        assert refusal(sso, forged).check == "algorithm"


def test_a_key_inside_the_token_is_not_believed(sso, world):
    headers = {"kid": RSA_KID, "jwk": rsa_jwk(rsa_key("forger")), "jku": "https://evil.example/jwks"}
    forged = jwt.encode(world.claims(), rsa_key("forger"), "RS256", headers=headers)

    assert refusal(sso, forged).check == "signature"


def test_a_token_that_names_no_key_is_refused(sso, world):
    assert refusal(sso, world.token(kid=None)).check == "key"


@pytest.mark.parametrize(
    "token",
    ["", "a", "a.b", "a.b.c", "a.b.c.d", "..", "é.é.é", "a b.c.d", "\x00", "x" * 20_000, "[" * 9000, "W10.W10.W10"],
)
def test_what_is_no_jwt_is_refused(sso, token):
    assert refusal(sso, token).check == "form"


@pytest.mark.parametrize("payload", [b"[]", b"{", b"null", b"\xff", b"[" * 5000])
def test_a_signed_payload_that_is_no_object_is_refused(sso, payload):
    signed = jwt.api_jws.encode(payload, rsa_key("sso"), "RS256", {"kid": RSA_KID})

    assert refusal(sso, signed).check == "form"


# --- keys


def test_keys_are_fetched_once_and_again_after_an_hour(sso, world, clock):
    for seconds in (0, 100, 3000, 600):
        clock.now += seconds
        sso.verify(world.token())

    assert len(world.asked(JWKS)) == 2


def test_a_new_key_is_found_at_once(sso, world):
    sso.verify(world.token())
    world.keys[:] = [rsa_jwk(rsa_key("next"), "next")]

    assert sso.verify(world.token(rsa_key("next"), kid="next")).character_id


def test_a_withdrawn_key_is_forgotten_within_the_hour(sso, world, clock):
    sso.verify(world.token())
    world.keys[:] = [rsa_jwk(rsa_key("next"), "next")]
    clock.now += 3601

    assert refusal(sso, world.token()).check == "key"


def test_invented_keys_cost_one_fetch_a_minute(sso, world, clock):
    sso.verify(world.token())

    for attempt in range(5):
        assert refusal(sso, world.token(kid=f"invented-{attempt}")).check == "key"
    assert len(world.asked(JWKS)) == 2
    clock.now += 61
    refusal(sso, world.token(kid="invented"))

    assert len(world.asked(JWKS)) == 3


def test_known_keys_outlive_an_outage(sso, world, clock):
    sso.verify(world.token())
    world.answer(JWKS, reply(503, b""))
    clock.now += 3601

    assert sso.verify(world.token()).character_id
    assert len(world.asked(JWKS)) == 2


def test_an_unknown_key_during_an_outage_is_not_held_against_the_token(sso, world):
    sso.verify(world.token())
    world.answer(JWKS, reply(503, b"", {"Retry-After": "7"}))

    for _ in range(2):  # asked, and then within the minute in which it is not asked again
        with pytest.raises(SsoUnavailable) as caught:
            sso.verify(world.token(rsa_key("next"), kid="next"))
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    "step",
    [
        reply(503, b""),
        reply(200, {}),
        reply(200, {"keys": {}}),
        reply(200, {"keys": []}),
        reply(200, b"<html>"),
        Step(b"", then="close"),
    ],
)
def test_without_keys_nothing_is_verified_until_there_are_some(sso, world, step):
    world.answer(JWKS, step)

    with pytest.raises(SsoUnavailable):
        sso.verify(world.token())

    assert sso.verify(world.token()).character_id


def test_keys_that_cannot_be_used_are_skipped(sso, world):
    weak = rsa_key("weak", 1024)
    world.keys[:] = [
        None,
        "key",
        {},
        {"kid": "x", "kty": "RSA"},
        {"kid": "x", "kty": "RSA", "n": "!", "e": 5},
        {"kid": "x", "kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kid": "secret", "kty": "oct", "k": b64(b"shared"), "alg": "HS256"},
        {"kid": "p", "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        rsa_jwk(rsa_key("sso"), "for encryption", use="enc"),
        rsa_jwk(rsa_key("sso"), "other algorithm", alg="RS512"),
        rsa_jwk(rsa_key("sso"), 5),  # type: ignore[arg-type]
        rsa_jwk(weak, "weak"),
        ec_jwk(ec_key("sso")),
        rsa_jwk(rsa_key("sso")),
    ]

    assert sso.verify(world.token()).character_id
    for kid in ("x", "secret", "for encryption", "other algorithm"):
        assert refusal(sso, world.token(kid=kid)).check == "key"
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
        weakly_signed = world.token(weak, kid="weak")
    assert refusal(sso, weakly_signed).check == "key"


def test_a_token_expires_with_little_leeway(sso, world):
    now = int(time.time())

    assert sso.verify(world.token(exp=now - 2)).character_id
    assert refusal(sso, world.token(exp=now - 11)).check == "expiry"


def test_many_threads_fetch_the_keys_once(server, world):
    sso = SsoClient(server.url, CLIENT_ID, CLIENT_SECRET, CALLBACK, "tests/1.0")
    token, seen, start = world.token(), [], threading.Barrier(8, timeout=5)

    def verify() -> None:
        start.wait()
        seen.append(sso.verify(token).character_id)

    threads = [threading.Thread(target=verify) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    sso.close()

    assert seen == [90000001] * 8
    assert len(world.asked(JWKS)) == 1
