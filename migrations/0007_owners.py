"""Killmails are visible only to pilots whom they name; what sold and unlinked characters leave behind."""

from peewee import (
    BigAutoField,
    BigIntegerField,
    CharField,
    CompositeKey,
    DateTimeField,
    ForeignKeyField,
    Model,
    TextField,
)


def tables(db):
    """The tables as they were when this migration was written."""

    class Table(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class FormerOwner(Table):
        id = BigAutoField()
        character_id = BigIntegerField()
        character_name = TextField()
        owner_hash = TextField()
        sold_at = DateTimeField(index=True)

        class Meta:
            table_name = "former_owners"

    FormerOwner.add_index(
        FormerOwner.index(
            FormerOwner.character_id, FormerOwner.owner_hash, unique=True, name="former_owners_of_character"
        )
    )

    class FormerKillmail(Table):
        former_owner = ForeignKeyField(FormerOwner, backref="links", on_delete="CASCADE", index=False)
        killmail_id = BigIntegerField(index=True)
        linked_at = DateTimeField()

        class Meta:
            table_name = "former_killmails"
            primary_key = CompositeKey("former_owner", "killmail_id")

    class RecentUnlink(Table):
        character_key = CharField(max_length=64, primary_key=True)
        fresh_until = DateTimeField(null=True)
        last_sync_at = DateTimeField(null=True)
        forget_at = DateTimeField(index=True)

        class Meta:
            table_name = "recent_unlinks"

    return [FormerOwner, FormerKillmail, RecentUnlink]


def sold_index(db):
    """The index on users whose owner changed; the model holds only what the index needs."""

    class User(Model):
        id = BigIntegerField(primary_key=True)
        sold_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "users"

    return User.index(User.sold_at, where=User.sold_at.is_null(False), name="users_sold")


def up(migrator, db):
    # Links of stored killmails to pilots whom they do not name: ESI once answered with another pilot's list.
    db.execute_sql("""
        DELETE FROM user_killmails
        WHERE EXISTS (SELECT 1 FROM killmails k WHERE k.killmail_id = user_killmails.killmail_id)
          AND NOT EXISTS (SELECT 1 FROM victims v JOIN users u ON u.character_id = v.character_id
                          WHERE v.killmail_id = user_killmails.killmail_id AND u.id = user_killmails.user_id)
          AND NOT EXISTS (SELECT 1 FROM attackers a JOIN users u ON u.character_id = a.character_id
                          WHERE a.killmail_id = user_killmails.killmail_id AND u.id = user_killmails.user_id)
    """)
    migrator.migrate(migrator.add_column("users", "sold_at", DateTimeField(null=True)))
    db.execute(sold_index(db))
    db.create_tables(tables(db))


def down(migrator, db):
    """The links that `up` deleted showed what should not be seen; they stay deleted."""
    # Killmails that only former owners had belong to no pilot any more.
    db.execute_sql("""
        DELETE FROM killmails
        WHERE killmail_id IN (SELECT killmail_id FROM former_killmails)
          AND NOT EXISTS (SELECT 1 FROM user_killmails u WHERE u.killmail_id = killmails.killmail_id)
    """)
    db.drop_tables(tables(db))
    db.execute_sql("DROP INDEX users_sold")
    migrator.migrate(migrator.drop_column("users", "sold_at"))
