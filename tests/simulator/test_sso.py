"""EVE SSO: metadata, authorize, token, refresh, keys, revoke."""

import base64
import hashlib
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from simulator.grants import Grant, Grants, RefusedError
from tests.simulator.client import CALLBACK, SCOPE, Client
from tests.simulator.conftest import DOCUMENTS

GONE = "Invalid refresh token. Token missing/expired."
GRANT_GONE = "Invalid refresh token. Character grant missing/expired."


def _claims(client: Client, access_token: str) -> dict[str, Any]:
    """Verify as a careful client does: key by kid and alg, issuer, both audiences."""
    keys = client.get("/oauth/jwks").json()["keys"]
    header = jwt.get_unverified_header(access_token)
    [key] = [one for one in keys if one["kid"] == header["kid"] and one["alg"] == header["alg"] == "RS256"]
    claims = jwt.decode(access_token, jwt.PyJWK(key), ["RS256"], audience="EVE Online", issuer=client.url)
    assert claims["aud"] == ["demo", "EVE Online"]
    return claims


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def test_metadata_points_at_this_address(simulate):
    """esi/README.md §4, first line."""
    client = simulate()
    document = client.get("/.well-known/oauth-authorization-server").json()

    assert document["issuer"] == client.url
    assert document["authorization_endpoint"] == f"{client.url}/v2/oauth/authorize"
    assert document["token_endpoint"] == f"{client.url}/v2/oauth/token"
    assert document["jwks_uri"] == f"{client.url}/oauth/jwks"
    assert document["revocation_endpoint"] == f"{client.url}/v2/oauth/revoke"
    assert document["code_challenge_methods_supported"] == ["S256"]


def test_the_key_set_is_shaped_like_the_real_one(simulate):
    """esi/README.md §4: an RS256 and an ES256 key, plus SkipUnresolvedJsonWebKeys."""
    real = json.loads((DOCUMENTS / "jwks-2026-03-12.json").read_text())
    served = simulate().get("/oauth/jwks").json()

    assert served["SkipUnresolvedJsonWebKeys"] is True
    assert [sorted(key) for key in served["keys"]] == [sorted(key) for key in real["keys"]]
    assert [(key["kty"], key["alg"]) for key in served["keys"]] == [("RSA", "RS256"), ("EC", "ES256")]
    assert served["keys"][0]["kid"] == real["keys"][0]["kid"]


def test_a_login_redirects_with_code_and_state(simulate):
    """esi/README.md §4."""
    client = simulate()
    answer = client.authorize(character_id=str(next(iter(client.truth()))), redirect_uri=f"{CALLBACK}?keep=1")

    location = urlsplit(answer.headers["Location"])
    assert answer.status_code == 302
    assert location.geturl().startswith(CALLBACK)
    query = parse_qs(location.query)
    assert (query["state"], query["keep"]) == (["my state"], ["1"])
    assert query["code"][0]


def test_without_a_pilot_a_page_lets_a_person_choose(simulate):
    client = simulate(hostile_names=True)
    truth = client.truth()

    page = client.authorize()

    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    assert all(f"character_id={pilot}" in page.text for pilot in truth)
    assert "<script>" not in page.text
    assert "&lt;script&gt;alert(" in page.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "someone"},
        {"redirect_uri": "https://example.com/callback"},
        {"redirect_uri": "javascript:alert(1)"},
        {"redirect_uri": None},
        {"state": None},
        {"character_id": "5"},
        {"character_id": "x"},
    ],
)
def test_a_question_that_cannot_be_trusted_is_never_redirected(simulate, wrong):
    """esi/README.md §4: registered redirect_uri, state required."""
    answer = simulate().authorize(**{"character_id": "93000101", **wrong})
    assert answer.status_code == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "esi-killmails"}, "invalid_scope"),
        ({"code_challenge": "abc"}, "invalid_request"),
        ({"code_challenge": "abc", "code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": "S256"}, "invalid_request"),
    ],
)
def test_other_mistakes_go_back_to_the_application(simulate, wrong, error):
    """esi/README.md §4."""
    answer = simulate().authorize(**{"character_id": "93000101", **wrong})
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert (query["error"], query["state"]) == ([error], ["my state"])
    assert "code" not in query


def test_registered_addresses_must_match_exactly(simulate):
    """esi/README.md §4: redirect_uri registered, exact."""
    client = simulate(callbacks=(CALLBACK,))
    pilot = str(next(iter(client.truth())))
    assert client.authorize(character_id=pilot).status_code == 302
    assert client.authorize(character_id=pilot, redirect_uri=f"{CALLBACK}/").status_code == 400


def test_a_code_buys_a_token_once(simulate):
    """esi/README.md §4: expires_in 1199, a refresh token of 24 characters base64; the code is one use."""
    client = simulate()
    code = client.code(next(iter(client.truth())))

    first = client.token(grant_type="authorization_code", code=code)
    second = client.token(grant_type="authorization_code", code=code)

    body = first.json()
    assert (first.status_code, body["expires_in"], body["token_type"]) == (200, 1199, "Bearer")
    assert len(body["refresh_token"]) == 24
    assert len(base64.b64decode(body["refresh_token"], validate=True)) == 16
    assert (second.status_code, second.json()["error"]) == (400, "invalid_grant")


def test_the_access_token_says_who(simulate):
    """esi/README.md §4, "JWT": every claim of the documented example."""
    client = simulate()
    pilot = next(iter(client.truth()))

    claims = _claims(client, client.access(pilot))

    assert claims["sub"] == f"CHARACTER:EVE:{pilot}"
    assert claims["owner"] == client.control("GET", "truth")["characters"][str(pilot)]["owner"]
    assert claims["exp"] - claims["iat"] == 1200
    assert claims["scp"] == SCOPE
    assert (claims["azp"], claims["kid"]) == ("demo", "JWT-Signature-Key")
    assert {"jti", "name", "tenant", "tier", "region"} <= claims.keys()


def test_scp_is_a_string_an_array_or_absent(simulate):
    """esi/README.md §4: string for one scope, array for several, absent for none; none: no refresh token."""
    client = simulate()
    pilot = next(iter(client.truth()))
    several = client.login(pilot, f"publicData {SCOPE}")
    none = client.login(pilot, "")

    assert _claims(client, several["access_token"])["scp"] == ["publicData", SCOPE]
    assert "scp" not in _claims(client, none["access_token"])
    assert "refresh_token" not in none


def test_a_public_client_proves_itself_by_its_verifier(simulate):
    """esi/README.md §4: PKCE with client_id and code_verifier in the body; `=` padding is hashed as sent."""
    client = simulate()
    pilot = next(iter(client.truth()))
    verifier = base64.urlsafe_b64encode(b"0" * 32).decode()
    ask = {"code_challenge": _challenge(verifier), "code_challenge_method": "S256"}
    form = {"grant_type": "authorization_code", "client_id": "demo"}

    right = client.token(None, code=client.code(pilot, **ask), code_verifier=verifier, **form)
    wrong = client.token(None, code=client.code(pilot, **ask), code_verifier="0" * 43, **form)
    missing = client.token(None, code=client.code(pilot, **ask), **form)
    unproven = client.token(None, code=client.code(pilot), **form)

    assert [one.status_code for one in (right, wrong, missing, unproven)] == [200, 400, 400, 401]
    refreshed = client.token(
        None, grant_type="refresh_token", client_id="demo", refresh_token=right.json()["refresh_token"]
    )
    assert refreshed.status_code == 200


@pytest.mark.parametrize("auth", [None, ("demo", "wrong"), ("other", "demo")])
def test_a_wrong_client_is_401(simulate, auth):
    """esi/README.md §4: invalid_client 401."""
    client = simulate()
    refresh_token = client.login(next(iter(client.truth())))["refresh_token"]

    answer = client.token(auth, grant_type="refresh_token", refresh_token=refresh_token)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_only_forms_are_read(simulate):
    """esi/README.md §4: JSON or query refused since 2021-11."""
    client = simulate()
    refresh_token = client.login(next(iter(client.truth())))["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    address = f"{client.url}/v2/oauth/token"

    as_json = client.session.post(address, json=form, auth=("demo", "demo"), timeout=5)
    as_query = client.session.post(address, params=form, auth=("demo", "demo"), timeout=5)

    assert (as_json.status_code, as_query.status_code) == (400, 400)
    assert as_json.json()["error"] == "invalid_request"
    assert client.refresh(refresh_token).status_code == 200


def test_another_grant_type_is_refused(simulate):
    """esi/README.md §4."""
    answer = simulate().token(grant_type="password")
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_a_refresh_keeps_its_token_unless_told_to_rotate(simulate):
    """esi/README.md §4: the returned refresh_token may differ; store it always."""
    client = simulate()
    old = client.login(next(iter(client.truth())))["refresh_token"]

    kept = client.refresh(old).json()
    client.control("POST", "settings", {"rotate_refresh_tokens": True})
    rotated = client.refresh(old).json()

    assert (kept["refresh_token"], kept["expires_in"]) == (old, 1200)
    assert rotated["refresh_token"] != old
    assert client.refresh(old).json() == {"error": "invalid_grant", "error_description": GONE}
    assert client.refresh(rotated["refresh_token"]).status_code == 200


def test_a_refresh_may_ask_for_less_but_not_for_more(simulate):
    """esi/README.md §4: refresh with a subset of the scopes."""
    client = simulate()
    token = client.login(next(iter(client.truth())), f"publicData {SCOPE}")["refresh_token"]

    less = client.refresh(token, scope="publicData")
    more = client.refresh(token, scope="publicData esi-wallet.read_character_wallet.v1")

    assert _claims(client, less.json()["access_token"])["scp"] == "publicData"
    assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")


def test_a_login_with_other_scopes_kills_earlier_refresh_tokens(simulate):
    """esi/README.md §4: a different scope set does, the same set does not; other pilots are not touched."""
    client = simulate()
    one, other = client.truth()
    first, second, others = (client.login(pilot)["refresh_token"] for pilot in (one, one, other))
    assert client.refresh(first).status_code == 200

    client.login(one, f"publicData {SCOPE}")

    for dead in (first, second):
        answer = client.refresh(dead)
        assert answer.status_code == 400
        assert answer.json() == {"error": "invalid_grant", "error_description": GRANT_GONE}
    assert client.refresh(others).status_code == 200


def test_revoking_is_always_200(simulate):
    """esi/README.md §4: POST form, always 200, even for an unknown token."""
    client = simulate()
    token = client.login(next(iter(client.truth())))["refresh_token"]
    address = f"{client.url}/v2/oauth/revoke"

    for text in (token, token, "unknown"):
        form = {"token_type_hint": "refresh_token", "token": text}
        assert client.session.post(address, data=form, auth=("demo", "demo"), timeout=5).status_code == 200
    assert client.refresh(token).json() == {"error": "invalid_grant", "error_description": GONE}


@pytest.mark.parametrize("auth", [None, ("demo", "wrong"), ("another", "demo")])
def test_only_its_own_application_revokes_a_token(simulate, auth):
    """esi/README.md §4: Revoke … Basic auth."""
    client = simulate()
    token = client.login(next(iter(client.truth())))["refresh_token"]

    answer = client.session.post(f"{client.url}/v2/oauth/revoke", data={"token": token}, auth=auth, timeout=5)

    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert client.refresh(token).status_code == 200


@pytest.mark.parametrize(("age", "lives"), [(0.0, True), (299.0, True), (300.0, False), (301.0, False)])
def test_a_code_lives_five_minutes(age, lives):
    """esi/README.md §4: Code: one use, 5 min."""
    grants, grant = Grants(), Grant(1, ("scope",), "http://127.0.0.1/callback", None)
    code = grants.issue_code(grant, 1_000.0)
    if lives:
        assert grants.redeem_code(code, None, 1_000.0 + age) == grant
    else:
        with pytest.raises(RefusedError, match="not found"):
            grants.redeem_code(code, None, 1_000.0 + age)


def test_a_sold_character_has_another_owner_and_no_tokens(simulate):
    """esi/README.md §4: owner changes when the character is transferred."""
    client = simulate()
    pilot = next(iter(client.truth()))
    login = client.login(pilot)

    client.control("POST", f"characters/{pilot}/transfer")

    assert client.refresh(login["refresh_token"]).json()["error_description"] == GRANT_GONE
    owner = _claims(client, login["access_token"])["owner"]
    assert _claims(client, client.access(pilot))["owner"] != owner


@pytest.mark.parametrize(("keep_old", "status"), [(True, 200), (False, 401)])
def test_keys_rotate(simulate, keep_old, status):
    """esi/README.md §4."""
    client = simulate()
    pilot = next(iter(client.truth()))
    old = client.access(pilot)
    assert client.recent(pilot, old).status_code == 200

    kid = client.control("POST", "jwks/rotate", {"keep_old": keep_old})["kid"]

    new = client.access(pilot)
    assert _claims(client, new)["kid"] == kid
    assert client.recent(pilot, new).status_code == 200
    assert client.recent(pilot, old).status_code == status


def test_sso_can_be_down_while_esi_is_up(simulate):
    client = simulate()
    pilot = next(iter(client.truth()))
    login = client.login(pilot)

    client.control("POST", "sso_downtime", {"seconds": 60})

    assert client.refresh(login["refresh_token"]).status_code == 503
    assert client.get("/oauth/jwks").status_code == 503
    assert client.recent(pilot, login["access_token"]).status_code == 200
    client.control("POST", "sso_downtime", {"seconds": 0})
    assert client.refresh(login["refresh_token"]).status_code == 200
