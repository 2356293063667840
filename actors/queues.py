"""The queues' names and priorities: part of the contract, so that every process declares the same."""

SYNCS = "esi_user_killmails_queue"
KILLMAILS = "esi_killmail_details_queue"
NAMES = "esi_names_queue"
MAINTENANCE = "maintenance_queue"

ALL = (SYNCS, KILLMAILS, NAMES, MAINTENANCE)

#: RabbitMQ's x-max-priority. It is part of a queue's identity: another value is refused (406) for ever after.
MAX_PRIORITY = 10
NAMES_PRIORITY = 1
MAINTENANCE_PRIORITY = 3

#: Dramatiq's own priority among the messages a worker holds: lower runs first. Lists before details before names.
FIRST, SECOND, LAST = 0, 10, 20
