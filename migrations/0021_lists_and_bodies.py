"""How long a list was when it was read to its end, what a reading knows of its last page, and wrong bodies."""

from peewee import CharField, DateTimeField, IntegerField

from database import is_sqlite


def up(migrator, db):
    boolean = "INTEGER" if is_sqlite() else "BOOLEAN"
    # One statement each: peewee would add a NOT NULL column in three, and rebuild the table on SQLite.
    db.execute_sql(f'ALTER TABLE syncs ADD COLUMN "list_lacking" {boolean} NOT NULL DEFAULT FALSE')
    db.execute_sql('ALTER TABLE syncs ADD COLUMN "last_page" INTEGER NOT NULL DEFAULT 0')
    db.execute_sql('ALTER TABLE ledger ADD COLUMN "wrong_bodies" INTEGER NOT NULL DEFAULT 0')
    migrator.migrate(
        migrator.add_column("ledger", "wrong_body", CharField(max_length=64, null=True)),
        migrator.add_column("users", "list_entries", IntegerField(null=True)),
        migrator.add_column("users", "list_counted_at", DateTimeField(null=True)),
    )


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("ledger", "wrong_bodies"),
        migrator.drop_column("ledger", "wrong_body"),
        migrator.drop_column("users", "list_counted_at"),
        migrator.drop_column("users", "list_entries"),
        migrator.drop_column("syncs", "last_page"),
        migrator.drop_column("syncs", "list_lacking"),
    )
