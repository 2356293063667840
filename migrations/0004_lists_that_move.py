"""What tells the next reader of a list whether it has moved since page 1 was read."""

from peewee import TextField


def up(migrator, db):
    migrator.migrate(migrator.add_column("syncs", "page_one_modified", TextField(null=True)))


def down(migrator, db):
    migrator.migrate(migrator.drop_column("syncs", "page_one_modified"))
