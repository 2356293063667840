"""Who follows what in B8: ids, links and cookies of the crowd, agreed on by those who store and those who watch."""

from __future__ import annotations

from flask import Flask
from flask.sessions import SecureCookieSessionInterface

from benchmarks.harness import Cluster
from database import execute

#: Killmails a second: 50 for the first user, 50 for the second, 2 for everybody.
EACH, FOR_ALL = 50, 2
PACE = 2 * EACH + FOR_ALL


def killmail_ids(first_id: int, seconds: int) -> range:
    """All ids of a storm, in the order in which they are stored."""
    return range(first_id, first_id + PACE * seconds)


def is_for_all(killmail_id: int, first_id: int) -> bool:
    """Every 51st, so that they are spread evenly."""
    return (killmail_id - first_id) % (EACH + 1) == EACH


def expected_frames(first_id: int, seconds: int, readers: int) -> int:
    """Frames that readers get in all, each killmail once a reader whom it concerns."""
    for_all = sum(is_for_all(each, first_id) for each in killmail_ids(first_id, seconds))
    return for_all * readers + len(killmail_ids(first_id, seconds)) - for_all


def link(first_id: int, seconds: int, users: list[int]) -> None:
    """The killmails of a storm stand in their viewers' lists, as they would since the list was read."""
    ids = killmail_ids(first_id, seconds)
    for parity in (0, 1):
        execute(
            """
            INSERT INTO user_killmails (user_id, killmail_id, linked_at)
            SELECT ?, n, now() - interval '1 hour' FROM generate_series(?, ?) n
            WHERE mod(n - ?, ?) <> ? AND mod(mod(n - ?, ?), 2) = ?
            """,
            (users[parity], ids[0], ids[-1], first_id, EACH + 1, EACH, first_id, EACH + 1, parity),
        )
    execute(
        """
        INSERT INTO user_killmails (user_id, killmail_id, linked_at)
        SELECT u.id, n, now() - interval '1 hour' FROM users u, generate_series(?, ?) n WHERE mod(n - ?, ?) = ?
        """,
        (ids[0], ids[-1], first_id, EACH + 1, EACH),
    )


def cookies(made: Cluster, users: list[int]) -> list[str]:
    """What the browsers of these users would send after a login (session epoch 1, see `bulk.users`)."""
    app = Flask(__name__)
    app.secret_key = made.processes.environment["SECRET_KEY"]
    signer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert signer is not None
    return [f"killmail_sync={signer.dumps({'user_id': user_id, 'epoch': 1})}" for user_id in users]
