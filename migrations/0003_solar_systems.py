"""How safe solar systems are: those that have a name already are wanted."""

from peewee import BigIntegerField, Check, DateTimeField, DoubleField, Model


def tables(db):
    """The tables as they were when this migration was written."""

    class SolarSystem(Model):
        id = BigIntegerField(primary_key=True)
        security_status = DoubleField(null=True, constraints=[Check("security_status BETWEEN -1.0 AND 1.0")])
        retry_at = DateTimeField(null=True)

        class Meta:
            database = db
            table_name = "solar_systems"

    SolarSystem.add_index(
        SolarSystem.index(
            SolarSystem.retry_at, where=SolarSystem.security_status.is_null(), name="solar_systems_wanted"
        )
    )

    return [SolarSystem]


def up(migrator, db):
    db.create_tables(tables(db))
    db.execute_sql("INSERT INTO solar_systems (id) SELECT id FROM names WHERE category = 'solar_system'")


def down(migrator, db):
    db.drop_tables(tables(db))
