"""What the simulated SSO remembers: authorization codes and refresh tokens, and why one is refused.

Wording of every refusal is EVE SSO's own where it is known (esi/README.md §4). Reading HTTP and signing
tokens is left to `sso_routes.py` and `keys.py`.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Seconds an authorization code lives.
CODE_SECONDS: Final = 300.0


class RefusedError(Exception):
    """The token endpoint says no: `error` and `error_description` of the body, and the status."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status


class OddAnswerError(Exception):
    """The token endpoint answers a refresh in a way of its own, as it was told to for one character."""

    def __init__(self, answer: "OddAnswer") -> None:
        super().__init__(f"an odd answer: {answer.status}")
        self.answer = answer


@dataclass(frozen=True)
class OddAnswer:
    """An answer to every refresh of one character, whatever its tokens are worth."""

    status: int
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Grant:
    """What a pilot allowed an application, and how that application proves itself."""

    character_id: int
    scopes: tuple[str, ...]
    redirect_uri: str
    challenge: str | None


@dataclass
class RefreshToken:
    """A refresh token; `public` ones belong to an application without a secret."""

    character_id: int
    scopes: tuple[str, ...]
    public: bool
    dead_because: str | None = None
    #: Epoch seconds until which a token that was replaced still serves.
    grace_until: float = 0.0


GONE: Final = "Invalid refresh token. Token missing/expired."
GRANT_GONE: Final = "Invalid refresh token. Character grant missing/expired."


@dataclass
class Grants:
    """Codes and refresh tokens by their text."""

    _codes: dict[str, tuple[Grant, float]] = field(default_factory=dict)
    _tokens: dict[str, RefreshToken] = field(default_factory=dict)
    #: By character.
    odd_answers: dict[int, OddAnswer] = field(default_factory=dict)

    def issue_code(self, grant: Grant, now: float) -> str:
        """A one-time code for five minutes."""
        code = secrets.token_urlsafe(24)
        self._codes[code] = (grant, now + CODE_SECONDS)
        return code

    def redeem_code(self, code: str, verifier: str | None, now: float) -> Grant:
        """The grant behind a code, once. Raises RefusedError for a used, old or unproven code."""
        grant, expires_at = self._codes.pop(code, (None, 0.0))
        if grant is None or now >= expires_at:
            raise RefusedError("invalid_grant", "Authorization code not found.")
        if grant.challenge is not None and grant.challenge != _challenge_of(verifier or ""):
            raise RefusedError("invalid_grant", "Code verifier does not match the code challenge.")
        return grant

    def issue_token(self, grant: Grant, *, public: bool) -> str | None:
        """A refresh token for a fresh login, or None without scopes.

        A login with another set of scopes kills the character's earlier refresh tokens.
        """
        for token in self._tokens.values():
            same_pilot = token.character_id == grant.character_id
            if same_pilot and token.dead_because is None and set(token.scopes) != set(grant.scopes):
                token.dead_because = GRANT_GONE
        if not grant.scopes:
            return None
        return self._keep(RefreshToken(grant.character_id, grant.scopes, public))

    def owners_of(self, text: str) -> frozenset[int]:
        """The character of a refresh token, dead or alive; empty for an unknown one."""
        return frozenset({self._tokens[text].character_id} if text in self._tokens else ())

    def use_token(self, text: str, now: float, *, public: bool) -> RefreshToken:
        """The live refresh token of this text. Raises RefusedError with EVE SSO's reason, and OddAnswerError."""
        token = self._tokens.get(text)
        if token is None:
            raise RefusedError("invalid_grant", GONE)
        if odd := self.odd_answers.get(token.character_id):
            raise OddAnswerError(odd)
        if token.dead_because is not None and now >= token.grace_until:
            raise RefusedError("invalid_grant", token.dead_because)
        if public and not token.public:
            raise RefusedError("invalid_client", "Missing or invalid client secret.", 401)
        return token

    def rotate_token(self, text: str, now: float, grace: float) -> str:
        """Replace a token by a new one; the old one is dead after `grace` seconds."""
        old = self._tokens[text]
        if old.dead_because is None:
            old.dead_because, old.grace_until = GONE, now + grace
        return self._keep(RefreshToken(old.character_id, old.scopes, old.public))

    def revoke(self, text: str) -> None:
        """Kill one token; an unknown one is no error."""
        if text in self._tokens:
            self._tokens[text].dead_because, self._tokens[text].grace_until = GONE, 0.0

    def revoke_pilot(self, character_id: int) -> int:
        """Kill all tokens of a character and return how many lived."""
        mine = [token for token in self._tokens.values() if token.character_id == character_id]
        alive = [token for token in mine if token.dead_because is None]
        for token in mine:
            token.grace_until = 0.0
        for token in alive:
            token.dead_because = GRANT_GONE
        return len(alive)

    def _keep(self, token: RefreshToken) -> str:
        text = base64.b64encode(secrets.token_bytes(16)).decode()
        self._tokens[text] = token
        return text


def _challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
