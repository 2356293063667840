"""The broker: RabbitMQ between processes, or Dramatiq's in-memory broker when one process is everything.

Every process takes its broker from here: a queue declared with other arguments is refused by RabbitMQ. Messages carry
ids only. What is in a queue is never the only trace of work to be done, so the in-memory broker may forget.
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any

import dramatiq
import peewee
from dramatiq.middleware import Middleware, Retries, TimeLimit
from periodiq import PeriodiqMiddleware

import database
import events
import logs
import migrations
import settings
from actors.expired import SkipExpired
from actors.memory import InMemoryBroker
from actors.messages import CheckedEncoder, CheckedRabbitmqBroker
from actors.middleware import Connections, DefaultPriority, EndsWithMaster, FetchClaims, NoSecretsInMessages, Stopping
from actors.queues import MAX_PRIORITY
from actors.sync_starts import SyncStarts

#: Seconds. How long RabbitMQ may refuse to read (it is short of memory or disk) before a message is left to the tick.
BLOCKED_TIMEOUT_SECONDS = 5


def make_broker(config: settings.Settings, *, schema_checked: bool = True) -> dramatiq.Broker:
    """The one broker of this process. A killmail is claimed and its slot awaited before TimeLimit starts to count.

    `schema_checked`: whether code and schema are known to fit; if not, the first message makes sure of it.
    """
    middleware: list[Middleware] = [
        Connections(schema_checked=schema_checked),
        # Behind the connection: a process that was never connected knows its own clock only.
        SkipExpired(),
        FetchClaims(),
        SyncStarts(),
        TimeLimit(),
        Stopping(),
        # The ledger retries; an actor that should be tried again by Dramatiq says so itself.
        Retries(max_retries=0),
        DefaultPriority(),
        NoSecretsInMessages(),
        # By the scheduler's clock and the reader's; SkipExpired does it by the database's.
        PeriodiqMiddleware(skip_delay=math.inf),
    ]
    if config.rabbitmq_url is None:
        return InMemoryBroker(middleware=middleware, fail_fast_default=False)
    broker = CheckedRabbitmqBroker(
        url=config.rabbitmq_url,
        confirm_delivery=True,  # without, a killed RabbitMQ loses messages and nobody is told
        max_priority=MAX_PRIORITY,
        middleware=middleware,
    )
    broker.add_middleware(EndsWithMaster())
    # A RabbitMQ out of memory or disk stops reading: better a message left to the tick than a worker that hangs.
    parameters: Any = broker.parameters
    parameters.blocked_connection_timeout = BLOCKED_TIMEOUT_SECONDS
    return broker


def _for_this_process() -> dramatiq.Broker:
    schema_checked = True
    try:
        config = settings.current()
        if _is_worker_or_scheduler():
            schema_checked = _start_service(config)
    except (settings.SettingsError, migrations.SchemaError) as error:
        sys.exit(f"error: {error}")
    return make_broker(config, schema_checked=schema_checked)


def _is_worker_or_scheduler() -> bool:
    program = Path(sys.argv[0])
    return {program.name, program.parent.name} & {"dramatiq", "periodiq"} != set()


def _start_service(config: settings.Settings) -> bool:
    """What `dramatiq actors` and `periodiq actors` have no other place for; whether the schema could be checked."""
    if config.embedded:
        raise settings.SettingsError(
            "RABBITMQ_URL is not set: without it `python app.py` is the whole system and starts its own workers; "
            "a valid value is amqp://guest:guest@127.0.0.1:5672/%2F"
        )
    config.require_eve_application()
    logs.configure(config)
    # The threads of a worker add theirs when it starts.
    database.connect(config.database_url, max_connections=database.OTHER_CONNECTIONS)
    events.configure(config.rabbitmq_url)
    try:
        migrations.check()
    except peewee.OperationalError as error:  # it may come up later; nothing is done before
        logging.getLogger(__name__).warning("database unreachable at start: %s", str(error).partition("\n")[0])
        return False
    return True


dramatiq.set_encoder(CheckedEncoder())
broker = _for_this_process()
dramatiq.set_broker(broker)
