"""What a dead letter says of itself."""

from __future__ import annotations

import pytest

from actors.dead_letters import _exception

PLAIN = """Traceback (most recent call last):
  File "worker.py", line 1, in process
    work()
ValueError: no such thing
"""
OF_A_DATABASE = """Traceback (most recent call last):
  File "peewee.py", line 1, in execute
    cursor.execute(sql)
psycopg2.errors.InvalidTextRepresentation: invalid input syntax for type integer: "x"
LINE 1: SELECT id FROM syncs WHERE id = 'x'
                                        ^

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "actors/syncs.py", line 1, in finalize_sync
    finalize()
peewee.DataError: invalid input syntax for type integer: "x"
LINE 1: SELECT id FROM syncs WHERE id = 'x'
                                        ^
"""


@pytest.mark.parametrize(
    ("traceback", "said"),
    [
        (PLAIN, "ValueError: no such thing"),
        (OF_A_DATABASE, 'peewee.DataError: invalid input syntax for type integer: "x"'),
        ("only a line", "only a line"),
        ("", ""),
    ],
    ids=["plain", "database", "line", "nothing"],
)
def test_the_reason_is_the_last_exceptions_first_line(traceback: str, said: str) -> None:
    assert _exception(traceback) == said
