"""Refreshes in progress at the SSO, four at most; and when a refused login is checked again."""

from peewee import BigIntegerField, DateTimeField, DoubleField, Model, SmallIntegerField


def tables(db):
    """The tables as they were when this migration was written."""

    class RefreshSlot(Model):
        id = SmallIntegerField(primary_key=True)
        held_until = DoubleField(default=0.0)

        class Meta:
            database = db
            table_name = "refresh_slots"

    return [RefreshSlot]


def recheck_index(db):
    """The index on users who wait for their recheck; the model holds only what the index needs."""

    class User(Model):
        id = BigIntegerField(primary_key=True)
        recheck_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "users"

    return User.index(User.recheck_at, where=User.recheck_at.is_null(False), name="users_recheck")


def up(migrator, db):
    db.create_tables(tables(db))
    db.execute_sql("INSERT INTO refresh_slots (id, held_until) VALUES (1, 0), (2, 0), (3, 0), (4, 0)")
    migrator.migrate(migrator.add_column("users", "recheck_at", DateTimeField(null=True)))
    db.execute(recheck_index(db))


def down(migrator, db):
    db.execute_sql("DROP INDEX users_recheck")
    migrator.migrate(migrator.drop_column("users", "recheck_at"))
    db.drop_tables(tables(db))
