"""EVE access tokens, verified: whose they are and what they allow. The one place that believes a JWT.

The invariant: an Identity comes only from a token whose signature was checked with a key the SSO publishes, of the kind
the key itself is for, and whose every claim we rely on was checked. A token that fails is an SsoInvalidToken that names
the check and never shows the token. Fetching keys and metadata is left to `sso.py`, which hands a function in.
The claims: https://developers.eveonline.com/docs/services/sso/ (validating JWT tokens).
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.types import Options

from clock import CLOCKS_APART
from database import clock
from esi.answers import INT64_MAX, MalformedError, text
from esi.errors import SsoInvalidToken, SsoUnavailable

#: Algorithm to key type. Asymmetric only: `none` and HS256 would let anyone who knows a public key sign.
ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
#: Characters of an access token; real ones have about 1,500.
MAX_TOKEN = 16 * 1024
#: Seconds our clock may be wrong by when a token's expiry is checked.
LEEWAY = 10
#: Seconds after which the keys are fetched again, so that a withdrawn key is not believed for ever.
KEYS_MAX_AGE = 3600.0
#: Bits. Shorter RSA keys are skipped (RFC 7518 §3.3).
MIN_RSA_BITS = 2048
#: The second audience of every EVE token.
EVE_AUDIENCE = "EVE Online"

_SUBJECT = re.compile(r"CHARACTER:EVE:([1-9][0-9]{0,18})")
_ASCII = re.compile(r"[A-Za-z0-9_.\-]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who an access token speaks for. `expires_at` is naive UTC; `owner_hash` changes when the character is sold."""

    character_id: int
    name: str
    owner_hash: str
    scopes: frozenset[str]
    expires_at: datetime


class KeySet:
    """The SSO's public keys by (kid, alg), fetched when needed. Safe to share between threads.

    A key nobody knows makes the set be fetched again, at most once in `refetch_seconds` (tokens with invented keys
    must not turn into requests). When fetching fails, the keys at hand go on being used.
    """

    def __init__(
        self, fetch: Callable[[], Mapping[str, Any]], clock: Callable[[], float], refetch_seconds: float
    ) -> None:
        """`fetch` returns a decoded JWKS or raises SsoUnavailable; `clock` is monotonic seconds."""
        self._fetch = fetch
        self._clock = clock
        self._refetch_seconds = refetch_seconds
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str], jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._refetched_at: float | None = None
        self._outage: tuple[str, float | None] | None = None

    def find(self, kid: str, algorithm: str) -> jwt.PyJWK | None:
        """The key, or None when the SSO has none such. Raises SsoUnavailable when that cannot be known now."""
        if not self._stale() and (key := self._keys.get((kid, algorithm))):
            return key
        with self._lock:
            self._refresh(wanted=(kid, algorithm))
            key = self._keys.get((kid, algorithm))
            if key is None and self._outage is not None:
                message, wait = self._outage
                raise SsoUnavailable(message, retry_after=wait, whole_service=True)
            return key

    def _stale(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at > KEYS_MAX_AGE

    def _refresh(self, wanted: tuple[str, str]) -> None:
        """Fetch the keys if it is due; the lock is held."""
        first = self._fetched_at is None
        if not self._stale() and wanted in self._keys:
            return
        now = self._clock()
        if not first:
            if self._refetched_at is not None and now - self._refetched_at < self._refetch_seconds:
                return
            self._refetched_at = now
        try:
            self._keys = _usable_keys(self._fetch())
        except SsoUnavailable as outage:
            self._outage = str(outage), outage.retry_after
            return
        self._fetched_at, self._outage = now, None


class Verifier:
    """Checks access tokens issued to one application."""

    def __init__(self, client_id: str, keys: KeySet) -> None:
        self._client_id = client_id
        self._keys = keys

    def verify(self, access_token: str, issuer: str) -> Identity:
        """The identity a token proves. `issuer` is the one the SSO's metadata names.

        Raises SsoInvalidToken, and SsoUnavailable when the keys cannot be fetched.
        """
        claims = self._signed_claims(access_token)
        if claims.get("iss") not in accepted_issuers(issuer):
            raise SsoInvalidToken("issuer", "it was issued by somebody else than SSO_URL")
        audience = claims.get("aud")
        if not isinstance(audience, list) or self._client_id not in audience or EVE_AUDIENCE not in audience:
            raise SsoInvalidToken("audience", "it was issued for another application than EVE_CLIENT_ID")
        if "azp" in claims and claims["azp"] != self._client_id:
            raise SsoInvalidToken("authorized party", "it was issued to another application than EVE_CLIENT_ID")
        return Identity(
            character_id=_character_id(claims.get("sub")),
            name=_text(claims, "name", most=1000),  # decoration: no reason to refuse a login
            owner_hash=_text(claims, "owner"),
            scopes=_scopes(claims.get("scp")),
            expires_at=_expires_at(claims.get("exp")),
        )

    def _signed_claims(self, access_token: str) -> dict[str, Any]:
        """The claims of a token that is signed by the SSO and not expired."""
        algorithm, kid = _header(access_token)
        key = self._keys.find(kid, algorithm)
        if key is None:
            raise SsoInvalidToken("key", "it is signed with a key the SSO does not publish")
        # Audience and issuer have forms PyJWT does not know and are checked by hand. `iat` is not checked: a clock
        # that is slow by a minute would otherwise refuse every fresh login.
        options: Options = {"require": ["exp", "sub"], "verify_aud": False, "verify_iss": False, "verify_iat": False}
        options["verify_nbf"] = False  # likewise: `_is_premature` allows for clocks that differ
        check, message = "form", "it is malformed"
        try:
            claims = jwt.decode(access_token, key, algorithms=[algorithm], options=options, leeway=LEEWAY)
            if not _is_premature(claims.get("nbf", 0)):
                return claims
            check, message = "expiry", "it is not valid yet; check this machine's clock"
        except jwt.ExpiredSignatureError:
            check, message = "expiry", "it has expired"
        except jwt.InvalidSignatureError:
            check, message = "signature", "its signature is wrong"
        except (jwt.MissingRequiredClaimError, jwt.exceptions.InvalidSubjectError):
            check, message = "claims", "it lacks exp or sub"
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            pass
        raise SsoInvalidToken(check, message)


def accepted_issuers(issuer: str) -> frozenset[str]:
    """The forms of one issuer: without and with a trailing slash, and its bare host (the SSO has used all three)."""
    bare = issuer.rstrip("/")
    return frozenset({bare, f"{bare}/", urlsplit(bare).netloc})


def _header(access_token: str) -> tuple[str, str]:
    """`alg` and `kid` of a token, unverified: they only choose the key."""
    header: dict[str, Any] | None = None
    if len(access_token) <= MAX_TOKEN and _ASCII.fullmatch(access_token):
        try:
            header = jwt.get_unverified_header(access_token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            header = None
    if header is None:
        raise SsoInvalidToken("form", "it is not a JWT")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise SsoInvalidToken("algorithm", "it is not signed with RS256 or ES256")
    if not isinstance(kid, str):
        raise SsoInvalidToken("key", "it does not say which key signed it")
    return algorithm, kid


def _usable_keys(document: Mapping[str, Any]) -> dict[tuple[str, str], jwt.PyJWK]:
    """The signing keys of a JWKS that we can use; the others are skipped, as SkipUnresolvedJsonWebKeys asks.

    Raises SsoUnavailable when that leaves none.
    """
    entries = document.get("keys")
    keys: dict[tuple[str, str], jwt.PyJWK] = {}
    for entry in entries if isinstance(entries, list) else []:
        if (found := _usable_key(entry)) is not None:
            kid, algorithm, key = found
            keys[kid, algorithm] = key
    if not keys:
        raise SsoUnavailable("the SSO's key set holds no key that can be used")
    return keys


def _usable_key(entry: Any) -> tuple[str, str, jwt.PyJWK] | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    kid, kty = entry.get("kid"), entry.get("kty")
    algorithm = next((name for name, key_type in ALGORITHMS.items() if key_type == kty), None)
    if not isinstance(kid, str) or algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a key that is too short is skipped below, with or without a warning
            key = jwt.PyJWK(entry, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
        return None
    return kid, algorithm, key


def _character_id(subject: Any) -> int:
    match = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if match is None or int(match[1]) > INT64_MAX:
        raise SsoInvalidToken("subject", "its subject is not a character")
    return int(match[1])


def _text(claims: Mapping[str, Any], claim: str, most: int = 200) -> str:
    try:
        return text(claims.get(claim), claim, most=most)
    except MalformedError as error:
        raise SsoInvalidToken(claim, str(error)) from error


def _scopes(value: Any) -> frozenset[str]:
    """`scp`: a string for one scope, an array for several, absent for none."""
    entries = [] if value is None else value.split() if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise SsoInvalidToken("scopes", "scp is neither text nor a list of texts")
    return frozenset(entries)


def _is_premature(not_before: Any) -> bool:
    """Whether a token becomes valid later than any clock's error explains. Raises ValueError and TypeError."""
    return float(not_before) > clock.now() + CLOCKS_APART.total_seconds()


def _expires_at(value: Any) -> datetime:
    moment = None
    try:
        moment = datetime.fromtimestamp(int(value), UTC).replace(tzinfo=None)
    except (ValueError, TypeError, OverflowError, OSError):
        moment = None
    if moment is None:
        raise SsoInvalidToken("expiry", "exp is not a time")
    return moment
