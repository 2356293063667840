"""Whose requests failed in a row at a gate: what tells one pilot's problem from everyone's."""

from peewee import BigIntegerField, CharField, CompositeKey, DoubleField, Model


def tables(db):
    """The tables as they were when this migration was written."""

    class FailingOwner(Model):
        gate = CharField(max_length=32)
        owner = BigIntegerField()
        failed_at = DoubleField()

        class Meta:
            database = db
            table_name = "failing_owners"
            primary_key = CompositeKey("gate", "owner")

    return [FailingOwner]


def up(migrator, db):
    db.create_tables(tables(db))


def down(migrator, db):
    db.drop_tables(tables(db))
