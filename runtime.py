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
    config = settings.current()
    return EsiClient(config.esi_url, config.user_agent, config.esi_compatibility_date)


@cache
def sso() -> SsoClient:
    config = settings.current()
    return SsoClient(
        config.sso_url, config.eve_client_id, config.eve_client_secret, config.eve_callback_url, config.user_agent
    )


@cache
def limiter() -> Limiter:
    return Limiter(settings.current().esi_requests_per_second)


@cache
def cipher() -> TokenCipher:
    return TokenCipher(settings.current().token_keys)
