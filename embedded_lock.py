"""One embedded system a database: a lock file that the process at work holds, and that others can look at."""

from __future__ import annotations

import fcntl
import hashlib
import time
from pathlib import Path
from typing import IO

from settings import VAR, SettingsError

#: Whoever looks whether it is held holds it for a moment: one refusal alone means nothing.
TRIES, PAUSE_SECONDS = 3, 0.05


class AlreadyRunning(RuntimeError):
    """Another process holds the lock; the text says which."""


def take(database_url: str) -> IO[str]:
    """The open lock file; closing it gives the lock up. Raises AlreadyRunning, and SettingsError where there can be
    no such file."""
    VAR.mkdir(mode=0o700, exist_ok=True)
    path = _path(database_url)
    try:
        lock = path.open("a+")
    except OSError as error:
        raise SettingsError(
            f"DATABASE_URL: {path.parent} cannot be written to: {error.strerror}; "
            "a valid value is sqlite:///var/killmails.db"
        ) from None
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(PAUSE_SECONDS)
        else:
            return lock
    lock.close()
    raise AlreadyRunning("another `python app.py` is running on this database; stop it first")


def is_held(database_url: str) -> bool:
    """Whether a process is at work on this database, be it this one."""
    try:
        with _path(database_url).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file: nobody ever was
        return False
    return False


def _path(database_url: str) -> Path:
    """Beside a SQLite file; else in `var/`, by a digest of the address, which holds a password."""
    if database_url.startswith("sqlite:///"):
        return Path(database_url.removeprefix("sqlite:///") + ".lock")
    return VAR / f"embedded-{hashlib.sha256(database_url.encode()).hexdigest()[:16]}.lock"
