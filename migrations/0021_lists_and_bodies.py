"""How long a list was when it was read to its end, and what a reading knows of the page read last."""

from peewee import DateTimeField, IntegerField

from database import is_sqlite


def up(migrator, db):
    boolean = "INTEGER" if is_sqlite() else "BOOLEAN"
    # One statement each: peewee would add a NOT NULL column in three, and rebuild the table on SQLite.
    db.execute_sql(f'ALTER TABLE syncs ADD COLUMN "list_lacking" {boolean} NOT NULL DEFAULT FALSE')
    db.execute_sql('ALTER TABLE syncs ADD COLUMN "last_page" INTEGER NOT NULL DEFAULT 0')
    migrator.migrate(
        migrator.add_column("users", "list_entries", IntegerField(null=True)),
        migrator.add_column("users", "list_counted_at", DateTimeField(null=True)),
    )


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("users", "list_counted_at"),
        migrator.drop_column("users", "list_entries"),
        migrator.drop_column("syncs", "last_page"),
        migrator.drop_column("syncs", "list_lacking"),
    )
