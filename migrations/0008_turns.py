"""Turns of the syncs, the count of rows sent, refusals of a sync, and what a class of killmails waits for."""

from peewee import SQL, CharField, DateTimeField, Model, TextField

PENDING = "state = 'pending'"
#: In the order of the sync's list, newest first; a killmail that several syncs want has its earliest place.
TURNS = """
    UPDATE ledger SET turn = placed.turn FROM (
        SELECT killmail_id, MIN(place) - 1 AS turn FROM (
            SELECT killmail_id, ROW_NUMBER() OVER (PARTITION BY sync_id ORDER BY killmail_id DESC) AS place
            FROM sync_items) AS places
        GROUP BY killmail_id) AS placed
    WHERE placed.killmail_id = ledger.killmail_id
"""


def tables(db):
    """The tables as they were when this migration was written."""

    class Wait(Model):
        name = CharField(max_length=16, primary_key=True)
        until = DateTimeField(null=True)
        reason = TextField(default="", constraints=[SQL("DEFAULT ''")])

        class Meta:
            database = db
            table_name = "waits"

    return [Wait]


def up(migrator, db):
    db.create_tables(tables(db))
    db.execute_sql('ALTER TABLE "ledger" ADD COLUMN "turn" INTEGER NOT NULL DEFAULT 0')
    db.execute_sql('ALTER TABLE "locks" ADD COLUMN "sent" INTEGER NOT NULL DEFAULT 0')
    db.execute_sql('ALTER TABLE "syncs" ADD COLUMN "refused" INTEGER NOT NULL DEFAULT 0')
    migrator.migrate(migrator.add_column("syncs", "refused_since", DateTimeField(null=True)))
    db.execute_sql(TURNS)
    db.execute_sql('DROP INDEX "ledger_pending"')
    for name, columns, where in (
        ("ledger_pending", '"priority" DESC, "turn", "killmail_id" DESC', PENDING),
        ("ledger_oldest", '"created_at", "turn", "killmail_id" DESC', f"{PENDING} AND priority >= 8"),
        ("ledger_oldest_background", '"created_at", "turn", "killmail_id" DESC', f"{PENDING} AND priority < 8"),
    ):
        db.execute_sql(f'CREATE INDEX "{name}" ON "ledger" ({columns}) WHERE {where}')


def down(migrator, db):
    for name in ("ledger_pending", "ledger_oldest", "ledger_oldest_background"):
        db.execute_sql(f'DROP INDEX "{name}"')
    db.execute_sql(f'CREATE INDEX "ledger_pending" ON "ledger" ("priority" DESC, "killmail_id" DESC) WHERE {PENDING}')
    for table, column in (("syncs", "refused_since"), ("syncs", "refused"), ("locks", "sent"), ("ledger", "turn")):
        db.execute_sql(f'ALTER TABLE "{table}" DROP COLUMN "{column}"')
    db.drop_tables(tables(db))
