"""What a reading of a list lacks, a killmail's second hash, and when a list was last read whole."""

from peewee import CharField, DateTimeField

from database import is_sqlite


def up(migrator, db):
    boolean = "INTEGER" if is_sqlite() else "BOOLEAN"
    # One statement each: peewee would add a NOT NULL column in three, and rebuild the table on SQLite.
    for column in (
        '"largest_page" INTEGER NOT NULL DEFAULT 0',
        f'"list_moved" {boolean} NOT NULL DEFAULT FALSE',
        '"unreadable_entries" INTEGER NOT NULL DEFAULT 0',
    ):
        db.execute_sql(f"ALTER TABLE syncs ADD COLUMN {column}")
    migrator.migrate(
        migrator.add_column("ledger", "other_hash", CharField(max_length=40, null=True)),
        migrator.add_column("users", "list_read_at", DateTimeField(null=True)),
        migrator.add_column("users", "list_changed_at", DateTimeField(null=True)),
    )
    # A full sync has read page 1 whole.
    db.execute_sql("UPDATE users SET list_read_at = last_full_sync_at")


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("users", "list_changed_at"),
        migrator.drop_column("users", "list_read_at"),
        migrator.drop_column("ledger", "other_hash"),
        migrator.drop_column("syncs", "unreadable_entries"),
        migrator.drop_column("syncs", "list_moved"),
        migrator.drop_column("syncs", "largest_page"),
    )
