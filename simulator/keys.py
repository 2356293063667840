"""The keys of the simulated SSO: signs access tokens, publishes the JWKS, verifies what ESI is shown.

Keys are made at start and never leave the process. The published set carries an ES256 key and CCP's
`SkipUnresolvedJsonWebKeys` too, because clients must cope with both (esi/README.md §4).
"""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Claims = dict[str, Any]

FIRST_KID: Final = "JWT-Signature-Key"
_CACHED: Final = 10_000


class SigningKeys:
    """One signing RSA key, the ones before it that still count, and an EC key nobody signs with."""

    def __init__(self) -> None:
        self._kid = FIRST_KID
        self._private = _new_rsa_key()
        self._public = {self._kid: self._private.public_key()}
        self._ec_kid = str(uuid4())
        self._ec_public = ec.generate_private_key(ec.SECP256R1()).public_key()
        self._verified: dict[str, Claims] = {}

    def rotate(self, *, keep_old: bool) -> str:
        """Sign with a new key from now on and return its kid; without `keep_old` old tokens are void."""
        self._kid, self._private = f"{FIRST_KID}-{uuid4()}", _new_rsa_key()
        if not keep_old:
            self._public.clear()
            self._verified.clear()
        self._public[self._kid] = self._private.public_key()
        return self._kid

    def jwks(self) -> dict[str, Any]:
        """The public key set as EVE SSO publishes it."""
        keys = [
            json.loads(RSAAlgorithm.to_jwk(key)) | {"alg": "RS256", "kid": kid, "use": "sig"}
            for kid, key in self._public.items()
        ]
        curve = json.loads(ECAlgorithm.to_jwk(self._ec_public))
        keys.append(curve | {"alg": "ES256", "kid": self._ec_kid, "use": "sig"})
        published = [{name: value for name, value in key.items() if name != "key_ops"} for key in keys]
        return {"keys": published, "SkipUnresolvedJsonWebKeys": True}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """An RS256 JWT; the kid stands in the header and, as EVE SSO does it, in the claims."""
        return jwt.encode({**claims, "kid": self._kid}, self._private, "RS256", headers={"kid": self._kid})

    def verify(self, token: str, issuer: str) -> Claims | None:
        """The claims of a token this SSO signed, expired or not, or None. Verified tokens are remembered."""
        claims = self._verified.get(token)
        if claims is None:
            try:
                key = self._public[jwt.get_unverified_header(token)["kid"]]
                claims = jwt.decode(
                    token, key, ["RS256"], audience="EVE Online", issuer=issuer, options={"verify_exp": False}
                )
            except (jwt.InvalidTokenError, KeyError):
                return None
            if len(self._verified) >= _CACHED:
                self._verified.clear()
            self._verified[token] = claims
        return claims


def _new_rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
