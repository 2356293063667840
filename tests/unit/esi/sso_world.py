"""An SSO on the scripted server: metadata and keys by default, anything else as a test says, and tokens to order."""

from __future__ import annotations

import json
import time
from collections import deque
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.unit.esi.raw_server import RawServer, Received, Step, reply

CLIENT_ID = "client-0001"
CLIENT_SECRET = "client-secret-9d2c"
CALLBACK = "http://127.0.0.1:8000/auth/callback"
METADATA = "/.well-known/oauth-authorization-server"
TOKEN, JWKS, REVOKE = "/v2/oauth/token", "/oauth/jwks", "/v2/oauth/revoke"
RSA_KID, EC_KID = "JWT-Signature-Key", "8878a23f"


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key a name for the whole run: making them is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_jwk(key: rsa.RSAPrivateKey, kid: str = RSA_KID, **more: Any) -> dict[str, Any]:
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "RS256", "use": "sig", **more}


def ec_jwk(key: ec.EllipticCurvePrivateKey, kid: str = EC_KID, **more: Any) -> dict[str, Any]:
    return {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256", "use": "sig", **more}


class SsoWorld:
    """`answers[path]` holds answers to come; when it is empty, metadata and keys answer as they should."""

    def __init__(self, server: RawServer) -> None:
        self.server = server
        self.answers: dict[str, deque[Step]] = {}
        self.keys: list[Any] = [rsa_jwk(rsa_key("sso")), ec_jwk(ec_key("sso"))]
        self.metadata: dict[str, Any] = {
            "issuer": server.url,
            "authorization_endpoint": f"{server.url}/v2/oauth/authorize",
            "token_endpoint": server.url + TOKEN,
            "jwks_uri": server.url + JWKS,
            "revocation_endpoint": server.url + REVOKE,
        }
        server.script(*[self._route] * 500)

    def answer(self, path: str, *steps: Step) -> None:
        self.answers.setdefault(path, deque()).extend(steps)

    def asked(self, path: str) -> list[Received]:
        return [request for request in self.server.received if request.target == path]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims as EVE SSO writes them; a change of None leaves the claim out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "scp": ["esi-killmails.read_killmails.v1", "publicData"],
            "jti": "998e12c7-3241-43c5-8355-2c48822e0a1b",
            "kid": RSA_KID,
            "sub": "CHARACTER:EVE:90000001",
            "azp": CLIENT_ID,
            "tenant": "tranquility",
            "aud": [CLIENT_ID, "EVE Online"],
            "name": "Ilse Vantor",
            "owner": "8PmzCeTKb4VFUDrHLc/AeZXDSWM=",
            "exp": now + 1200,
            "iat": now,
            "iss": self.server.url,
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, key: Any = None, algorithm: str = "RS256", kid: str | None = RSA_KID, **changes: Any) -> str:
        headers = {} if kid is None else {"kid": kid}
        return jwt.encode(self.claims(**changes), key or rsa_key("sso"), algorithm=algorithm, headers=headers)

    def _route(self, request: Received) -> Step:
        waiting = self.answers.get(request.target)
        if waiting:
            return waiting.popleft()
        if request.target == METADATA:
            return reply(200, self.metadata)
        if request.target == JWKS:
            return reply(200, {"keys": self.keys, "SkipUnresolvedJsonWebKeys": True})
        return reply(599, b"nothing was scripted for this path")
