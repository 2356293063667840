"""How far the dispatcher has looked through the pending syncs while the login service is closed."""

from peewee import BigIntegerField, SmallIntegerField


def up(migrator, db):
    migrator.migrate(
        migrator.add_column("locks", "passed_priority", SmallIntegerField(null=True)),
        migrator.add_column("locks", "passed_id", BigIntegerField(null=True)),
    )


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("locks", "passed_id"),
        migrator.drop_column("locks", "passed_priority"),
    )
