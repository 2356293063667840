"""Since when a user's refreshes fail while those of others succeed; null: they do not."""

from peewee import DateTimeField


def up(migrator, db):
    migrator.migrate(migrator.add_column("users", "refresh_fails_since", DateTimeField(null=True)))


def down(migrator, db):
    migrator.migrate(migrator.drop_column("users", "refresh_fails_since"))
