"""Tokens at rest: Fernet with key rotation. The invariant: no table, log or error holds a token in clear."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from tokens.errors import UndecryptableToken


class TokenCipher:
    """Fernet with rotation: the first of TOKEN_KEYS encrypts, all decrypt. Every refresh encrypts again."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys`: url-safe base64 of 32 bytes each, at least one; raises ValueError."""
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, token: str) -> str:
        return self._fernet.encrypt(token.encode()).decode()

    def decrypt(self, ciphertext: str) -> str:
        """Raises UndecryptableToken."""
        try:
            return self._fernet.decrypt(ciphertext.encode()).decode()
        except InvalidToken:
            raise UndecryptableToken from None
