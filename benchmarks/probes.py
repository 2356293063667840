"""What workers under `benchmarks.probed` wrote down: statements, messages and timed calls, by actor.

BEGIN, COMMIT and their like are not counted as statements: they read and write no row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import PROBE_DIRECTORY, Cluster

#: Kinds of lines, and how much of a statement is kept.
STATEMENT, MESSAGE, CALL = "S", "M", "T"
SQL_LENGTH = 70

_FRAME = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


@dataclass(frozen=True, slots=True)
class Probed:
    """Statements by (actor, beginning of the SQL), messages by (sender, actor), calls' wall times in seconds."""

    statements: Counter[tuple[str, str]] = field(default_factory=Counter)
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: dict[str, list[float]] = field(default_factory=dict)

    def statements_of(self, *actors: str) -> int:
        return sum(count for (actor, _), count in self.statements.items() if actor in actors)

    def messages_to(self, *actors: str) -> int:
        return sum(count for (_, actor), count in self.messages.items() if actor in actors)


class Probes:
    """Reads on where it stopped, so that what warmed the system up is not counted."""

    def __init__(self, system: Cluster) -> None:
        self._directory = Path(system.processes.environment[PROBE_DIRECTORY])
        self._read: dict[Path, int] = {}

    def since_last(self) -> Probed:
        """What was written since the last call (or ever)."""
        probed = Probed()
        for path in sorted(self._directory.glob("*.probe")):
            with path.open() as lines:
                lines.seek(self._read.get(path, 0))
                text = lines.read()
                self._read[path] = lines.tell()
            for line in text.splitlines():
                _count(probed, *line.split("\t", 2))
        return probed


def _count(probed: Probed, kind: str, actor: str, what: str) -> None:
    if kind == STATEMENT and not what.upper().startswith(_FRAME):
        probed.statements[actor, what] += 1
    elif kind == MESSAGE:
        probed.messages[actor, what] += 1
    elif kind == CALL:
        name, _, microseconds = what.partition(" ")
        probed.calls.setdefault(name, []).append(int(microseconds) / 1e6)
