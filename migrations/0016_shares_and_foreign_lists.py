"""Which killmails go as background's share, and how many entries of a list do not name its pilot."""

from database import is_sqlite


def up(migrator, db):
    boolean = "INTEGER" if is_sqlite() else "BOOLEAN"
    # One statement each: peewee would add a NOT NULL column in three, and rebuild the table on SQLite.
    db.execute_sql(f'ALTER TABLE ledger ADD COLUMN "as_share" {boolean} NOT NULL DEFAULT FALSE')
    db.execute_sql('ALTER TABLE syncs ADD COLUMN "foreign_entries" INTEGER NOT NULL DEFAULT 0')


def down(migrator, db):
    migrator.migrate(
        migrator.drop_column("syncs", "foreign_entries"),
        migrator.drop_column("ledger", "as_share"),
    )
