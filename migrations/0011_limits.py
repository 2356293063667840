"""Refusals of one owner's requests, closed buckets by time, kept row counts, and work that is due now and then."""

from peewee import SQL, BigIntegerField, CharField, CompositeKey, DateTimeField, Model


def tables(db):
    """The tables as they were when this migration was written."""

    class RowCount(Model):
        table = CharField(max_length=32, column_name="table_name")
        label = CharField(max_length=32)
        rows = BigIntegerField(column_name="row_count")
        counted_at = DateTimeField()

        class Meta:
            database = db
            table_name = "row_counts"
            primary_key = CompositeKey("table", "label")

    class PeriodicRun(Model):
        name = CharField(max_length=32, primary_key=True)
        due_at = DateTimeField()
        position = BigIntegerField(default=0, constraints=[SQL("DEFAULT 0")])

        class Meta:
            database = db
            table_name = "periodic_runs"

    return [RowCount, PeriodicRun]


def up(migrator, db):
    db.execute_sql('ALTER TABLE "rate_buckets" ADD COLUMN "refusals" INTEGER NOT NULL DEFAULT 0')
    db.execute_sql('CREATE INDEX "rate_buckets_closed" ON "rate_buckets" ("closed_until") WHERE ("closed_until" > 0)')
    db.create_tables(tables(db))


def down(migrator, db):
    db.drop_tables(tables(db))
    db.execute_sql('DROP INDEX "rate_buckets_closed"')
    db.execute_sql('ALTER TABLE "rate_buckets" DROP COLUMN "refusals"')
