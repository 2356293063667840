"""The first schema: users, killmails, the work ledger and the limiter's state."""

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


def tables(db):
    """The tables as they were when this migration was written, children after parents."""

    class Table(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class User(Table):
        id = BigAutoField()
        character_id = BigIntegerField(unique=True)
        character_name = TextField()
        owner_hash = TextField()
        scopes = TextField(default="")
        access_token = TextField(null=True)
        refresh_token = TextField(null=True)
        expires_at = DateTimeField(null=True)
        token_version = IntegerField(default=0)
        refresh_claimed_until = DateTimeField(null=True)
        needs_login_reason = TextField(null=True)
        session_epoch = IntegerField(default=0)
        list_etag = TextField(null=True)
        list_fresh_until = DateTimeField(null=True)
        last_full_sync_at = DateTimeField(null=True)
        last_sync_complete = BooleanField(default=False)
        full_requested = BooleanField(default=False)
        last_killmail_sync_at = DateTimeField(null=True, index=True)
        last_killmail_id = BigIntegerField(null=True)
        next_sync_at = DateTimeField(null=True)
        consecutive_failures = IntegerField(default=0)
        created_at = DateTimeField()

        class Meta:
            table_name = "users"

    User.add_index(User.index(User.next_sync_at, where=User.next_sync_at.is_null(False), name="users_due"))

    class Killmail(Table):
        killmail_id = BigIntegerField(primary_key=True)
        killmail_hash = CharField(max_length=40)
        killmail_time = DateTimeField()
        solar_system_id = BigIntegerField()
        moon_id = BigIntegerField(null=True)
        war_id = BigIntegerField(null=True)
        attacker_count = IntegerField()
        is_npc = BooleanField()
        is_solo = BooleanField()
        created_at = DateTimeField(index=True)

        class Meta:
            table_name = "killmails"

    class Victim(Table):
        killmail = ForeignKeyField(Killmail, primary_key=True, on_delete="CASCADE")
        character_id = BigIntegerField(null=True)
        corporation_id = BigIntegerField(null=True)
        alliance_id = BigIntegerField(null=True)
        faction_id = BigIntegerField(null=True)
        ship_type_id = BigIntegerField()
        damage_taken = BigIntegerField()
        position_x = DoubleField(null=True)
        position_y = DoubleField(null=True)
        position_z = DoubleField(null=True)

        class Meta:
            table_name = "victims"

    class Attacker(Table):
        killmail = ForeignKeyField(Killmail, on_delete="CASCADE", index=False)
        ordinal = IntegerField()
        character_id = BigIntegerField(null=True)
        corporation_id = BigIntegerField(null=True)
        alliance_id = BigIntegerField(null=True)
        faction_id = BigIntegerField(null=True)
        ship_type_id = BigIntegerField(null=True)
        weapon_type_id = BigIntegerField(null=True)
        damage_done = BigIntegerField()
        final_blow = BooleanField()
        security_status = DoubleField()

        class Meta:
            table_name = "attackers"
            primary_key = CompositeKey("killmail", "ordinal")

    class KillmailItem(Table):
        killmail = ForeignKeyField(Killmail, on_delete="CASCADE", index=False)
        ordinal = IntegerField()
        parent_ordinal = IntegerField(null=True)
        item_type_id = BigIntegerField()
        flag = IntegerField()
        singleton = IntegerField()
        quantity_destroyed = BigIntegerField(null=True)
        quantity_dropped = BigIntegerField(null=True)

        class Meta:
            table_name = "killmail_items"
            primary_key = CompositeKey("killmail", "ordinal")

    class UserKillmail(Table):
        user = ForeignKeyField(User, on_delete="CASCADE", index=False)
        killmail_id = BigIntegerField(index=True)
        linked_at = DateTimeField()

        class Meta:
            table_name = "user_killmails"
            primary_key = CompositeKey("user", "killmail_id")

    UserKillmail.add_index(UserKillmail.index(UserKillmail.user, UserKillmail.linked_at, name="user_killmails_linked"))

    class Sync(Table):
        id = BigAutoField()
        user = ForeignKeyField(User, on_delete="CASCADE", index=False)
        trigger = CharField(max_length=8, constraints=[Check("trigger IN ('LOGIN', 'SCHEDULE', 'MANUAL', 'WEB')")])
        priority = SmallIntegerField(constraints=[Check("priority BETWEEN 0 AND 10")])
        full = BooleanField(default=False)
        state = CharField(
            max_length=8,
            default="QUEUED",
            constraints=[Check("state IN ('QUEUED', 'LISTING', 'FETCHING', 'FINISHED', 'FAILED')")],
        )
        next_page = IntegerField(default=1)
        pages = IntegerField(null=True)
        page_one_etag = TextField(null=True)
        found = IntegerField(default=0)
        skipped = IntegerField(default=0)
        saved = IntegerField(default=0)
        failed = IntegerField(default=0)
        attempts = IntegerField(default=0)
        claimed_until = DateTimeField(null=True)
        waiting_until = DateTimeField(null=True)
        waiting_for = TextField(null=True)
        error = TextField(null=True)
        queued_at = DateTimeField()
        sent_at = DateTimeField(null=True)
        started_at = DateTimeField(null=True)
        finished_at = DateTimeField(null=True)

        class Meta:
            table_name = "syncs"
            constraints = [
                Check(
                    "(finished_at IS NULL) = (state IN ('QUEUED', 'LISTING', 'FETCHING'))", name="syncs_active_is_open"
                )
            ]

    Sync.add_index(Sync.index(Sync.user, unique=True, where=Sync.finished_at.is_null(), name="syncs_one_active"))

    Sync.add_index(Sync.index(Sync.user, Sync.id, name="syncs_of_user"))

    Sync.add_index(Sync.index(Sync.state, where=Sync.finished_at.is_null(), name="syncs_active"))

    class SyncItem(Table):
        sync = ForeignKeyField(Sync, on_delete="CASCADE", index=False)
        killmail_id = BigIntegerField(index=True)

        class Meta:
            table_name = "sync_items"
            primary_key = CompositeKey("sync", "killmail_id")

    class Fetch(Table):
        killmail_id = BigIntegerField(primary_key=True)
        killmail_hash = CharField(max_length=40)
        priority = SmallIntegerField(constraints=[Check("priority BETWEEN 0 AND 10")])
        state = CharField(
            max_length=8,
            default="pending",
            constraints=[Check("state IN ('pending', 'sent', 'fetching', 'deferred', 'rejected')")],
        )
        attempts = IntegerField(default=0)
        refusals = SmallIntegerField(default=0, constraints=[SQL("DEFAULT 0")])
        not_before = DateTimeField(null=True)
        claimed_until = DateTimeField(null=True)
        last_error = TextField(null=True)
        created_at = DateTimeField()

        class Meta:
            table_name = "ledger"

    Fetch.add_index(
        Fetch.index(
            Fetch.priority.desc(),
            Fetch.killmail_id.desc(),
            where=SQL("state = 'pending'"),
            name="ledger_pending",
        )
    )

    Fetch.add_index(
        Fetch.index(Fetch.claimed_until, where=SQL("state IN ('sent', 'fetching')"), name="ledger_claimed"),
    )

    Fetch.add_index(Fetch.index(Fetch.not_before, where=SQL("state = 'deferred'"), name="ledger_deferred"))

    class Lock(Table):
        name = CharField(max_length=32, primary_key=True)
        wake_at = DateTimeField(null=True)

        class Meta:
            table_name = "locks"

    class RateSlot(Table):
        name = CharField(max_length=16, primary_key=True)
        next_at = DoubleField(default=0.0)

        class Meta:
            table_name = "rate_slots"

    class RateBucket(Table):
        bucket = CharField(max_length=64, primary_key=True)
        allowance = IntegerField()
        window_seconds = IntegerField()
        spends = TextField(default="")
        closed_until = DoubleField(default=0.0)

        class Meta:
            table_name = "rate_buckets"
            constraints = [Check("allowance > 0"), Check("window_seconds > 0")]

    class Gate(Table):
        name = CharField(max_length=16, primary_key=True)
        closed_until = DoubleField(default=0.0)
        reason = TextField(default="")
        failures = IntegerField(default=0)

        class Meta:
            table_name = "gates"

    class Name(Table):
        id = BigIntegerField(primary_key=True)
        name = TextField(null=True)
        category = CharField(max_length=16, null=True)
        retry_at = DateTimeField(null=True)
        updated_at = DateTimeField()

        class Meta:
            table_name = "names"

    Name.add_index(Name.index(Name.retry_at, where=Name.name.is_null(), name="names_wanted"))

    return [
        User,
        Killmail,
        Victim,
        Attacker,
        KillmailItem,
        UserKillmail,
        Sync,
        SyncItem,
        Fetch,
        Lock,
        RateSlot,
        RateBucket,
        Gate,
        Name,
    ]


def up(migrator, db):
    db.create_tables(tables(db))
    db.execute_sql("INSERT INTO locks (name) VALUES ('dispatch'), ('links')")


def down(migrator, db):
    db.drop_tables(tables(db))
