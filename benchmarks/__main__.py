"""`python -m benchmarks [--quick] [B1 B9 …]`: run the scripts, each in a process of its own, and write RESULTS.md.

A script that fails does not keep the others from running, nor takes the place of what it found before; its failure
stands in the exit code. A target that was missed stands in the results, but not in the exit code: that depends on the
machine. Answers are kept in results.json beside it, with the commit and the machine they belong to, so that one script
can be run again without the others; what was missed and why is written by hand, in NOTES.md. The quick form measures
less and proves less: its results are kept apart, in var/benchmarks.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

HERE = Path(__file__).parent
NOTES = HERE / "NOTES.md"
QUICK = HERE.parent / "var" / "benchmarks"
#: Seconds a script that is interrupted has to end what it started: processes, databases, virtual hosts.
CLEAN_UP_SECONDS = 90

Answer = dict[str, Any]


def scripts() -> dict[str, str]:
    """`B1` and the module that measures it, in order."""
    names = sorted(path.stem for path in HERE.glob("b[0-9][0-9]_*.py"))
    return {f"B{int(name[1:3])}": f"benchmarks.{name}" for name in names}


def run_script(key: str, module: str, quick: bool) -> Answer:
    """The script's JSON line, with how long it took; or a failure."""
    print(f"{key}: {module} …", file=sys.stderr, flush=True)
    began, measured = time.monotonic(), commit()
    returncode, output = output_of([sys.executable, "-m", module, *(["--quick"] if quick else [])])
    took = {
        "key": key, "quick": quick, "minutes": round((time.monotonic() - began) / 60, 1),
        "commit": measured if commit() == measured else f"{measured}, changed meanwhile",
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine.lines(),
    }  # fmt: skip
    if returncode:
        return {"title": module, "figures": [], "failed": True, "noisy": False, "details": {}} | took
    answer: Answer = json.loads(output.strip().rpartition("\n")[2])
    return answer | took


def output_of(command: list[str]) -> tuple[int, str]:
    """Run it; its exit code and what it printed. Interrupted, it is told once and waited for: else what it started
    would run on."""
    # In a session of its own: a terminal's Ctrl-C would reach it as well, and the second one while it cleans up.
    script = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = script.communicate()
    except KeyboardInterrupt:
        print("interrupted; ending what it started …", file=sys.stderr, flush=True)
        script.send_signal(signal.SIGINT)
        try:
            script.communicate(timeout=CLEAN_UP_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"it is still at it, as process {script.pid}", file=sys.stderr)
        raise
    return script.returncode, output


def results(answers: dict[str, Answer]) -> str:
    """RESULTS.md."""
    rows = [row for key, module in scripts().items() for row in table_rows(answers.get(key, not_measured(key, module)))]
    details = [run_line(answers[key]) for key in scripts() if key in answers]
    quick = any(answer["quick"] for answer in answers.values())
    return "\n".join(
        [
            "# Results",
            "",
            "Written by `make bench`. A figure with runs is their median, or their worst or slowest where it says so;",
            "one without was taken once, over as many requests as stand below, or from the medians of several runs.",
            *(["", "**Of the quick form: fewer and smaller runs than the names of the rows say.**"] if quick else []),
            "",
            "| | figure | measured | target | | runs |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "Figures without a target are there for orientation: absolute times belong to the machine.",
            "",
            "## Machine",
            "",
            *machine_lines(answers),
            "",
            "## How to repeat",
            "",
            "`make bench`, on an idle machine with PostgreSQL and RabbitMQ (`TEST_DATABASE_URL` and",
            "`TEST_RABBITMQ_URL`, else the standard local addresses); nearly two hours, half of them for B11.",
            "`make bench QUICK=1` takes some ten minutes, runs less and smaller, and writes to `var/benchmarks`:",
            "what is spent once weighs more there, so that B1, B2 and B8's memory may miss. One script alone:",
            "`.venv/bin/python -m benchmarks B1`. What each measures, and how, is its first paragraph. All figures,",
            "and what they rest on, are in `results.json`.",
            "",
            "## What was run",
            "",
            *details,
            "",
            *([] if quick else [NOTES.read_text()]),
        ]
    )


def machine_lines(answers: dict[str, Answer]) -> list[str]:
    """The machine; or the machines, and what was measured on each."""
    measured_on: dict[tuple[str, ...], list[str]] = {}
    for key in scripts():
        if key in answers:
            measured_on.setdefault(tuple(answers[key].get("machine", ["unknown"])), []).append(key)
    if len(measured_on) == 1:
        return [f"- {line}" for lines in measured_on for line in lines]
    rows = []
    for lines, keys in measured_on.items():
        rows += [f"- {', '.join(keys)}:", *(f"  - {line}" for line in lines)]
    return rows


def commit() -> str:
    """What was measured: the commit, and whether anything but results was changed since."""
    head = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--", ":/", ":!RESULTS.md", ":!results.json", ":!NOTES.md")
    return f"{head}, changed" if changed else head or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def not_measured(key: str, module: str) -> Answer:
    return {"key": key, "title": module, "figures": [], "absent": True}


def run_line(answer: Answer) -> str:
    """When and on what a script was run, and what its figures rest on."""
    told = [f"{answer['minutes']} min", answer["date"], f"commit {answer['commit']}"]
    if "stolen" in answer:  # not where it failed
        told += [f"{answer['busy_before']:.1%} busy before", f"{answer['stolen']:.1%} of the processors taken away"]
    details = json.dumps(shortened(answer["details"]), ensure_ascii=False)
    return f"- **{answer['key']}** ({', '.join(told)}): `{details}`"


def table_rows(answer: Answer) -> list[str]:
    if answer.get("failed"):
        return [f"| {answer['key']} | {answer['title']} | **failed** | | | |"]
    if answer.get("absent"):
        return [f"| {answer['key']} | {answer['title']} | **not measured** | | | |"]
    noisy = " (machine not idle)" if answer["noisy"] else ""
    rows = [f"| **{answer['key']}** | **{answer['title']}**{noisy} | | | | |"]
    for figure in answer["figures"]:
        verdict = {None: "", True: "met", False: "**missed**"}[figure["met"]]
        runs = ", ".join(f"{value:.4g}" for value in figure["runs"])
        measured = f"{figure['value']:.4g} {figure['unit']}".strip()
        rows.append(f"| | {figure['what']} | {measured} | {figure['bound']} | {verdict} | {runs} |")
    return rows


def shortened(details: Answer) -> Answer:
    """Without the tables: they stand in results.json."""
    return {name: value for name, value in details.items() if not isinstance(value, dict) or len(value) <= 4}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the claims; write RESULTS.md.")
    parser.add_argument("keys", nargs="*", metavar="B1", help="only these; the others keep their last results")
    parser.add_argument("--quick", action="store_true", default=os.environ.get("QUICK") == "1")
    options = parser.parse_args()
    known = scripts()
    if unknown := set(options.keys) - known.keys():
        parser.error(f"no such script: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    try:
        with alone():
            return run_all(options.keys or list(known), QUICK if options.quick else HERE, options.quick)
    except machine.ServerAwayError as away:
        sys.exit(f"error: {away}")
    except KeyboardInterrupt:
        return 130


def run_all(keys: list[str], directory: Path, quick: bool) -> int:
    """Run these scripts and write down what each found; 1 if one failed. Raises machine.ServerAwayError."""
    machine.lines()  # before anything is begun
    directory.mkdir(parents=True, exist_ok=True)
    kept, failed = directory / "results.json", 0
    answers: dict[str, Answer] = json.loads(kept.read_text()) if kept.exists() else {}
    for key in keys:
        answer = run_script(key, scripts()[key], quick)
        if answer.get("failed"):
            failed = 1
            if key in answers:
                print(f"{key} failed; what it found on {answers[key]['date']} is kept", file=sys.stderr)
                continue
        answers[key] = answer
        kept.write_text(json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        (directory / "RESULTS.md").write_text(results(answers))
    print(f"written to {directory / 'RESULTS.md'}", file=sys.stderr)
    return failed


@contextmanager
def alone() -> Iterator[None]:
    """Two at once would measure each other: exits where benchmarks of this checkout run already."""
    QUICK.mkdir(parents=True, exist_ok=True)
    with (QUICK / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("error: benchmarks are running already")
        yield


if __name__ == "__main__":
    sys.exit(main())
