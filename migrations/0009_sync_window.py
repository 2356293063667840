"""Syncs are sent through a window: a lock row for their dispatcher, and indexes that find the next ones to send."""

from peewee import DateTimeField

ACTIVE = "state IN ('QUEUED', 'LISTING')"
PENDING = f"{ACTIVE} AND sent_at IS NULL AND claimed_until IS NULL AND waiting_until IS NULL"
INDEXES = {
    "syncs_interactive": '("id") WHERE finished_at IS NULL AND priority >= 8',
    "syncs_pending": f'("priority" DESC, "id") WHERE {PENDING}',
    "syncs_sent": f'("sent_at") WHERE {ACTIVE} AND sent_at IS NOT NULL',
    "syncs_claimed": f'("claimed_until") WHERE {ACTIVE} AND claimed_until IS NOT NULL',
    "syncs_waiting": f'("waiting_until") WHERE {ACTIVE} AND waiting_until IS NOT NULL',
}


def up(migrator, db):
    migrator.migrate(migrator.add_column("locks", "next_share_at", DateTimeField(null=True)))
    db.execute_sql("INSERT INTO locks (name) VALUES ('syncs')")
    # A claimed or waiting sync has no message on its way any more; `sent_at` said so only for the others.
    db.execute_sql("UPDATE syncs SET sent_at = NULL WHERE claimed_until IS NOT NULL OR waiting_until IS NOT NULL")
    for name, what in INDEXES.items():
        db.execute_sql(f'CREATE INDEX "{name}" ON "syncs" {what}')


def down(migrator, db):
    for name in INDEXES:
        db.execute_sql(f"DROP INDEX {name}")
    db.execute_sql("DELETE FROM locks WHERE name = 'syncs'")
    migrator.migrate(migrator.drop_column("locks", "next_share_at"))
