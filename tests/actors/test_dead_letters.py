"""What a dead letter says of itself."""

from __future__ import annotations

import json

import pytest

from actors.dead_letters import _exception, _read

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


MESSAGE = {"queue_name": "q", "actor_name": "sync_user", "args": [1], "kwargs": {}, "options": {}, "message_id": "x",
           "message_timestamp": 1}  # fmt: skip
VALUES = [None, 5, [], {}, "x", True, 1e308, [[1]], {"a": 1}, 10**400, "\ud800", "\x1b[2J", "a\nb", "\u202e"]


@pytest.mark.parametrize("field", MESSAGE)
def test_whatever_a_stranger_wrote_is_shown_in_one_line_that_does_nothing_to_a_terminal(field: str) -> None:
    bodies = [json.dumps({**MESSAGE, field: value}).encode() for value in VALUES]
    bodies.append(json.dumps({**MESSAGE, "options": {"traceback": "  File \nError: \x1b[2J\ud800"}}).encode())
    for body in [*bodies, b"", b"[]", b"null", b"[" * 100_000, b"\xff"]:
        letter = _read("queue", body)
        assert f"{letter.actor}{letter.arguments}{letter.error}".isprintable(), body
