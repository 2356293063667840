"""Killmails are visible only to pilots whom they name."""


def up(migrator, db):
    # Links of stored killmails to pilots whom they do not name: ESI once answered with another pilot's list.
    db.execute_sql("""
        DELETE FROM user_killmails
        WHERE EXISTS (SELECT 1 FROM killmails k WHERE k.killmail_id = user_killmails.killmail_id)
          AND NOT EXISTS (SELECT 1 FROM victims v JOIN users u ON u.character_id = v.character_id
                          WHERE v.killmail_id = user_killmails.killmail_id AND u.id = user_killmails.user_id)
          AND NOT EXISTS (SELECT 1 FROM attackers a JOIN users u ON u.character_id = a.character_id
                          WHERE a.killmail_id = user_killmails.killmail_id AND u.id = user_killmails.user_id)
    """)


def down(migrator, db):
    """Nothing to undo: such links showed what should not be seen."""
