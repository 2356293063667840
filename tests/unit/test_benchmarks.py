"""What the benchmarks conclude from what they measured: verdicts, windows, and who is owed which frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from graphql import build_schema, parse, validate

from benchmarks import __main__ as bench
from benchmarks import asks, crowd_rows
from benchmarks.b11_growth import marginal
from benchmarks.b12_allowance import bursts
from benchmarks.probes import CALL, MESSAGE, STATEMENT, Probed, _count
from benchmarks.report import Figure, median_of, number, percentile, worst_of


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
    assert list(bench.scripts()) == [f"B{number}" for number in range(1, 13)]


@pytest.mark.parametrize("ask", [asks.PAGE, asks.NEW_KILLMAIL], ids=["page", "new_killmail"])
def test_what_the_benchmarks_ask_for_is_what_the_dashboard_asks_for(ask: str) -> None:
    """Given the rows of the dashboard's script, Then they stand in the ask, and the schema knows them all."""
    schema = build_schema(Path("schema.graphql").read_text(encoding="utf-8"))

    assert validate(schema, parse(ask)) == []
    assert "securityStatus" in ask
    assert "faction { id name }" in ask
