"""What a simulator is started with, and what may be changed while it runs.

`Config` is fixed for a process; `Settings` are the few values the control API may turn. Both hold parsed
values only, so a bad string is refused before anything listens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from simulator.rules import Limit

#: Advertised limits per rate limit group (ESI docs: rate limiting; OpenAPI `x-rate-limit`).
DEFAULT_LIMITS: Final[Mapping[str, str]] = {
    "char-killmail": "30/15m",
    "corp-killmail": "30/15m",
    "killmail": "3600/15m",
    "status": "600/15m",
}


@dataclass(frozen=True)
class Config:
    """How to start. Times are seconds unless the name says otherwise."""

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 1
    pilots: int = 3
    killmail_count: int = 520
    #: Part of the killmails that stand in two pilots' lists, 0-1.
    shared_fraction: float = 0.12
    #: Mean attackers of a fleet fight and mean items of a loss.
    attackers: int = 6
    items: int = 12
    hostile_names: bool = False
    #: A folder of real killmails (ESI body plus `killmail_hash`) to serve instead of invented ones.
    killmails_dir: Path | None = None
    limits: Mapping[str, str] = field(default_factory=dict)
    #: Legacy limit of routes without a bucket (ESI docs: rate limiting).
    error_limit: str = "100/1m"
    cache_seconds: float = 300.0
    #: Life of an access token; 20 minutes on EVE SSO.
    token_seconds: float = 1200.0
    page_size: int = 1000
    latency_ms: tuple[float, float] = (0.0, 0.0)
    #: Status of page 1 for a character without killmails: 200 with `[]`, or 404. Both were seen on ESI.
    empty_list_status: int = 200
    players: int = 23_456
    client_id: str = "demo"
    client_secret: str = "demo"  # noqa: S105 - a demo value
    #: Registered redirect addresses; empty means any address on a loopback host.
    callbacks: tuple[str, ...] = ()
    rotate_refresh_tokens: bool = False
    rotation_grace_seconds: float = 0.0
    faults: tuple[Mapping[str, object], ...] = ()


@dataclass
class Settings:
    """The values `POST /_simulator/settings` may change; a change holds from the next request on."""

    limits: dict[str, Limit]
    error_limit: Limit
    cache_seconds: float
    token_seconds: float
    page_size: int
    latency_ms: tuple[float, float]
    rotate_refresh_tokens: bool
    #: Seconds for which a refresh token still serves after it was replaced.
    rotation_grace_seconds: float
    players: int
    empty_list_status: int

    @classmethod
    def of(cls, config: Config) -> "Settings":
        """The settings a configuration starts with. Raises ValueError for a limit that cannot be read."""
        advertised = {**DEFAULT_LIMITS, **config.limits}
        return cls(
            limits={group: Limit.parse(text) for group, text in advertised.items()},
            error_limit=Limit.parse(config.error_limit),
            cache_seconds=config.cache_seconds,
            token_seconds=config.token_seconds,
            page_size=config.page_size,
            latency_ms=config.latency_ms,
            rotate_refresh_tokens=config.rotate_refresh_tokens,
            rotation_grace_seconds=config.rotation_grace_seconds,
            players=config.players,
            empty_list_status=config.empty_list_status,
        )

    def update(self, changes: Mapping[str, object]) -> None:
        """Apply a JSON object. Raises ValueError naming the first key or value that makes no sense."""
        for key, value in changes.items():
            match key, value:
                case "limits", dict():
                    self.limits |= {str(group): Limit.parse(str(text)) for group, text in value.items()}
                case "error_limit", int() | str():
                    text = str(value)
                    self.error_limit = Limit.parse(text if "/" in text else f"{text}/1m")
                case "cache_seconds" | "token_seconds" | "rotation_grace_seconds", int() | float():
                    setattr(self, key, float(value))
                case "page_size" | "players" | "empty_list_status", int():
                    setattr(self, key, value)
                case "rotate_refresh_tokens", bool():
                    self.rotate_refresh_tokens = value
                case "latency_ms", _:
                    self.latency_ms = milliseconds(value)
                case _:
                    raise ValueError(f"settings: cannot set {key} to {value!r}")


def milliseconds(value: object) -> tuple[float, float]:
    """A latency range from `20`, `"20"`, `"20-60"` or `[20, 60]`. Raises ValueError for anything else."""
    match value:
        case int() | float():
            return float(value), float(value)
        case str():
            low, _, high = value.partition("-")
            return float(low), float(high or low)
        case [low, high]:
            return float(low), float(high)
        case _:
            raise ValueError(f"not a latency in milliseconds: {value!r}")
