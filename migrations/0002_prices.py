"""What killmails are worth: ESI's market prices, and when they were asked for."""

from peewee import BigIntegerField, CharField, DateTimeField, DoubleField, Model


def tables(db):
    """The tables as they were when this migration was written."""

    class Table(Model):
        class Meta:
            database = db
            legacy_table_names = False

    class Price(Table):
        type_id = BigIntegerField(primary_key=True)
        price = DoubleField()
        updated_at = DateTimeField()

        class Meta:
            table_name = "prices"

    class PriceList(Table):
        name = CharField(max_length=16, primary_key=True)
        asked_at = DateTimeField(null=True)
        tried_at = DateTimeField(null=True)
        fetched_at = DateTimeField(null=True)

        class Meta:
            table_name = "price_lists"

    return [Price, PriceList]


def up(migrator, db):
    db.create_tables(tables(db))


def down(migrator, db):
    db.drop_tables(tables(db))
