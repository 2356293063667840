"""Logging: one line an event on stderr, for people or (LOG_FORMAT=json) for machines.

What a message quotes from outside cannot start a line of its own or steer a terminal: control characters are escaped.
Only a traceback takes more lines, and only in the format for people. Secrets are kept out by whoever logs; the
libraries that would log them (statements with their parameters, addresses with killmail hashes) are kept quiet here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

import peewee

from settings import Settings

#: Control characters, C1 and Unicode's line ends included, as they are shown.
ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}

#: Libraries whose INFO lines tell the operator nothing (every connection, every skipped message), and whose DEBUG lines
#: hold what nobody should read. The least level of each, whatever LOG_LEVEL says.
QUIET = {
    "pika": logging.CRITICAL,  # ten lines and tracebacks a failed attempt, which it raises too: we say it in one
    "werkzeug": logging.WARNING,
    "peewee": logging.WARNING,
    "periodiq": logging.WARNING,
    "urllib3": logging.ERROR,  # its warnings quote the address that is tried again
}


#: What no line may hold, wherever it comes from: the row that PostgreSQL quotes when it refuses one, a killmail's hash,
#: a token's ciphertext.
SECRETS = re.compile(r"(?<=DETAIL:  ).*|\b[0-9a-f]{40}\b|\bgAAAA[\w=-]{40,}")


def without_secrets(text: str) -> str:
    """The text with every secret that can be told by its looks blotted out."""
    return SECRETS.sub("…", text)


#: What peewee raises when the database is away, full, broken, or may only be read.
_UNREACHABLE = (peewee.OperationalError, peewee.InterfaceError, peewee.InternalError)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line)  # in ASCII: a terminal or a log shipper finds no line end or escape in it


class ConsoleFormatter(logging.Formatter):
    """`12:34:56 INFO    logger: message`, and a traceback below it where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return super().formatMessage(record).translate(ESCAPES)

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def configure(settings: Settings) -> None:
    """Send everything to stderr in the format asked for. Safe to call twice."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else ConsoleFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(max(least, logging.getLevelName(settings.log_level)))
    # A message that finds its work done is skipped: that is how a doubled or late message ends, not a warning.
    logging.getLogger("dramatiq.worker.WorkerThread").addFilter(_is_news)
    logging.getLogger("dramatiq.worker.WorkerThread").addFilter(_one_line_for_the_database)


def _one_line_for_the_database(record: logging.LogRecord) -> bool:
    """A database that is away or full fails every message alike: one line each says so, without a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, _UNREACHABLE):
        record.msg = f"{record.getMessage()} {str(_first_of(error)).partition(chr(10))[0]}"
        record.args, record.exc_info, record.exc_text = (), None, None
    return True


def _first_of(error: BaseException) -> BaseException:
    """What went wrong first: on a full disk COMMIT fails, and then ROLLBACK finds no transaction."""
    first, context = error, error.__context__
    while context is not None:
        first = context if isinstance(context, _UNREACHABLE) else first
        context = context.__context__
    return first


def _is_news(record: logging.LogRecord) -> bool:
    return "was skipped" not in str(record.msg)
