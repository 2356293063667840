"""The oldest code that may run on the schema; and an index on refresh leases, to find those that end far ahead."""

from peewee import BigIntegerField, DateTimeField, IntegerField, Model, SmallIntegerField


def tables(db):
    """The tables as they were when this migration was written."""

    class SchemaCompat(Model):
        id = SmallIntegerField(primary_key=True)
        min_code = IntegerField()

        class Meta:
            database = db
            table_name = "schema_compat"

    return [SchemaCompat]


def claimed_index(db):
    """The index on refresh leases; the model holds only what the index needs."""

    class User(Model):
        id = BigIntegerField(primary_key=True)
        refresh_claimed_until = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "users"

    column = User.refresh_claimed_until
    return User.index(column, where=column.is_null(False), name="users_refresh_claimed")


def up(migrator, db):
    db.create_tables(tables(db))
    db.execute_sql("INSERT INTO schema_compat (id, min_code) VALUES (1, 0)")
    db.execute(claimed_index(db))


def down(migrator, db):
    db.execute_sql("DROP INDEX users_refresh_claimed")
    db.drop_tables(tables(db))
