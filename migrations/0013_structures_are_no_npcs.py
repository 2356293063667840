"""Kills by players' structures without a pilot were marked as kills by NPCs; ids from 98,000,000 are players'."""


def up(migrator, db):
    db.execute_sql(
        """
        UPDATE killmails SET is_npc = FALSE WHERE is_npc AND EXISTS (
            SELECT 1 FROM attackers a WHERE a.killmail_id = killmails.killmail_id AND a.corporation_id >= 98000000
        )
        """
    )


def down(migrator, db):
    db.execute_sql(
        """
        UPDATE killmails SET is_npc = TRUE WHERE NOT is_npc AND NOT EXISTS (
            SELECT 1 FROM attackers a WHERE a.killmail_id = killmails.killmail_id AND a.character_id IS NOT NULL
        )
        """
    )
