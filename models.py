"""The tables: who is synced, what was stored, and what is still to be done.

Ids and quantities are 64-bit, times naive UTC. What ESI marks optional may be null. The schema is created by the
files in `migrations/`; a test compares the two. Queries that span tables live in `ledger/` and `api/`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from peewee import (
    SQL,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CharField,
    Check,
    CompositeKey,
    DateTimeField,
    DoubleField,
    ForeignKeyField,
    IntegerField,
    Model,
    SmallIntegerField,
    TextField,
)

from database import db, utcnow


class SyncState(StrEnum):
    """The life of a sync. WAITING is not stored: the API shows it while `waiting_until` lies ahead."""

    QUEUED = "QUEUED"  # written down; it is sent when its turn comes (`sent_at` says whether a message is out)
    LISTING = "LISTING"  # a worker reads the killmail list, page by page
    FETCHING = "FETCHING"  # the list is read; killmails are still to be fetched
    FINISHED = "FINISHED"  # every killmail found is stored, or counted as failed
    FAILED = "FAILED"  # the list could not be read to its end; `error` says why


class Trigger(StrEnum):
    """Who asked for a sync."""

    LOGIN = "LOGIN"
    SCHEDULE = "SCHEDULE"
    MANUAL = "MANUAL"
    WEB = "WEB"


class FetchState(StrEnum):
    """The life of a ledger row. A stored killmail has no row."""

    PENDING = "pending"  # may be sent now
    SENT = "sent"  # a message is on its way; taken back when `claimed_until` passes
    FETCHING = "fetching"  # one worker holds it until `claimed_until`
    DEFERRED = "deferred"  # a transient failure; pending again after `not_before`
    REJECTED = "rejected"  # ESI says there is no such killmail; each full sync tries once more


class Table(Model):
    """What all tables share: the database, and names that are the classes'."""

    class Meta:
        database = db
        legacy_table_names = False


class User(Table):
    """A pilot who logged in. Tokens are Fernet ciphertext; `token_version` is what a refresh compares and swaps."""

    id: Any = BigAutoField()
    character_id: Any = BigIntegerField(unique=True)
    character_name: Any = TextField()
    owner_hash: Any = TextField()
    scopes: Any = TextField(default="")  # separated by spaces
    access_token: Any = TextField(null=True)
    refresh_token: Any = TextField(null=True)
    expires_at: Any = DateTimeField(null=True)  # of the access token
    token_version: Any = IntegerField(default=0)
    refresh_claimed_until: Any = DateTimeField(null=True)
    needs_login_reason: Any = TextField(null=True)  # the SSO refused the refresh token, or named another owner
    session_epoch: Any = IntegerField(default=0)  # a session of an older epoch is signed out
    list_etag: Any = TextField(null=True)  # of page 1, stored once a list was read to its end
    list_fresh_until: Any = DateTimeField(null=True)  # ESI's cache: no list request before
    last_full_sync_at: Any = DateTimeField(null=True)
    last_sync_complete: Any = BooleanField(default=False)  # what allows paging to stop early
    full_requested: Any = BooleanField(default=False)  # the next sync is a full one
    last_killmail_sync_at: Any = DateTimeField(null=True, index=True)
    last_killmail_id: Any = BigIntegerField(null=True)
    next_sync_at: Any = DateTimeField(null=True)  # null: not eligible
    consecutive_failures: Any = IntegerField(default=0)
    created_at: Any = DateTimeField(default=utcnow)
    recheck_at: Any = DateTimeField(null=True)  # a refusal to be checked again, from then on; `tokens/rechecks.py`
    sold_at: Any = DateTimeField(null=True)  # the SSO named another owner then; null once it names this one again
    list_read_at: Any = DateTimeField(null=True)  # page 1 was last sent whole, not answered 304
    list_changed_at: Any = DateTimeField(null=True)  # page 1 last held a killmail that was new to this user
    refresh_fails_since: Any = DateTimeField(
        null=True
    )  # the SSO has given tokens to others since, and none to this user
    #: How many rechecks have turned the user away again since the first time; says nothing while `recheck_at` is null.
    rechecks: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])
    list_entries: Any = IntegerField(null=True)  # of the list, when it was read to its end without a change
    list_counted_at: Any = DateTimeField(null=True)  # when that was

    class Meta:
        table_name = "users"


User.add_index(User.index(User.next_sync_at, where=User.next_sync_at.is_null(False), name="users_due"))
User.add_index(User.index(User.sold_at, where=User.sold_at.is_null(False), name="users_sold"))
User.add_index(
    User.index(
        User.refresh_claimed_until, where=User.refresh_claimed_until.is_null(False), name="users_refresh_claimed"
    )
)
User.add_index(User.index(User.recheck_at, where=User.recheck_at.is_null(False), name="users_recheck"))


class Killmail(Table):
    """One killmail, once, whoever listed it."""

    killmail_id: Any = BigIntegerField(primary_key=True)
    killmail_hash: Any = CharField(max_length=40)
    killmail_time: Any = DateTimeField()
    solar_system_id: Any = BigIntegerField()
    moon_id: Any = BigIntegerField(null=True)
    war_id: Any = BigIntegerField(null=True)
    attacker_count: Any = IntegerField()
    is_npc: Any = BooleanField()
    is_solo: Any = BooleanField()
    created_at: Any = DateTimeField(default=utcnow, index=True)

    class Meta:
        table_name = "killmails"


class Victim(Table):
    """A killmail's victim."""

    killmail: Any = ForeignKeyField(Killmail, primary_key=True, backref="victims", on_delete="CASCADE")
    character_id: Any = BigIntegerField(null=True)
    corporation_id: Any = BigIntegerField(null=True)
    alliance_id: Any = BigIntegerField(null=True)
    faction_id: Any = BigIntegerField(null=True)
    ship_type_id: Any = BigIntegerField()
    damage_taken: Any = BigIntegerField()
    position_x: Any = DoubleField(null=True)
    position_y: Any = DoubleField(null=True)
    position_z: Any = DoubleField(null=True)

    class Meta:
        table_name = "victims"


class Attacker(Table):
    """One row an attacker, in ESI's order (`ordinal` from 0). No other key is promised."""

    killmail: Any = ForeignKeyField(Killmail, backref="attackers", on_delete="CASCADE", index=False)
    ordinal: Any = IntegerField()
    character_id: Any = BigIntegerField(null=True)
    corporation_id: Any = BigIntegerField(null=True)
    alliance_id: Any = BigIntegerField(null=True)
    faction_id: Any = BigIntegerField(null=True)
    ship_type_id: Any = BigIntegerField(null=True)
    weapon_type_id: Any = BigIntegerField(null=True)
    damage_done: Any = BigIntegerField()
    final_blow: Any = BooleanField()
    security_status: Any = DoubleField()

    class Meta:
        table_name = "attackers"
        primary_key = CompositeKey("killmail", "ordinal")


class KillmailItem(Table):
    """One row an item, depth first (`ordinal` from 0). ESI repeats rows exactly, so there is no natural key."""

    killmail: Any = ForeignKeyField(Killmail, backref="items", on_delete="CASCADE", index=False)
    ordinal: Any = IntegerField()
    parent_ordinal: Any = IntegerField(null=True)
    item_type_id: Any = BigIntegerField()
    flag: Any = IntegerField()
    singleton: Any = IntegerField()
    quantity_destroyed: Any = BigIntegerField(null=True)
    quantity_dropped: Any = BigIntegerField(null=True)

    class Meta:
        table_name = "killmail_items"
        primary_key = CompositeKey("killmail", "ordinal")


class UserKillmail(Table):
    """Whose lists a killmail stood in: what a viewer may see, and what unlinking deletes.

    Written when the list is read, often before the killmail is stored, hence no foreign key to `killmails`.
    """

    user: Any = ForeignKeyField(User, backref="links", on_delete="CASCADE", index=False)
    killmail_id: Any = BigIntegerField(index=True)
    linked_at: Any = DateTimeField(default=utcnow)

    class Meta:
        table_name = "user_killmails"
        primary_key = CompositeKey("user", "killmail_id")


UserKillmail.add_index(UserKillmail.index(UserKillmail.user, UserKillmail.linked_at, name="user_killmails_linked"))


class FormerOwner(Table):
    """The owner of a character before it was sold. In a table of its own: no query for pilots or killmails finds it."""

    id: Any = BigAutoField()
    character_id: Any = BigIntegerField()
    character_name: Any = TextField()
    owner_hash: Any = TextField()
    sold_at: Any = DateTimeField(index=True)  # deleted so long after (`ledger/former_owners.py`)

    class Meta:
        table_name = "former_owners"


FormerOwner.add_index(
    FormerOwner.index(FormerOwner.character_id, FormerOwner.owner_hash, unique=True, name="former_owners_of_character")
)


class FormerKillmail(Table):
    """A stored killmail that appeared in a former owner's list. It is kept as long as its row is here."""

    former_owner: Any = ForeignKeyField(FormerOwner, backref="links", on_delete="CASCADE", index=False)
    killmail_id: Any = BigIntegerField(index=True)
    linked_at: Any = DateTimeField()

    class Meta:
        table_name = "former_killmails"
        primary_key = CompositeKey("former_owner", "killmail_id")


class RecentUnlink(Table):
    """What ESI's rules still ask of a character that was unlinked: `ledger/recent_unlinks.py`."""

    character_key: Any = CharField(max_length=64, primary_key=True)  # a keyed hash of the character's id
    fresh_until: Any = DateTimeField(null=True)
    last_sync_at: Any = DateTimeField(null=True)
    forget_at: Any = DateTimeField(index=True)

    class Meta:
        table_name = "recent_unlinks"


class Sync(Table):
    """One run of "make this user's killmails complete". Active while `finished_at` is null, at most one a user."""

    id: Any = BigAutoField()
    user_id: Any
    user: Any = ForeignKeyField(User, backref="syncs", on_delete="CASCADE", index=False)
    trigger: Any = CharField(max_length=8, constraints=[Check("trigger IN ('LOGIN', 'SCHEDULE', 'MANUAL', 'WEB')")])
    priority: Any = SmallIntegerField(constraints=[Check("priority BETWEEN 0 AND 10")])
    full: Any = BooleanField(default=False)
    state: Any = CharField(
        max_length=8,
        default=SyncState.QUEUED,
        constraints=[Check("state IN ('QUEUED', 'LISTING', 'FETCHING', 'FINISHED', 'FAILED')")],
    )
    next_page: Any = IntegerField(default=1)
    pages: Any = IntegerField(null=True)  # as ESI said last; null until it has
    page_one_etag: Any = TextField(null=True)  # becomes the user's when the list was read to its end
    found: Any = IntegerField(default=0)  # references listed, without foreign entries
    skipped: Any = IntegerField(default=0)  # of them, already stored when listed
    saved: Any = IntegerField(default=0)  # final once the sync has ended; until then counted live
    failed: Any = IntegerField(default=0)
    attempts: Any = IntegerField(default=0)  # listing failures in a row
    claimed_until: Any = DateTimeField(null=True)  # the lease of the worker that lists
    waiting_until: Any = DateTimeField(null=True)
    waiting_for: Any = TextField(null=True)
    error: Any = TextField(null=True)
    queued_at: Any = DateTimeField(default=utcnow)
    sent_at: Any = DateTimeField(null=True)  # of the message that is out; null: none is
    started_at: Any = DateTimeField(null=True)
    finished_at: Any = DateTimeField(null=True)
    page_one_modified: Any = TextField(null=True)  # Last-Modified, which all pages have in common unless the list moves
    refused: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # killmails refused since `refused_since`
    refused_since: Any = DateTimeField(null=True)
    largest_page: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # entries; see ledger/reading.py
    list_moved: Any = BooleanField(default=False, constraints=[SQL("DEFAULT FALSE")])  # while it was read, or another's
    unreadable_entries: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # of the list: malformed
    foreign_entries: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # of the list, not in `found`
    list_lacking: Any = BooleanField(default=False, constraints=[SQL("DEFAULT FALSE")])  # entries, on no page read
    last_page: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # entries of the page read last

    class Meta:
        table_name = "syncs"
        constraints = [
            Check("(finished_at IS NULL) = (state IN ('QUEUED', 'LISTING', 'FETCHING'))", name="syncs_active_is_open")
        ]


Sync.add_index(Sync.index(Sync.user, unique=True, where=Sync.finished_at.is_null(), name="syncs_one_active"))
Sync.add_index(Sync.index(Sync.user, Sync.id, name="syncs_of_user"))
Sync.add_index(Sync.index(Sync.state, where=Sync.finished_at.is_null(), name="syncs_active"))
# What the dispatcher of syncs looks for (`ledger/sync_window.py`).
Sync.add_index(
    Sync.index(
        Sync.priority.desc(),
        Sync.id,
        where=SQL(
            "state IN ('QUEUED', 'LISTING') AND sent_at IS NULL AND claimed_until IS NULL AND waiting_until IS NULL"
        ),
        name="syncs_pending",
    )
)
Sync.add_index(Sync.index(Sync.id, where=SQL("finished_at IS NULL AND priority >= 8"), name="syncs_interactive"))
Sync.add_index(
    Sync.index(Sync.sent_at, where=SQL("state IN ('QUEUED', 'LISTING') AND sent_at IS NOT NULL"), name="syncs_sent")
)
Sync.add_index(
    Sync.index(
        Sync.claimed_until,
        where=SQL("state IN ('QUEUED', 'LISTING') AND claimed_until IS NOT NULL"),
        name="syncs_claimed",
    )
)
Sync.add_index(
    Sync.index(
        Sync.waiting_until,
        where=SQL("state IN ('QUEUED', 'LISTING') AND waiting_until IS NOT NULL"),
        name="syncs_waiting",
    )
)


class SyncItem(Table):
    """What a sync still waits for: not stored when it was listed, and removed when it is stored.

    Carries no state: whether an item is pending or failed is read from the ledger row it shares with other syncs.
    """

    sync: Any = ForeignKeyField(Sync, backref="items", on_delete="CASCADE", index=False)
    killmail_id: Any = BigIntegerField(index=True)

    class Meta:
        table_name = "sync_items"
        primary_key = CompositeKey("sync", "killmail_id")


class Fetch(Table):
    """The work ledger: one row a killmail that is not stored yet, shared by every sync that wants it."""

    killmail_id: Any = BigIntegerField(primary_key=True)
    killmail_hash: Any = CharField(max_length=40)
    priority: Any = SmallIntegerField(constraints=[Check("priority BETWEEN 0 AND 10")])
    state: Any = CharField(
        max_length=8,
        default=FetchState.PENDING,
        constraints=[Check("state IN ('pending', 'sent', 'fetching', 'deferred', 'rejected')")],
    )
    attempts: Any = IntegerField(default=0)
    refusals: Any = SmallIntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # 4xx in a row
    not_before: Any = DateTimeField(null=True)  # of a deferred row
    claimed_until: Any = DateTimeField(null=True)  # of a sent or fetching row
    last_error: Any = TextField(null=True)
    created_at: Any = DateTimeField(default=utcnow)
    turn: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # the lowest goes first: ledger/rules.py
    other_hash: Any = CharField(max_length=40, null=True)  # ESI lists the killmail with this one, too
    as_share: Any = BooleanField(default=False, constraints=[SQL("DEFAULT FALSE")])  # sent as a login's
    wrong_bodies: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # in a row: ledger/wrong_bodies.py
    wrong_body: Any = CharField(max_length=64, null=True)  # their SHA-256; they are all alike

    class Meta:
        table_name = "ledger"


Fetch.add_index(
    Fetch.index(
        Fetch.priority.desc(),
        Fetch.turn,
        Fetch.killmail_id.desc(),
        where=SQL("state = 'pending'"),
        name="ledger_pending",
    )
)
for _class, _name in ((">= 8", "ledger_oldest"), ("< 8", "ledger_oldest_background")):
    _where: Any = SQL(f"state = 'pending' AND priority {_class}")
    Fetch.add_index(Fetch.index(Fetch.created_at, Fetch.turn, Fetch.killmail_id.desc(), where=_where, name=_name))
Fetch.add_index(
    Fetch.index(Fetch.claimed_until, where=SQL("state IN ('sent', 'fetching')"), name="ledger_claimed"),
)
Fetch.add_index(Fetch.index(Fetch.not_before, where=SQL("state = 'deferred'"), name="ledger_deferred"))


class Lock(Table):
    """Rows that exist to be locked, so that two processes doing the same thing take turns."""

    name: Any = CharField(max_length=32, primary_key=True)
    wake_at: Any = DateTimeField(null=True)  # when a delayed message of this dispatcher is already on its way for
    sent: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # 'dispatch': rows sent of the current ten
    next_share_at: Any = DateTimeField(null=True)  # 'syncs': when background's share allows the next one
    passed_priority: Any = SmallIntegerField(null=True)  # 'syncs': behind which sync the next look for those that can
    passed_id: Any = BigIntegerField(null=True)  # be read without the login service begins (ledger/pending_syncs.py)

    class Meta:
        table_name = "locks"


class Wait(Table):
    """Until when a class of requests (`ledger/waits.py`: lists, token refreshes, killmails) may not be made, and why.
    Syncs read it, and copy nothing."""

    name: Any = CharField(max_length=16, primary_key=True)
    until: Any = DateTimeField(null=True)
    reason: Any = TextField(default="", constraints=[SQL("DEFAULT ''")])

    class Meta:
        table_name = "waits"


class RateSlot(Table):
    """The ceiling over all requests: when the next one may leave (seconds since the epoch, the database's clock)."""

    name: Any = CharField(max_length=16, primary_key=True)
    next_at: Any = DoubleField(default=0.0)

    class Meta:
        table_name = "rate_slots"


class RateBucket(Table):
    """What was spent of one of ESI's token buckets (group and owner), as `esi/rate_limit.py` packs it."""

    bucket: Any = CharField(max_length=64, primary_key=True)
    allowance: Any = IntegerField()  # tokens
    window_seconds: Any = IntegerField()
    spends: Any = TextField(default="")
    closed_until: Any = DoubleField(default=0.0)  # seconds since the epoch
    refusals: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # 429s in a row that are not the bucket's
    doubts: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # answers in a row with another limit
    tried_every: Any = IntegerField(default=0, constraints=[SQL("DEFAULT 0")])  # seconds, when empty; 0: never

    class Meta:
        table_name = "rate_buckets"
        constraints = [Check("allowance > 0"), Check("window_seconds > 0")]


RateBucket.add_index(
    RateBucket.index(RateBucket.closed_until, where=RateBucket.closed_until > SQL("0"), name="rate_buckets_closed")
)


class Gate(Table):
    """A closed road: the error limit, downtime. Open when there is no row, or when its time has passed."""

    name: Any = CharField(max_length=16, primary_key=True)
    closed_until: Any = DoubleField(default=0.0)  # seconds since the epoch
    reason: Any = TextField(default="")
    failures: Any = IntegerField(default=0)  # in a row

    class Meta:
        table_name = "gates"


class FailingOwner(Table):
    """A user or character whose request failed at a gate since anyone last succeeded there."""

    gate: Any = CharField(max_length=32)
    owner: Any = BigIntegerField()
    failed_at: Any = DoubleField()  # seconds since the epoch

    class Meta:
        table_name = "failing_owners"
        primary_key = CompositeKey("gate", "owner")


class VerdictRate(Table):
    """One row: refreshes that succeeded since the last note was forgotten, and until when an incident lasts."""

    id: Any = SmallIntegerField(primary_key=True)
    served: Any = IntegerField(default=0)
    incident_until: Any = DoubleField(default=0.0)  # seconds since the epoch, the database's clock

    class Meta:
        table_name = "verdict_rate"


class RefreshSlot(Table):
    """One of the four token refreshes that may be in progress at the SSO; free once `held_until` has passed."""

    id: Any = SmallIntegerField(primary_key=True)
    held_until: Any = DoubleField(default=0.0)  # seconds since the epoch, the database's clock

    class Meta:
        table_name = "refresh_slots"


class Name(Table):
    """What an id is called. A row without a name is wanted, from `retry_at` on: ESI may not know it yet."""

    id: Any = BigIntegerField(primary_key=True)
    name: Any = TextField(null=True)
    category: Any = CharField(max_length=16, null=True)
    retry_at: Any = DateTimeField(null=True)
    updated_at: Any = DateTimeField(default=utcnow)

    class Meta:
        table_name = "names"


Name.add_index(Name.index(Name.retry_at, where=Name.name.is_null(), name="names_wanted"))


class SolarSystem(Table):
    """How safe a solar system is. A row without a status is wanted, from `retry_at` on; a status is kept for good."""

    id: Any = BigIntegerField(primary_key=True)
    security_status: Any = DoubleField(null=True, constraints=[Check("security_status BETWEEN -1.0 AND 1.0")])
    retry_at: Any = DateTimeField(null=True)

    class Meta:
        table_name = "solar_systems"


SolarSystem.add_index(
    SolarSystem.index(SolarSystem.retry_at, where=SolarSystem.security_status.is_null(), name="solar_systems_wanted")
)


class Price(Table):
    """What one of a type is worth in ISK, as ESI's market prices said last."""

    type_id: Any = BigIntegerField(primary_key=True)
    price: Any = DoubleField()
    updated_at: Any = DateTimeField()

    class Meta:
        table_name = "prices"


class PriceList(Table):
    """The one list of prices: when somebody last looked for newer ones, and when it was fetched."""

    name: Any = CharField(max_length=16, primary_key=True)
    asked_at: Any = DateTimeField(null=True)
    tried_at: Any = DateTimeField(null=True)
    fetched_at: Any = DateTimeField(null=True)

    class Meta:
        table_name = "price_lists"


class RowCount(Table):
    """How many rows a table had when the tick last counted them; `label` is a state, or empty for all of them."""

    table: Any = CharField(max_length=32, column_name="table_name")
    label: Any = CharField(max_length=32)
    rows: Any = BigIntegerField(column_name="row_count")
    counted_at: Any = DateTimeField()

    class Meta:
        table_name = "row_counts"
        primary_key = CompositeKey("table", "label")


class SchemaCompat(Table):
    """One row: the oldest code that may run on this schema, as the number of its newest migration (`migrations`)."""

    id: Any = SmallIntegerField(primary_key=True)
    min_code: Any = IntegerField()

    class Meta:
        table_name = "schema_compat"


class PeriodicRun(Table):
    """Work that one process does now and then: when it is due again, and how far it has got."""

    name: Any = CharField(max_length=32, primary_key=True)
    due_at: Any = DateTimeField()
    position: Any = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])

    class Meta:
        table_name = "periodic_runs"


TABLES: tuple[type[Table], ...] = (
    User,
    Killmail,
    Victim,
    Attacker,
    KillmailItem,
    UserKillmail,
    FormerOwner,
    FormerKillmail,
    RecentUnlink,
    Sync,
    SyncItem,
    Fetch,
    Lock,
    Wait,
    RateSlot,
    RateBucket,
    Gate,
    FailingOwner,
    VerdictRate,
    RefreshSlot,
    Name,
    SolarSystem,
    Price,
    PriceList,
    RowCount,
    PeriodicRun,
    SchemaCompat,
)
