"""What a process needs of the outside world, built once from the settings: clients, limiter, cipher."""

from __future__ import annotations

from functools import cache

import settings
from esi.client import EsiClient
from esi.limiter import Limiter
from esi.sso import SsoClient
from tokens import TokenCipher


@cache
def esi() -> EsiClient:
    """The ESI client of this process."""
    config = settings.current()
    return EsiClient(config.esi_url, config.user_agent, config.esi_compatibility_date)


@cache
def sso() -> SsoClient:
    """The SSO client of this process. Raises SettingsError where no application is configured."""
    config = settings.current()
    return SsoClient(
        config.sso_url, config.eve_client_id, config.eve_client_secret, config.eve_callback_url, config.user_agent
    )


@cache
def limiter() -> Limiter:
    """The limiter of this process; all processes decide on the same rows."""
    return Limiter(settings.current().esi_requests_per_second)


@cache
def cipher() -> TokenCipher:
    """What encrypts tokens at rest."""
    return TokenCipher(settings.current().token_keys)
