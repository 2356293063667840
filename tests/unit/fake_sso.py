"""An SSO without HTTP: hands out, refreshes, verifies and revokes tokens it remembers, and fails when told to.

It keeps the SSO's rules that matter to whoever stores tokens: a refresh token it does not know is refused, a rotating
one is good for one use. Every token has SECRET in it, so that a test can look for leaks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import accounts
from database import utcnow
from esi.errors import SsoError, SsoInvalidToken, SsoRefused
from esi.sso import Identity, TokenSet
from models import User
from settings import KILLMAIL_SCOPE
from tokens import TokenCipher

#: In every token in clear, and nowhere else.
SECRET = "plain-secret"


def pilot(character_id: int = 90_000_001, owner_hash: str = "owner-one", scopes: str = KILLMAIL_SCOPE) -> Identity:
    """Who a login is for. `scopes`: separated by spaces."""
    return Identity(character_id, f"Pilot {character_id}", owner_hash, frozenset(scopes.split()), utcnow())


def log_in(
    sso: FakeSso,
    cipher: TokenCipher,
    identity: Identity | None = None,
    cooldown_minutes: int = 15,
    secret_key: str | None = None,
) -> User:
    """A login as the web's callback does it: the tokens issued, verified, stored."""
    issued = sso.login(identity or pilot())
    return accounts.log_in(sso.verify(issued.access_token), issued, cipher, cooldown_minutes, secret_key=secret_key)


def expire(user: User, left: timedelta = timedelta()) -> None:
    """Let the stored access token have `left` to live."""
    User.update(expires_at=utcnow() + left).where(User.id == user.id).execute()


@dataclass
class FakeSso:
    """`calls`: refresh tokens as they came in. `failure`: raised instead of an answer. `meanwhile`: runs during one.

    `failures`: errors to come for one refresh token each, first come first raised; the last one stays.
    `crossed`: refresh tokens whose next answer is that of another one.
    """

    rotates: bool = False
    life: timedelta = timedelta(minutes=20)
    failure: SsoError | None = None
    verify_failure: SsoError | None = None
    meanwhile: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    failures: dict[str, list[SsoError | None]] = field(default_factory=dict)
    crossed: dict[str, str] = field(default_factory=dict)
    most_at_once: int = 0
    _at_once: int = 0
    _owners: dict[str, Identity] = field(default_factory=dict)  # by refresh token
    _identities: dict[str, Identity] = field(default_factory=dict)  # by access token
    _issued: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def login(self, identity: Identity) -> TokenSet:
        """The tokens of a login; without scopes there is no refresh token."""
        with self._lock:
            return self._issue(identity, self._new_refresh_token(identity) if identity.scopes else None)

    def sell(self, refresh_token: str, new_owner: str) -> None:
        """From now on access tokens of this login name another owner."""
        self._owners[refresh_token] = replace(self._owners[refresh_token], owner_hash=new_owner)

    def answer_as(self, refresh_token: str, identity: Identity) -> None:
        """From now on access tokens of this login are for `identity`."""
        self._owners[refresh_token] = identity

    def refuse(self, refresh_token: str) -> None:
        """From now on this refresh token is not accepted."""
        del self._owners[refresh_token]

    def refresh(self, refresh_token: str) -> TokenSet:
        with self._lock:
            self.calls.append(refresh_token)
            refresh_token = self.crossed.pop(refresh_token, refresh_token)
            owner = self._owners.get(refresh_token)
            failure = self._failure_of(refresh_token)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.meanwhile()
        finally:
            with self._lock:
                self._at_once -= 1
        if failure is not None:
            raise failure
        if owner is None:
            raise SsoRefused("token refresh: the SSO refused the grant (invalid_grant); a new login is needed")
        with self._lock:
            if self.rotates:
                self._owners.pop(refresh_token, None)
                refresh_token = self._new_refresh_token(owner)
            return self._issue(owner, refresh_token)

    def verify(self, access_token: str) -> Identity:
        if self.verify_failure is not None:
            raise self.verify_failure
        identity = self._identities.get(access_token)
        if identity is None:
            raise SsoInvalidToken("signature", "the signature is wrong")
        return identity

    def revoke(self, refresh_token: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.revoked.append(refresh_token)
        self._owners.pop(refresh_token, None)

    def _failure_of(self, refresh_token: str) -> SsoError | None:
        of_this_token = self.failures.get(refresh_token)
        if not of_this_token:
            return self.failure
        return of_this_token.pop(0) if len(of_this_token) > 1 else of_this_token[0]

    def alive(self) -> list[str]:
        """The refresh tokens that it would still accept."""
        return sorted(self._owners)

    def _issue(self, identity: Identity, refresh_token: str | None) -> TokenSet:
        self._issued += 1
        access_token = f"access-{SECRET}-{self._issued}"
        self._identities[access_token] = replace(identity, expires_at=utcnow() + self.life)
        return TokenSet(access_token, refresh_token, int(self.life.total_seconds()))

    def _new_refresh_token(self, identity: Identity) -> str:
        self._issued += 1
        refresh_token = f"refresh-{SECRET}-{self._issued}"
        self._owners[refresh_token] = identity
        return refresh_token


class InterruptedCipher(TokenCipher):
    """Lets `meanwhile` happen once, just before the first token is encrypted or decrypted."""

    def __init__(self, key: str, meanwhile: Callable[[], object]) -> None:
        super().__init__([key])
        self._pending = [meanwhile]

    def encrypt(self, token: str) -> str:
        self._interrupt()
        return super().encrypt(token)

    def decrypt(self, ciphertext: str) -> str:
        self._interrupt()
        return super().decrypt(ciphertext)

    def _interrupt(self) -> None:
        while self._pending:
            self._pending.pop()()
