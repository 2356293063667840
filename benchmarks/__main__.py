"""`python -m benchmarks [--quick] [B1 B9 …]`: run the scripts, each in a process of its own, and write RESULTS.md.

A script that fails does not keep the others from running; its failure stands in the results and in the exit code. So
does a target that was missed stand in the results, but not in the exit code: that depends on the machine. Answers are
kept in results.json beside it, so that one script can be run again without the others.
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
RESULTS, ANSWERS = HERE / "RESULTS.md", HERE / "results.json"

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
    took = {"key": key, "quick": quick, "minutes": round((time.monotonic() - began) / 60, 1)}
    if done.returncode:
        return {"title": module, "figures": [], "failed": True, "noisy": False, "details": {}} | took
    answer: Answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    return answer | took


def results(answers: dict[str, Answer]) -> str:
    """RESULTS.md."""
    rows = [row for key in scripts() if key in answers for row in table_rows(answers[key])]
    details = [
        f"- **{key}** ({answers[key]['minutes']} min{', QUICK' if answers[key]['quick'] else ''}): "
        f"`{json.dumps(shortened(answers[key]['details']), ensure_ascii=False)}`"
        for key in scripts()
        if key in answers
    ]
    return "\n".join(
        [
            "# Results",
            "",
            f"Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}. A figure with runs is their median, or their",
            "worst where it says so; one without was taken once, over as many requests as stand below.",
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
            "`TEST_RABBITMQ_URL`, else the standard local addresses). `make bench QUICK=1` takes minutes and shows the",
            "same with fewer and smaller runs. One script alone: `python -m benchmarks.b01_first_sync`. What each",
            "measures, and how, is its first paragraph.",
            "",
            "## What was run",
            "",
            *details,
            "",
        ]
    )


def table_rows(answer: Answer) -> list[str]:
    if answer.get("failed"):
        return [f"| {answer['key']} | {answer['title']} | **failed** | | | |"]
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
    answers: dict[str, Answer] = json.loads(ANSWERS.read_text()) if options.keys and ANSWERS.exists() else {}
    for key in options.keys or known:
        answers[key] = run_script(key, known[key], options.quick)
        ANSWERS.write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n")
        RESULTS.write_text(results(answers))
    return int(any(answer.get("failed", False) for answer in answers.values()))


if __name__ == "__main__":
    sys.exit(main())
