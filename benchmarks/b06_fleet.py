"""B6: what a fleet costs ESI: twenty users who all list the same 500 killmails log in at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.harness import address_of, browser, start_all, system
from benchmarks.report import FULL_RUNS, Report, run, worst_of

USERS, KILLMAILS = 20, 500


def measure(quick: bool) -> Report:
    repeats = [repeat() for _ in range(1 if quick else FULL_RUNS)]
    return Report(
        [worst_of("detail requests ÷ distinct killmails", [ratio for ratio, _ in repeats], 1.0)],
        {"users": USERS, "killmails": KILLMAILS, "syncs_saved_plus_skipped": [counted for _, counted in repeats]},
    )


def repeat() -> tuple[float, int]:
    """Detail requests (of any outcome) for each killmail, and how many references the syncs accounted for."""
    with system(str(USERS), str(KILLMAILS), module="benchmarks.shared_fleet") as made:
        start_all(made)
        with ThreadPoolExecutor(USERS) as at_once:
            logins = [
                at_once.submit(browser(made, address_of(number)).log_in, character_id)
                for number, character_id in enumerate(made.simulated.truth())
            ]
            for login in logins:
                login.result()
        made.wait_for_syncs()
        details = made.simulated.requests(route="killmail")
        distinct = {entry["killmail_id"] for entry in details}
        counted = made.scalar("SELECT SUM(saved + skipped) FROM syncs")
    if len(distinct) != KILLMAILS or counted != USERS * KILLMAILS:
        raise RuntimeError(f"void: {len(distinct)} killmails fetched, {counted} references accounted for")
    return len(details) / len(distinct), int(counted)


if __name__ == "__main__":
    run("B6", "twenty users sharing 500 killmails", measure)
