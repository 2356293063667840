"""What every script shares: the repository on the path, settings, the database, and failures told in one line.

Exit 0 on success, 1 on a failure, 2 on bad usage (argparse's own), 130 on Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    import settings  # isort: skip - first: it tells a Python that is too old for the rest
    import peewee

    import database
    import logs
    import migrations
except ModuleNotFoundError as missing:
    sys.exit(f"error: this Python lacks {missing.name}; run the script with .venv/bin/python (the README makes it)")


class Failure(Exception):
    """Ends the script with exit 1 and this one line."""


def run(
    parser: ArgumentParser,
    main: Callable[[Namespace, settings.Settings], None],
    read: Callable[[Namespace], settings.Settings] = lambda _: settings.current(),
) -> None:
    """Parse, read the settings, connect, run `main`, and turn every expected failure into one line on stderr."""
    arguments = parser.parse_args()
    try:
        config = read(arguments)
        logs.configure(config)
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # a broker that is away is told by us, in one line
        database.connect(config.database_url)
        main(arguments, config)
        sys.stdout.flush()  # here, and not at exit, where a full disk or a reader that is gone ends in a traceback
    except (settings.SettingsError, migrations.SchemaError, Failure) as error:
        _fail(str(error))
    except peewee.PeeweeException as error:
        _fail(f"the database failed: {_first_line(error)} (check DATABASE_URL)")
    except BrokenPipeError:
        _fail(None)  # whoever read the output has seen enough
    except OSError as error:
        _fail(_first_line(error))
    except KeyboardInterrupt:
        sys.exit(130)


def id_of_64_bits(text: str) -> int:
    """An argument that is an id: what the database can hold."""
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**63):
        raise ArgumentTypeError(f"{text!r} is not an id")
    return int(text)


def _fail(text: str | None) -> None:
    if text is not None:
        print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


def _first_line(error: Exception) -> str:
    """Libraries explain themselves over several lines; the first says what is wrong."""
    return next(iter(str(error).splitlines()), type(error).__name__)
