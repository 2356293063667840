"""Of a bucket's limit: how many answers in a row stated another one, and how often the bucket is tried while empty."""


def up(migrator, db):
    db.execute_sql('ALTER TABLE "rate_buckets" ADD COLUMN "doubts" INTEGER NOT NULL DEFAULT 0')
    db.execute_sql('ALTER TABLE "rate_buckets" ADD COLUMN "tried_every" INTEGER NOT NULL DEFAULT 0')


def down(migrator, db):
    db.execute_sql('ALTER TABLE "rate_buckets" DROP COLUMN "tried_every"')
    db.execute_sql('ALTER TABLE "rate_buckets" DROP COLUMN "doubts"')
