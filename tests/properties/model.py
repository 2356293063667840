"""The ledger as a person would keep it: dicts and sets, one thing at a time, no SQL, no clock.

It says what has to be true after every step, in the words of the invariants, and is compared with the database row by
row (`machine.py`). What it leaves out on purpose: error texts, times, ETags, names.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GIVEN_UP = 4  # failures in a row after which a killmail no longer holds up a sync
REFUSED_FOR_GOOD = 2  # answers of 4xx in a row that count as as many
TURNS_LOST, LAST = 50, 1_000_000
IN_PERSON = 8
#: (killmail, character): the killmail may appear in the character's list, and does not name them. 8 names no pilot.
FOREIGN = {(3, 0), (4, 1), (8, 0), (8, 1), (8, 2)}
PRIORITIES = {"LOGIN": 8, "WEB": 8, "MANUAL": 5, "SCHEDULE": 3}


@dataclass
class Row:
    """A killmail that is not stored yet."""

    priority: int
    turn: int
    listed: int  # the page it was first listed on, of all pages there were
    state: str = "pending"
    attempts: int = 0
    refusals: int = 0
    holder: object = None  # of the claim that counts
    expired: bool = False  # nobody believes in the message or worker any more
    due: bool = False  # of a deferred row
    as_share: bool = False  # of a row that is out: it goes as a login's

    @property
    def sent_priority(self) -> int:
        return max(self.priority, IN_PERSON) if self.as_share else self.priority

    @property
    def unsettled(self) -> bool:
        return self.attempts < GIVEN_UP and self.state != "rejected"

    @property
    def given_up(self) -> bool:
        return self.state == "deferred" or (self.state != "rejected" and self.attempts >= GIVEN_UP)

    @property
    def doubtful(self) -> bool:
        return self.refusals > 0 or self.turn >= LAST

    def put(self, state: str) -> None:
        self.state, self.holder, self.expired, self.due, self.as_share = state, None, False, False, False


@dataclass
class Run:
    """A sync."""

    user_id: int
    trigger: str
    priority: int
    full: bool
    state: str = "QUEUED"
    next_page: int = 1
    found: int = 0
    skipped: int = 0
    saved: int = 0
    failed: int = 0
    attempts: int = 0
    items: set[int] = field(default_factory=set)
    holder: object = None  # the reader whose lease counts
    expired: bool = False
    waiting: bool = False  # until a time that has not come
    foreign: int = 0  # entries that do not name the pilot
    distrusted: bool = False  # what was read of the list, now or before, may be another's
    listed: set[int] = field(default_factory=set)  # since its reading began anew

    @property
    def active(self) -> bool:
        return self.state in ("QUEUED", "LISTING", "FETCHING")


@dataclass
class Pilot:
    """A linked user."""

    character: int = 0
    links: set[int] = field(default_factory=set)
    full_requested: bool = False
    read_whole: bool = False  # the whole list was read within a day
    complete: bool = False  # the last list was read to its end: paging may stop early
    cooling_down: bool = False
    due: bool = True


class Model:
    """Everybody and everything."""

    def __init__(self) -> None:
        self.pilots: dict[int, Pilot] = {}
        self.runs: dict[int, Run] = {}
        self.rows: dict[int, Row] = {}
        self.stored: set[int] = set()
        self.pages = 0
        self.sent = 0  # of the current ten rows

    def active_of(self, user_id: int) -> tuple[int, Run] | None:
        for sync_id, run in self.runs.items():
            if run.user_id == user_id and run.active:
                return sync_id, run
        return None

    def complete_runs(self) -> set[int]:
        return {sync_id for sync_id, run in self.runs.items() if self.is_complete(run)}

    def is_complete(self, run: Run) -> bool:
        return run.state == "FETCHING" and not any(self.rows[wanted].unsettled for wanted in run.items)

    # Asking for a sync

    def opened(self, sync_id: int, user_id: int, trigger: str, *, full: bool) -> None:
        pilot = self.pilots[user_id]
        whole = full or pilot.full_requested or not pilot.read_whole
        pilot.full_requested = False
        self.runs[sync_id] = Run(user_id, trigger, PRIORITIES[trigger], whole)

    def joined(self, run: Run, trigger: str, *, full: bool) -> None:
        priority = PRIORITIES[trigger]
        if priority > run.priority:
            run.priority = priority
            if priority >= IN_PERSON:
                run.waiting = False
            for wanted in run.items:
                row = self.rows[wanted]
                row.priority = max(row.priority, priority)
                if priority >= IN_PERSON and row.given_up:
                    self._afresh(row)
        if full and run.state == "FETCHING":
            self.pilots[run.user_id].full_requested = True
        elif full and not run.full:
            run.full, run.next_page = True, 1

    def retried(self, user_id: int, priority: int) -> int:
        mine = [self.rows[wanted] for wanted in self.pilots[user_id].links if wanted in self.rows]
        given_up = [row for row in mine if row.state == "deferred"]
        for row in given_up:
            row.priority = max(row.priority, priority)
            self._afresh(row)
        return len(given_up)

    # Reading a list

    def claimable(self, sync_id: int) -> bool:
        run = self.runs.get(sync_id)
        if run is None or run.waiting:
            return False
        return run.state == "QUEUED" or (run.state == "LISTING" and (run.holder is None or run.expired))

    def taken_from_dead_readers(self) -> None:
        """Those whose readers died again and again are left to the tick, which fails them."""
        for run in self.runs.values():
            if run.expired and run.attempts < 4:
                run.holder, run.expired = None, False
                run.attempts += 1

    def claimed(self, run: Run, reader: object) -> None:
        run.state, run.holder, run.expired = "LISTING", reader, False
        if run.next_page == 1:
            run.found = run.skipped = run.foreign = 0
            run.distrusted = False
            run.listed = set()
            run.items = set()

    def sent_back(self, run: Run) -> None:
        run.found = run.skipped = run.foreign = 0
        run.distrusted = False
        run.listed = set()
        run.items = set()

    def page_added(self, run: Run, ids: list[int], seen: set[int]) -> set[int]:
        """Returns what of the page was not stored."""
        pilot = self.pilots[run.user_id]
        foreign = self.foreign(run, ids)
        pilot.links |= set(ids) - foreign
        if foreign:
            self._distrust(run.user_id)
        new = set(ids) - self.stored
        self.pages += 1
        for place, wanted in enumerate(sorted(new, reverse=True), max(0, run.found - run.skipped)):
            self._want(run, wanted, place)
        run.items |= new
        fresh = set(ids) - seen
        run.found += len(fresh - foreign)
        run.skipped += len(fresh & self.stored - foreign)
        run.foreign += len(fresh & foreign)
        run.listed |= set(ids)
        run.next_page += 1
        run.attempts, run.expired = 0, False
        return new

    def foreign(self, run: Run, ids: list[int]) -> set[int]:
        """What of these is stored and does not name the pilot."""
        character = self.pilots[run.user_id].character
        return {each for each in ids if each in self.stored and (each, character) in FOREIGN}

    def listing_ended(self, run: Run, *, full: bool) -> None:
        pilot = self.pilots[run.user_id]
        pilot.complete = not run.distrusted
        pilot.read_whole |= full and not run.foreign
        pilot.full_requested |= run.full and not full
        run.full = full
        run.state, run.holder, run.expired = "FETCHING", None, False

    def failed(self, run: Run) -> None:
        run.state, run.holder, run.expired, run.waiting = "FAILED", None, False, False
        run.failed = len(run.items & self.rows.keys())
        run.saved = max(0, run.found - run.skipped - run.failed)
        self.pilots[run.user_id].complete = False
        self.pilots[run.user_id].due = False

    def finished(self, run: Run) -> None:
        run.state, run.waiting = "FINISHED", False
        run.failed = len(run.items & self.rows.keys())
        run.saved = run.found - run.skipped - run.failed
        pilot = self.pilots[run.user_id]
        pilot.cooling_down, pilot.due = True, pilot.full_requested

    def finished_unchanged(self, run: Run) -> None:
        run.holder, run.expired = None, False
        self.pilots[run.user_id].complete = True
        self.finished(run)

    # Fetching

    def to_dispatch(self, interactive: int, background: int, window: int, doubtful: int, behind: int) -> list[int]:
        """What goes out, in this order: one row after the other, as long as there is room, by place in the ten.

        Each class by turn; the fifth of ten is the oldest of its class, the tenth the oldest background row. At most
        `doubtful` that may be refused, the last `doubtful - behind` of them of syncs that are seldom refused.
        """
        self.promote_due()
        out = [self.rows[wanted] for wanted in self._in("sent")]
        urgent_out = sum(row.sent_priority >= IN_PERSON for row in out)
        held = [self.rows[wanted] for wanted in (*self._in("sent"), *self._in("fetching"))]
        gone = sum(row.doubtful for row in held)
        doubtful, behind = max(0, doubtful - gone), max(0, behind - gone)
        going: list[int] = []
        room = min(interactive, window - urgent_out)
        sure = behind < room
        while len(going) < room:
            place = (self.sent + len(going) + 1) % 10
            urgent, others = self._class(going, sure, urgent=True), self._class(going, sure, urgent=False)
            if place == 0 and others:
                going.append(self._oldest(others))
                self.rows[going[-1]].as_share = True
            elif not urgent:
                break
            else:
                going.append(self._oldest(urgent) if place == 5 else self._first(urgent))
        if sure:
            self._add_doubtful(going, room, doubtful, behind, urgent=True)
        return self._and_others(going, doubtful, behind, min(background, window - len(out)))

    def _and_others(self, going: list[int], doubtful: int, behind: int, background: int) -> list[int]:
        gone = sum(self.rows[wanted].doubtful for wanted in going)
        doubtful, behind = max(0, doubtful - gone), max(0, behind - gone)
        room = background - len(going)
        if room > 0:
            sure = behind < room
            oldest = sum((self.sent + len(going) + n) % 10 == 5 for n in range(1, room + 1))
            mine: list[int] = []
            while len(mine) < room and (others := self._class(going + mine, sure, urgent=False)):
                mine.append(self._first(others) if len(mine) < room - oldest else self._oldest(others))
            going += mine
            if sure:
                self._add_doubtful(going, background, doubtful, behind, urgent=False)
        self.sent = (self.sent + len(going)) % 10
        return sorted(going, key=lambda wanted: (-self.rows[wanted].sent_priority, self.rows[wanted].turn, -wanted))

    def _class(self, going: list[int], sure: bool, *, urgent: bool) -> list[int]:
        """Pending rows of a class that are not among those that go; where `sure`, those that are not doubtful."""
        pending = [wanted for wanted in self._in("pending") if wanted not in going]
        mine = [wanted for wanted in pending if (self.rows[wanted].priority >= IN_PERSON) == urgent]
        return [wanted for wanted in mine if not (sure and self.rows[wanted].doubtful)]

    def _first(self, rows: list[int]) -> int:
        return min(rows, key=lambda wanted: (-self.rows[wanted].priority, self.rows[wanted].turn, -wanted))

    def _oldest(self, rows: list[int]) -> int:
        return min(rows, key=lambda wanted: (self.rows[wanted].listed, self.rows[wanted].turn, -wanted))

    def _add_doubtful(self, going: list[int], room: int, doubtful: int, behind: int, *, urgent: bool) -> None:
        """Those of syncs that are seldom refused first; what they leave of `behind` is for the others."""
        before = len(going)
        for put_behind in (False, True):
            while len(going) < room and len(going) - before < (behind if put_behind else doubtful):
                doubted = [each for each in self._class(going, False, urgent=urgent) if self.rows[each].doubtful]
                mine = [each for each in doubted if (self.rows[each].turn >= LAST) == put_behind]
                if not mine:
                    break
                going.append(self._first(mine))

    def promote_due(self) -> None:
        for row in self.rows.values():
            if row.state == "deferred" and row.due:
                row.put("pending")

    def rejected(self, row: Row) -> None:
        row.attempts += 1
        row.put("rejected")

    def put_off(self, row: Row, *, refused: bool) -> None:
        row.attempts += 1
        row.refusals = row.refusals + 1 if refused else 0
        if row.refusals >= REFUSED_FOR_GOOD:
            row.attempts = max(row.attempts, GIVEN_UP)
        row.turn = row.turn + TURNS_LOST if row.attempts < GIVEN_UP else row.turn % LAST + 2 * LAST
        row.put("deferred")

    @staticmethod
    def _lost_its_worker(row: Row) -> None:
        """The first time it goes on at once; then it is put off."""
        row.attempts += 1
        row.turn = row.turn + TURNS_LOST if row.attempts < GIVEN_UP else row.turn % LAST + 2 * LAST
        row.put("deferred" if row.attempts > 1 else "pending")

    def settled(self, killmail_id: int) -> None:
        del self.rows[killmail_id]
        self.stored.add(killmail_id)
        for user_id, pilot in self.pilots.items():
            if (killmail_id, pilot.character) in FOREIGN and killmail_id in pilot.links:
                pilot.links.discard(killmail_id)
                self._distrust(user_id)
                active = self.active_of(user_id)
                if active is not None and killmail_id in active[1].items:
                    active[1].found -= 1
                    active[1].foreign += 1
        for run in self.runs.values():
            run.items.discard(killmail_id)

    def _distrust(self, user_id: int) -> None:
        """A killmail of the pilot's list does not name them: it may have been another's."""
        self.pilots[user_id].complete = self.pilots[user_id].read_whole = False
        active = self.active_of(user_id)
        if active is not None:
            active[1].distrusted = True

    def taken_back(self) -> int:
        expired = [row for row in self.rows.values() if row.expired and row.state in ("sent", "fetching")]
        for row in expired:
            if row.state == "sent":
                row.put("pending")
            else:
                self._lost_its_worker(row)
        return len(expired)

    def restarted(self) -> None:
        for row in self.rows.values():
            if row.state == "sent":
                row.put("pending")
            elif row.state == "fetching":
                self._lost_its_worker(row)
        for run in self.runs.values():
            run.holder, run.expired = None, False

    # Leaving

    def unlinked(self, user_id: int) -> None:
        mine = self.pilots.pop(user_id).links
        theirs: set[int] = set().union(*(pilot.links for pilot in self.pilots.values()))
        for gone in mine - theirs:
            self.rows.pop(gone, None)
            self.stored.discard(gone)
        self.runs = {sync_id: run for sync_id, run in self.runs.items() if run.user_id != user_id}

    def _in(self, state: str) -> list[int]:
        return [wanted for wanted, row in self.rows.items() if row.state == state]

    def _want(self, run: Run, wanted: int, place: int) -> None:
        row = self.rows.setdefault(wanted, Row(run.priority, place, self.pages))
        row.priority = max(row.priority, run.priority)
        if row.refusals == 0:
            row.turn = min(row.turn, place)
        if row.given_up and run.priority >= IN_PERSON:
            self._afresh(row)
        elif row.state == "rejected" and run.full:
            row.attempts = 0
            row.put("pending")

    def _afresh(self, row: Row) -> None:
        row.attempts = 0
        if row.refusals:
            row.refusals = 1
        else:
            row.turn %= LAST
        if row.state == "deferred":
            row.put("pending")
