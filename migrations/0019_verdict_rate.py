"""How many rechecks have confirmed a refusal; and how many refreshes succeed among those that are refused."""

from peewee import DoubleField, IntegerField, Model, SmallIntegerField


def tables(db):
    """The tables as they were when this migration was written."""

    class VerdictRate(Model):
        id = SmallIntegerField(primary_key=True)
        served = IntegerField(default=0)
        incident_until = DoubleField(default=0.0)

        class Meta:
            database = db
            table_name = "verdict_rate"

    return [VerdictRate]


def up(migrator, db):
    db.execute_sql('ALTER TABLE "users" ADD COLUMN "rechecks" INTEGER NOT NULL DEFAULT 0')
    db.create_tables(tables(db))


def down(migrator, db):
    db.drop_tables(tables(db))
    db.execute_sql('ALTER TABLE "users" DROP COLUMN "rechecks"')
