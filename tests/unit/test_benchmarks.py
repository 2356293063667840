"""What the benchmarks conclude from what they measured: verdicts, windows, and who is owed which frame."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from graphql import build_schema, parse, validate

from benchmarks import __main__ as bench
from benchmarks import asks, b16_overload, crowd_rows, machine, overload
from benchmarks.b07_tick import ratios
from benchmarks.b11_growth import marginal
from benchmarks.b12_allowance import bursts
from benchmarks.probes import CALL, MESSAGE, STATEMENT, Probed, _count
from benchmarks.report import Figure, median_of, number, percentile, worst_of
from tests.acceptance.processes import wait_until

#: The numbers of the claims that have a script; 13 to 15 are not taken.
CLAIMS = [*range(1, 13), 16, 17, 18]


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(1.0, False, True), (1.1, False, False), (1.0, True, True), (0.9, True, False)]
)
def test_a_figure_meets_its_target_or_misses_it(value: float, at_least: bool, met: bool) -> None:
    assert Figure("ratio", value, 1.0, at_least=at_least).met is met


def test_a_figure_without_a_target_has_no_verdict() -> None:
    figure = Figure("wall", 3.0, unit="s")

    assert figure.met is None
    assert str(figure) == "wall 3 s"


def test_a_median_of_runs_is_not_their_worst() -> None:
    runs = [1.0, 9.0, 2.0]

    assert median_of("a", runs).value == 2.0
    assert worst_of("a", runs).value == 9.0


def test_ninety_nine_of_a_hundred_values_do_not_pass_the_99th_percentile() -> None:
    assert percentile([float(n) for n in range(1, 101)], 0.98) == 99.0


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (1.0, "1"), (1.0549, "1.05"), (1234.5, "1234")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_a_burst_begins_after_a_gap() -> None:
    at = [0.0, 1.0, 2.0, 60.0, 61.0, 120.0]

    assert bursts(at) == [0, 3, 5]


def test_a_syncs_own_statements_do_not_hide_what_grows_with_its_size() -> None:
    steady = {size: (500 + 14 * size) / size for size in (1_000, 10_000, 100_000)}
    growing = {size: (500 + 14 * size + size * size / 10_000) / size for size in (1_000, 10_000, 100_000)}

    assert marginal(steady) == pytest.approx(1.0)
    assert marginal(growing) > 1.5


def test_begin_and_commit_are_no_statements_and_everything_belongs_to_an_actor() -> None:
    """Given what a worker wrote down, Then statements, messages and calls are told apart and counted by actor."""
    probed = Probed()
    for kind, actor, what in [
        (STATEMENT, "sync_user", "BEGIN"),
        (STATEMENT, "sync_user", "SELECT 1"),
        (STATEMENT, "sync_user", "SELECT 1"),
        (STATEMENT, "tend_ledger", "SELECT 1"),
        (STATEMENT, "sync_user", "COMMIT"),
        (MESSAGE, "sync_user", "finalize_sync"),
        (CALL, "fetch_killmail", "settle 2500"),
    ]:
        _count(probed, kind, actor, what)

    assert probed.statements_of("sync_user") == 2
    assert probed.messages_to("finalize_sync") == 1
    assert probed.calls == {"settle": [0.0025]}


def test_each_run_is_compared_with_the_run_alone_that_belongs_to_it() -> None:
    assert ratios([6.0, 3.0], [2.0, 3.0]) == [3.0, 1.0]


@pytest.mark.parametrize("load", [1.1, 1.5])
def test_an_overload_wants_as_many_killmails_as_it_says(load: float) -> None:
    logins, background = overload.loads(load)

    assert logins == pytest.approx(15 * load)
    assert logins * (3 * 480 + 75) / 4 + background * overload.FOUND == pytest.approx(7_200 * load)


def test_background_is_overtaken_only_while_it_waits() -> None:
    """Given three killmails of a login and one of a background sync, When two of the login's are stored after the
    background one was listed, Then it was overtaken twice, and its wait is the longest of its class."""
    waits = overload.Waits()
    for killmail_id in (1, 2, 3):
        waits.listed(killmail_id, 0.0, interactive=True)
    waits.stored(1, 1.0)
    waits.listed(4, 10.0, interactive=False)
    waits.stored(2, 11.0)
    waits.stored(3, 12.0)
    waits.stored(4, 15.0)

    assert (waits.most_overtaken, waits.longest_pause) == (2, 5.0)
    assert waits.longest == {True: 12.0, False: 5.0}


def test_the_oldest_list_of_a_class_is_passed_over_only_while_it_waits_and_is_not_served() -> None:
    """Given two lists of logins and one of a background sync, When the later login is served, Then the other two are
    passed over, until one of theirs is fetched."""
    waits = overload.Waits()
    for killmail_id in (1, 2):
        waits.listed(killmail_id, 0.0, interactive=True)
    waits.listed(3, 5.0, interactive=False)
    for killmail_id in (4, 5, 6, 7):
        waits.listed(killmail_id, 10.0, interactive=True)
    for killmail_id in (4, 5, 6):
        waits.stored(killmail_id, 11.0)
    assert waits.most_passed_over == waits.passed_over == {True: 3, False: 3}

    waits.stored(1, 12.0)
    assert waits.passed_over == {True: 0, False: 4}
    waits.stored(3, 12.0)
    assert waits.passed_over == {True: 1, False: 0}
    # The later one becomes the oldest when the first one has nothing left; and of no list, none is passed over
    waits.stored(2, 13.0)
    waits.stored(7, 13.0)
    assert waits.passed_over == {True: 0, False: 0}
    assert waits.most_passed_over == {True: 3, False: 4}


def test_an_overload_breaks_the_bound_without_the_ledgers_floors_and_only_then(tmp_path: Path) -> None:
    """Given a third of an hour: the oldest list is served all the time, or in the end not at all."""
    kept = b16_overload.start(1.5, 1 / 3, tmp_path)
    (tmp_path / "without").mkdir()
    broken = b16_overload.start(1.5, 1 / 3, tmp_path / "without", overload.WITHOUT_FLOORS)
    missed = [
        {figure.what.partition(": ")[2] for figure in figures if figure.met is False}
        for figures in (b16_overload.figures_of("150%", b16_overload.answer(process)) for process in (kept, broken))
    ]
    assert "killmails in a row, none of the oldest list" not in missed[0]
    assert "killmails in a row, none of the oldest list" in missed[1]


def test_what_is_left_at_the_end_has_waited_until_then() -> None:
    waits = overload.Waits()
    waits.listed(1, 5.0, interactive=False)
    waits.end(65.0)

    assert waits.longest[False] == waits.longest_pause == 60.0


def test_of_a_second_of_storm_fifty_go_to_each_of_two_and_two_to_everybody() -> None:
    ids = crowd_rows.killmail_ids(1_000, seconds=1)
    kinds = Counter(crowd_rows.is_for_all(each, 1_000) for each in ids)

    assert kinds == {True: crowd_rows.FOR_ALL, False: 2 * crowd_rows.EACH}
    assert crowd_rows.expected_frames(1_000, 1, readers=10) == 2 * 10 + 100


def test_a_script_that_failed_stands_in_the_results() -> None:
    failed = {"key": "B1", "title": "benchmarks.b01_first_sync", "figures": [], "failed": True, "noisy": False}

    assert bench.table_rows(failed) == ["| B1 | benchmarks.b01_first_sync | **failed** | | | |"]


def test_a_script_that_was_not_run_stands_in_the_results() -> None:
    assert bench.table_rows(bench.not_measured("B1", "benchmarks.b01_first_sync")) == [
        "| B1 | benchmarks.b01_first_sync | **not measured** | | | |"
    ]


def test_every_claim_has_a_script() -> None:
    assert list(bench.scripts()) == [f"B{number}" for number in CLAIMS]


@pytest.mark.parametrize(
    ("ask", "last_field"),
    [
        (asks.PAGE, "faction { id name }"),
        (asks.NEW_KILLMAIL, "faction { id name }"),
        (asks.SYNC_PROGRESS, "finishedAt"),
    ],
    ids=["page", "new_killmail", "sync_progress"],
)
def test_what_the_benchmarks_ask_for_is_what_the_dashboard_asks_for(ask: str, last_field: str) -> None:
    """Given the texts of the dashboard's scripts, Then they are whole, and the schema knows all their fields."""
    schema = build_schema(Path("schema.graphql").read_text(encoding="utf-8"))

    assert validate(schema, parse(ask)) == []
    assert last_field in ask


def measured_on(*lines: str) -> bench.Answer:
    return {"machine": list(lines)}


def test_the_machine_is_told_once_where_there_is_one() -> None:
    answers = {"B1": measured_on("2 processors", "Linux"), "B2": measured_on("2 processors", "Linux")}

    assert bench.machine_lines(answers) == ["- 2 processors", "- Linux"]


def test_what_was_measured_elsewhere_is_told_apart() -> None:
    answers = {"B1": measured_on("new"), "B2": measured_on("old"), "B3": measured_on("new")}

    assert bench.machine_lines(answers) == ["- B1, B3:", "  - new", "- B2:", "  - old"]


def test_a_failure_does_not_take_the_place_of_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"B1": {"key": "B1", "date": "2026-11-01", "figures": [], "title": "a", "noisy": False}}
    (tmp_path / "results.json").write_text(json.dumps(found))
    monkeypatch.setattr(machine, "lines", lambda: ["here"])
    monkeypatch.setattr(bench, "run_script", lambda key, module, quick: {"key": key, "failed": True})

    assert bench.run_all(["B1"], tmp_path, quick=True) == 1
    assert json.loads((tmp_path / "results.json").read_text()) == found


INTERRUPTED = """
import signal, sys
from benchmarks import __main__ as bench
signal.signal(signal.SIGINT, signal.default_int_handler)
bench.output_of([sys.executable, "-c", sys.argv[1], *sys.argv[2:]])
"""
CLEANS_UP = """
import pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(60)
finally:
    time.sleep(1.0)
    pathlib.Path(sys.argv[2]).touch()
"""


def test_an_interrupted_script_is_told_once_and_waited_for(tmp_path: Path) -> None:
    """Given a script that takes a while to clean up, When Ctrl-C is pressed, Then it has before anything ends."""
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"
    command = [sys.executable, "-c", INTERRUPTED, CLEANS_UP, str(begun), str(cleaned)]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True)
    wait_until(begun.exists, "it runs", 20)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=20)

    assert cleaned.exists()
    assert said.startswith("interrupted")


@pytest.mark.parametrize(
    ("server", "name"),
    [("postgres.SERVER", "TEST_DATABASE_URL"), ("rabbitmq.SERVER", "TEST_RABBITMQ_URL")],
    ids=["postgresql", "rabbitmq"],
)
def test_a_server_that_is_away_is_told_before_anything_is_run(
    server: str, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scheme = "postgresql://127.0.0.1:1/none" if "postgres" in server else "amqp://127.0.0.1:1/%2F"
    monkeypatch.setattr(f"tests.{server}", scheme)
    if "rabbitmq" in server:
        monkeypatch.setattr(machine, "_postgresql", lambda: "here")

    with pytest.raises(machine.ServerAwayError, match=name):
        bench.run_all(["B1"], tmp_path / "never", quick=True)
    assert not (tmp_path / "never").exists()
