"""`python -m benchmarks [--quick] [B1 B9 …]`: run the scripts, each in a process of its own, and write RESULTS.md.

A script that fails does not keep the others from running; its failure stands in the results and in the exit code. So
does a target that was missed stand in the results, but not in the exit code: that depends on the machine. Answers are
kept in results.json beside it, with the commit they belong to, so that one script can be run again without the others;
what was missed and why is written by hand, in NOTES.md. The quick form measures less and proves less: its results are
kept apart, in var/benchmarks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine

HERE = Path(__file__).parent
NOTES = HERE / "NOTES.md"

Answer = dict[str, Any]


def scripts() -> dict[str, str]:
    """`B1` and the module that measures it, in order."""
    names = sorted(path.stem for path in HERE.glob("b[0-9][0-9]_*.py"))
    return {f"B{int(name[1:3])}": f"benchmarks.{name}" for name in names}


def run_script(key: str, module: str, quick: bool) -> Answer:
    """The script's JSON line, with how long it took; or a failure."""
    print(f"{key}: {module} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", module, *(["--quick"] if quick else [])]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, check=False)
    took = {
        "key": key, "quick": quick, "minutes": round((time.monotonic() - began) / 60, 1),
        "commit": commit(), "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }  # fmt: skip
    if done.returncode:
        return {"title": module, "figures": [], "failed": True, "noisy": False, "details": {}} | took
    answer: Answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    return answer | took


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
            *(f"- {line}" for line in machine.lines()),
            "",
            "## How to repeat",
            "",
            "`make bench`, on an idle machine with PostgreSQL and RabbitMQ (`TEST_DATABASE_URL` and",
            "`TEST_RABBITMQ_URL`, else the standard local addresses). `make bench QUICK=1` takes minutes, runs less",
            "and smaller, and writes to `var/benchmarks`. One script alone: `python -m benchmarks B1`. What each",
            "measures, and how, is its first paragraph. All figures, and what they rest on, are in `results.json`.",
            "",
            "## What was run",
            "",
            *details,
            "",
            *([] if quick else [NOTES.read_text()]),
        ]
    )


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
        runs = ", ".join(f"{value:.3g}" for value in figure["runs"])
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
    directory = HERE.parent / "var" / "benchmarks" if options.quick else HERE
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / "results.json"
    answers: dict[str, Answer] = json.loads(kept.read_text()) if kept.exists() else {}
    wanted = options.keys or list(known)
    for key in wanted:
        answers[key] = run_script(key, known[key], options.quick)
        kept.write_text(json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
        (directory / "RESULTS.md").write_text(results(answers))
    print(f"written to {directory / 'RESULTS.md'}", file=sys.stderr)
    return int(any(answers[key].get("failed", False) for key in wanted))


if __name__ == "__main__":
    sys.exit(main())
