"""Chaos: real processes and servers, killed and restarted while twenty pilots sync; then the truth.

Every message is delivered twice, whoever sent it. CHAOS_SEED repeats a run; the seed is printed. CHAOS_LONG=1 is the
long form (`make chaos`).
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors import queues
from tests.acceptance.cluster import Cluster, cluster
from tests.acceptance.processes import BIN, Process, wait_until
from tests.chaos.copies import COPIES, copies
from tests.chaos.servers import PrivatePostgres, PrivateRabbitmq, servers_directory

LONG = os.environ.get("CHAOS_LONG") == "1"
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
PILOTS = 20
#: More in the long form: at 50 a second, all of its disasters have to strike a system at work.
KILLMAILS = 15_000 if LONG else 3000
#: Seconds within which a worker that goes on is done with what it had in hand.
SETTLING = 0.5
#: Worker groups, each with one worker process, so that one can be killed while the others go on.
WORKERS = 3
#: What runs the system's processes with every message doubled, and as whom `doubling.py` counts each.
DOUBLING = "tests.chaos.doubling"
SENDERS = {"web": "doubling", "workers": "dramatiq", "scheduler": "periodiq"}
SIMULATOR = (
    "--pilots", str(PILOTS), "--killmails-count", str(KILLMAILS), "--shared", "0.3", "--page-size", "100",
    "--latency-ms", "10-60", "--limit", "killmail=100000/1m", "--limit", "char-killmail=1000/1m",
)  # fmt: skip


@dataclass
class Chaos:
    """What breaks things, and counts what it broke."""

    system: Cluster
    postgres: PrivatePostgres
    rabbitmq: PrivateRabbitmq
    random: random.Random
    workers: list[Process] = field(default_factory=list)
    scheduler: Process | None = None
    done: Counter[str] = field(default_factory=Counter)
    #: How often each killmail was in a victim's hands: what ESI was asked for it may have been asked in vain.
    in_hand: Counter[int] = field(default_factory=Counter)
    lost: set[tuple[Any, ...]] = field(default_factory=set)
    #: What was still to be fetched at each disaster.
    to_do: list[int] = field(default_factory=list)

    def start(self) -> None:
        self._start_web()
        for _ in range(WORKERS):
            self.workers.append(self._new_worker())
        self.scheduler = self._new_scheduler()

    def kill_a_worker(self) -> None:
        victim = self.random.randrange(len(self.workers))
        if self.workers[victim].child.poll() is None:
            self._freeze(self.workers[victim])
        self.workers[victim].kill()
        self.workers[victim] = self._new_worker()
        self.to_do.append(self.system.scalar("SELECT COUNT(*) FROM ledger"))
        self.done["workers killed"] += 1

    def kill_the_scheduler(self) -> None:
        assert self.scheduler is not None
        self.scheduler.kill()
        self.scheduler = self._new_scheduler()
        self.done["schedulers killed"] += 1

    def kill_the_web(self) -> None:
        assert self.system.web is not None
        self.system.web.kill()
        self._start_web()
        self.done["web servers killed"] += 1

    def restart_postgres(self) -> None:
        """While the workers run: between an answer of ESI and its commit, and between a commit and its reply."""
        mode = self.random.choice(["fast", "immediate"])
        alive = [worker for worker in self.workers if worker.child.poll() is None]
        self.postgres.stop(mode)
        for worker in alive:
            worker.send_signal(signal.SIGSTOP)  # only to see what they had in hand before they let go of it
        self.postgres.start()
        self._note(self._claims())
        for worker in alive:
            worker.send_signal(signal.SIGCONT)
        self.done[f"PostgreSQL restarts ({mode})"] += 1
        self.revive()

    def restart_rabbitmq(self) -> None:
        number = self.random.choice([signal.SIGTERM, signal.SIGKILL])
        self.rabbitmq.restart(number)
        self.done[f"RabbitMQ restarts ({number.name})"] += 1
        self.revive()

    def purge(self) -> None:
        # A window of messages that an earlier disaster has lost is sent again when its lease is over.
        wait_until(lambda: self.rabbitmq.depth(queues.KILLMAILS) > 0, "there are messages to be dropped", 240, 0.02)
        dropped = self.rabbitmq.purge(*queues.ALL)
        self.done["purges"] += 1
        self.done["messages purged"] += dropped

    def revive(self) -> None:
        """What supervisord does: start again what has ended."""
        for number, worker in enumerate(self.workers):
            if worker.child.poll() is not None:
                self.workers[number] = self._new_worker()
        if self.scheduler is not None and self.scheduler.child.poll() is not None:
            self.scheduler = self._new_scheduler()

    def is_over(self) -> bool:
        self.revive()
        return self.system.is_quiet()

    def _freeze(self, *workers: Process) -> None:
        """Stop these in the middle of whatever they do, and note what they have in hand before it is lost."""
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        claims = self._claims()
        time.sleep(SETTLING)  # what the others have in hand is done meanwhile
        self._note(claims & self._claims())

    def _note(self, claims: set[tuple[Any, ...]]) -> None:
        """Each claim once: those of earlier victims stand until their leases run out."""
        self.in_hand.update(killmail_id for killmail_id, _ in claims - self.lost)
        self.lost |= claims

    def _claims(self) -> set[tuple[Any, ...]]:
        """Who has what: a killmail and the lease on it."""
        return set(self.system.rows("SELECT killmail_id, claimed_until FROM ledger WHERE state = 'fetching'"))

    def _start_web(self) -> None:
        self.system.web = self.system.processes.start("web", [sys.executable, "-m", DOUBLING])
        self.system.web_url = self.system.web.wait_for_output(r"Listening on (http://\S+)")[1]

    def _new_worker(self) -> Process:
        return self.system.start_workers(processes=1, threads=6, module=DOUBLING)

    def _new_scheduler(self) -> Process:
        return self.system.processes.start("scheduler", [str(BIN / "periodiq"), DOUBLING])


@pytest.fixture
def chaos(tmp_path: Path) -> Iterator[Chaos]:
    print(f"\nCHAOS_SEED={SEED}")
    with ExitStack() as stack:
        directory = stack.enter_context(servers_directory())
        postgres = PrivatePostgres(directory / "postgres")
        postgres.start()
        stack.callback(postgres.stop)
        rabbitmq = PrivateRabbitmq(directory / "rabbitmq")
        rabbitmq.start()
        stack.callback(rabbitmq.stop)
        system = stack.enter_context(cluster(tmp_path, postgres.url, rabbitmq.url, *SIMULATOR))
        assert system.script("migrate").returncode == 0
        system.processes.environment = {**system.processes.environment, COPIES: str(tmp_path / "copies")}
        yield Chaos(system, postgres, rabbitmq, random.Random(SEED))


def test_nothing_is_lost_or_doubled(chaos: Chaos) -> None:
    system = chaos.system
    chaos.start()
    started = time.monotonic()
    for character_id in system.simulated.truth():
        assert system.browser().log_in(character_id).status_code == 200

    wreck(chaos)
    wait_until(chaos.is_over, "everything is stored and every sync has ended", 900, 0.5)
    seconds = time.monotonic() - started

    report(chaos, seconds)
    assert system.differences() == []
    assert system.scalar("SELECT COUNT(*) FROM killmails") == KILLMAILS
    assert system.rows("SELECT state, COUNT(*) FROM ledger GROUP BY state") == []
    assert system.scalar("SELECT COUNT(*) FROM syncs WHERE finished_at IS NULL") == 0
    assert system.scalar("SELECT COUNT(*) FROM syncs WHERE state <> 'FINISHED'") == 0
    assert repeated(system) - chaos.in_hand == Counter(), "nothing is asked for again but what a victim had in hand"
    assert system.simulated.stats()["max_in_one_second"] <= 50
    assert min(chaos.to_do) > 0, "every disaster struck a system at work"
    assert chaos.done["messages purged"] > 0
    assert {sender for sender, count in doubled(system).items() if count} == set(SENDERS)
    assert doubled_of(system, "fetch_killmail") >= KILLMAILS


def wreck(chaos: Chaos) -> None:
    """One of everything in a random order, and a worker killed before each; the long form again and again."""
    acts: list[Callable[[], None]] = [
        chaos.restart_postgres,
        chaos.restart_rabbitmq,
        chaos.kill_the_scheduler,
        chaos.kill_the_web,
        chaos.purge,
    ]
    for _ in range(6 if LONG else 1):
        chaos.random.shuffle(acts)
        for act in acts:
            time.sleep(chaos.random.uniform(1.0, 4.0))  # something has to happen between two disasters
            chaos.kill_a_worker()
            act()


def doubled(system: Cluster) -> dict[str, int]:
    """How many messages of each kind of process were sent a second time."""
    counted = copies(Path(system.processes.environment[COPIES]))
    return {name: sum(count for (sender, _), count in counted.items() if sender == SENDERS[name]) for name in SENDERS}


def doubled_of(system: Cluster, actor: str) -> int:
    counted = copies(Path(system.processes.environment[COPIES]))
    return sum(count for (_, name), count in counted.items() if name == actor)


def repeated(system: Cluster) -> Counter[int]:
    """How many times more than once each detail was served: a worker died between ESI's answer and its commit."""
    served = Counter(
        entry["killmail_id"] for entry in system.simulated.requests(route="killmail") if entry["status"] == 200
    )
    return Counter({killmail_id: count - 1 for killmail_id, count in served.items() if count > 1})


def report(chaos: Chaos, seconds: float) -> None:
    stats = chaos.system.simulated.stats()
    for what, count in sorted(chaos.done.items()):
        print(f"{what}: {count}")
    print(f"killmails synced: {KILLMAILS} in {seconds:.0f} s; requests repeated: {repeated(chaos.system).total()}")
    print(f"killmails in a victim's hands: {chaos.in_hand.total()}")
    print(f"still to be fetched at a disaster, at least: {min(chaos.to_do)}")
    print(f"messages doubled: {doubled(chaos.system)}")
    print(f"most requests in any second: {stats['max_in_one_second']}")
