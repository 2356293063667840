"""Everything a running simulator knows, in one place; one thread touches it.

`Simulator` holds the parts and the few facts that belong to none of them. It decides nothing: the rules are
in `esi_gate.py`, the answers in the `*_routes.py` modules.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from simulator.config import Config, Settings
from simulator.faults import Fault, FaultBoard
from simulator.fleet import Fleet, fleet_of, invent
from simulator.grants import Grants
from simulator.keys import SigningKeys
from simulator.killmail_files import load
from simulator.listing import ListCache
from simulator.request_log import RequestLog
from simulator.rules import ErrorLimit, FloatingWindow
from simulator.world import World

Bucket = tuple[str, str]

RECENT_SCOPE: Final = "esi-killmails.read_killmails.v1"


@dataclass
class Simulator:
    """The parts of one simulated ESI and SSO."""

    config: Config
    settings: Settings
    world: World
    fleet: Fleet
    #: The address everything is served under, without a trailing slash; known once it listens.
    url: str = ""
    keys: SigningKeys = field(default_factory=SigningKeys)
    grants: Grants = field(default_factory=Grants)
    lists: ListCache = field(default_factory=ListCache)
    log: RequestLog = field(default_factory=RequestLog)
    #: What each user spent of each rate limit group.
    buckets: dict[Bucket, FloatingWindow] = field(default_factory=dict)
    errors: ErrorLimit = field(default_factory=ErrorLimit)
    faults: FaultBoard = field(init=False)
    rng: random.Random = field(init=False)
    #: Epoch seconds until which ESI and SSO are down.
    esi_down_until: float = 0.0
    sso_down_until: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(f"network {self.config.seed}")
        self.faults = FaultBoard(random.Random(f"faults {self.config.seed}"))
        self.faults.faults = [Fault.of_json(one) for one in self.config.faults]

    @classmethod
    def of(cls, config: Config) -> "Simulator":
        """Build the world a configuration asks for. Raises ValueError or OSError for an impossible one."""
        settings = Settings.of(config)
        if config.killmails_dir is None:
            world, fleet = invent(config)
        else:
            world = load(config.killmails_dir, config.pilots, config.seed)
            fleet = fleet_of(world, config)
        return cls(config, settings, world, fleet)

    def bucket(self, group: str, user: str) -> FloatingWindow:
        """The window of one user in one group."""
        return self.buckets.setdefault((group, user), FloatingWindow())

    def latency(self) -> float:
        """Seconds the next answer takes on its way."""
        low, high = self.settings.latency_ms
        return self.rng.uniform(low, high) / 1000 if high > 0 else 0.0
