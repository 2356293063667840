"""What stands behind a web application under test: a system that records what it is asked, and rows to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

import periodic_runs
from accounts import DELETION, DUE_FOR
from api.system import System
from database import execute, utcnow
from esi.errors import SsoRefused
from esi.sso import Identity, LoginRequest, SsoClient, TokenSet
from models import (
    Attacker,
    Fetch,
    Killmail,
    KillmailItem,
    Name,
    SolarSystem,
    Sync,
    SyncItem,
    SyncState,
    Trigger,
    User,
    UserKillmail,
    Victim,
)
from settings import KILLMAIL_SCOPE, Settings
from tokens import TokenCipher


class FakeSso:
    """An SSO where the code `code-<character id>` is good once, for the verifier that its login was begun with."""

    def __init__(self) -> None:
        self.down: Exception | None = None
        self.meanwhile: Callable[[], object] = lambda: None  # runs while a code is exchanged
        self.begun: list[LoginRequest] = []
        self.used: set[str] = set()
        self.revoked: list[str] = []
        self.owner_hash = "owner"
        self.scopes = frozenset({KILLMAIL_SCOPE})

    def new_login(self) -> LoginRequest:
        login = LoginRequest(f"state-{len(self.begun)}-{'x' * 20}", f"verifier-{len(self.begun)}")
        self.begun.append(login)
        return login

    def authorize_url(self, login: LoginRequest, scopes: Sequence[str]) -> str:
        if self.down:
            raise self.down
        return f"https://sso.invalid/authorize?state={login.state}&scope={' '.join(scopes)}"

    def exchange(self, code: str, code_verifier: str) -> TokenSet:
        self.meanwhile()
        if self.down:
            raise self.down
        known = {login.code_verifier for login in self.begun}
        if code in self.used or not code.startswith("code-") or code_verifier not in known:
            raise SsoRefused("refused")
        self.used.add(code)
        return TokenSet(f"access-{code}", f"refresh-{code}", 1199)

    def verify(self, access_token: str) -> Identity:
        character_id = int(access_token.rpartition("-")[2])
        expires_at = utcnow() + timedelta(minutes=20)
        return Identity(character_id, f"Pilot {character_id}", self.owner_hash, self.scopes, expires_at)

    def revoke(self, refresh_token: str) -> None:
        if self.down:
            raise self.down
        self.revoked.append(refresh_token)


@dataclass
class Requested:
    sync_id: int | None
    queued: bool
    message: str


@dataclass
class Count:
    queue_name: str
    message_count: int = 0
    consumer_count: int = 8
    delayed_count: int = 0
    dead_count: int = 0


@dataclass
class FakeBackend:
    """Syncs are opened as rows and nothing works on them. `broker_error` is what a broker that is away raises."""

    sso: FakeSso = field(default_factory=FakeSso)
    requests: list[tuple[int, Trigger, bool]] = field(default_factory=list)
    cooldown: bool = False
    broker_error: Exception | None = None
    counted: int = 0
    checked: int = 0

    def request_sync(self, user_id: int, trigger: Trigger, *, full: bool = False, force: bool = False) -> Requested:
        self.requests.append((user_id, trigger, full))
        if self.cooldown:
            return Requested(None, False, "Last synced 1 minute ago.")
        active = Sync.get_or_none((Sync.user == user_id) & Sync.finished_at.is_null())
        if active is not None:
            return Requested(active.id, True, "A sync is already under way.")
        return Requested(make_sync(user_id, trigger=trigger, full=full).id, True, "Sync queued.")

    def queue_counts(self) -> list[Count]:
        self.counted += 1
        self._answer()
        return [Count("esi_killmail_details_queue", 7)]

    def check_broker(self) -> None:
        self.checked += 1
        self._answer()

    def _answer(self) -> None:
        if self.broker_error is not None:
            raise self.broker_error

    def system(self, settings: Settings) -> System:
        sso = cast(SsoClient, self.sso)
        cipher = TokenCipher(settings.token_keys)
        return System(settings, sso, cipher, self.request_sync, self.queue_counts, self.check_broker)


def make_user(character_id: int = 90_000_001, **changes: Any) -> User:
    """A pilot who may be synced."""
    values: dict[str, Any] = {
        "character_id": character_id,
        "character_name": f"Pilot {character_id}",
        "owner_hash": "owner",
        "scopes": KILLMAIL_SCOPE,
        "refresh_token": "sealed",
        "session_epoch": 5,
        "next_sync_at": utcnow(),
    }
    return User.create(**{**values, **changes})


def make_killmail(
    killmail_id: int,
    *viewers: User,
    victim_id: int | None = 95_000_001,
    attackers: int = 1,
    ship_type_id: int = 587,
    linked_at: datetime | None = None,
    victim: dict[str, Any] | None = None,
    **changes: Any,
) -> Killmail:
    """A stored killmail that stood in the lists of `viewers`, as many seconds after 2026-11-01 as its id."""
    values: dict[str, Any] = {
        "killmail_id": killmail_id,
        "killmail_hash": f"{killmail_id:040x}",
        "killmail_time": datetime(2026, 11, 1) + timedelta(seconds=killmail_id),
        "solar_system_id": 30_000_142,
        "attacker_count": attackers,
        "is_npc": False,
        "is_solo": attackers == 1,
    }
    killmail = Killmail.create(**{**values, **changes}, force_insert=True)
    about = {"character_id": victim_id, "ship_type_id": ship_type_id, "damage_taken": 4_000_000_000, **(victim or {})}
    Victim.create(killmail=killmail_id, **about, force_insert=True)
    for ordinal in range(attackers):
        Attacker.create(
            killmail=killmail_id,
            ordinal=ordinal,
            character_id=96_000_000 + ordinal,
            corporation_id=98_000_000,
            ship_type_id=621,
            damage_done=10,
            final_blow=ordinal == attackers - 1,
            security_status=-1.5,
            force_insert=True,
        )
    _make_items(killmail_id)
    for viewer in viewers:
        link(viewer, killmail_id, linked_at)
    return killmail


def link(viewer: User, killmail_id: int, linked_at: datetime | None = None) -> None:
    """The killmail stood in the viewer's list."""
    UserKillmail.create(user=viewer.id, killmail_id=killmail_id, linked_at=linked_at or utcnow(), force_insert=True)


def _make_items(killmail_id: int) -> None:
    """A container with something in it, and a stack."""
    for ordinal, parent, type_id, dropped in ((0, None, 3465, 1), (1, 0, 34, 5_000_000_000), (2, None, 35, None)):
        KillmailItem.create(
            killmail=killmail_id,
            ordinal=ordinal,
            parent_ordinal=parent,
            item_type_id=type_id,
            flag=5,
            singleton=0,
            quantity_dropped=dropped,
            quantity_destroyed=None if dropped else 3,
            force_insert=True,
        )


def make_sync(user_id: int, **changes: Any) -> Sync:
    values = {"user": user_id, "trigger": Trigger.WEB, "priority": 8, "state": SyncState.QUEUED}
    return Sync.create(**{**values, **changes})


def wait_for_killmail(sync: Sync, killmail_id: int, **changes: Any) -> None:
    """The sync still waits for this one."""
    SyncItem.create(sync=sync.id, killmail_id=killmail_id, force_insert=True)
    values = {"killmail_id": killmail_id, "killmail_hash": "0" * 40, "priority": 8}
    Fetch.create(**{**values, **changes}, force_insert=True)


def secure(solar_system_id: int, security_status: float | None) -> None:
    """A solar system whose security status is known, or wanted."""
    SolarSystem.create(id=solar_system_id, security_status=security_status, force_insert=True)


def name(entity_id: int, text: str | None) -> None:
    Name.create(id=entity_id, name=text, category="character", force_insert=True)


def deletion_was_due_for_hours() -> None:
    """As if each tick of the last hours had found former owners to delete."""
    periodic_runs.wanted_for(DELETION, DUE_FOR)
    execute("UPDATE periodic_runs SET due_at = ? WHERE name = ?", (utcnow(), DELETION))
