"""How many copies of messages were published, in a file that outlives whoever is killed.

Apart from `doubling.py`, which doubles every message of the process that imports it.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

#: The environment's name for the file.
COPIES = "CHAOS_COPIES"


def note_copy(sender: str, actor: str) -> None:
    """One short line in one write: several processes append to the file."""
    output = os.open(os.environ[COPIES], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(output, f"{sender} {actor}\n".encode())
    os.close(output)


def copies(path: Path) -> Counter[tuple[str, str]]:
    """How many copies were published, by sender and actor."""
    lines = path.read_text().splitlines() if path.exists() else []
    return Counter((sender, actor) for sender, _, actor in (line.partition(" ") for line in lines))
