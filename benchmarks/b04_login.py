"""B4: a pilot logs in while ten thousand background killmails are being fetched at the ceiling.

Measured from the answer to the callback (the redirect to the dashboard) until the first, and the last, of the pilot's
50 killmails is on the dashboard's WebSocket; loading the page in between is part of it.
"""

from __future__ import annotations

import time

from benchmarks import backlog
from benchmarks.asks import NEW_KILLMAIL
from benchmarks.harness import (
    LATENCY,
    OPEN_BUCKETS,
    Cluster,
    address_of,
    browser,
    new_pilot,
    rate_at_the_door,
    start_all,
    system,
)
from benchmarks.report import Figure, Report, median_of, run, worst_of
from benchmarks.sockets import LiveSocket

KILLMAILS = 50
#: Seconds between one pilot's last killmail and the next login.
PAUSE = 1.0


def measure(quick: bool) -> Report:
    logins, waiting = (4, 2_000) if quick else (20, 10_000)
    # What is fetched meanwhile comes on top: 48/s less the pilots' own.
    spare = logins * 200 + 1_000
    with system("--pilots", "0", *OPEN_BUCKETS, *LATENCY) as made:
        start_all(made)
        pilots = [new_pilot(made, KILLMAILS) for _ in range(logins)]
        backlog.build(made, waiting + spare)
        before, since = backlog.pending(made), made.simulated.last_seq()
        waits = [log_in_and_watch(made, pilot, address_of(n)) for n, pilot in enumerate(pilots)]
        after = backlog.pending(made)
        details = rate_at_the_door(made, since, "killmail")
        rate = rate_at_the_door(made, since, *backlog.COUNTED)
        most = made.simulated.stats(since)["max_in_one_second"]
    if after < waiting:
        raise RuntimeError(f"void: only {after} background killmails were left")
    firsts, lasts = [first for first, _ in waits], [last for _, last in waits]
    return Report(
        [
            median_of("first killmail, median", firsts, 1.2, "s"),
            worst_of("first killmail, worst", firsts, 1.2, "s"),
            median_of("last of 50, median", lasts, 2.5, "s"),
            worst_of("last of 50, worst", lasts, 2.5, "s"),
            Figure("fetching meanwhile", rate, 47.0, "/s", at_least=True),
            Figure("killmails alone", details, unit="/s"),
        ],
        {"logins": logins, "pending_before": before, "pending_after": after, "most_in_one_second": most},
    )


def log_in_and_watch(made: Cluster, character_id: int, address: str, killmails: int = KILLMAILS) -> tuple[float, float]:
    """Seconds from the callback's redirect to the first and to the last killmail on the socket."""
    pilot = browser(made, address)
    web, session = made.web_url, pilot.session
    to_sso = session.get(f"{web}/login", allow_redirects=False, timeout=30)
    choice = f"{to_sso.headers['Location']}&character_id={character_id}"
    to_callback = session.get(choice, allow_redirects=False, timeout=30)
    redirect = session.get(to_callback.headers["Location"], allow_redirects=False, timeout=30)
    began = time.perf_counter()
    if redirect.status_code != 302:
        raise RuntimeError(f"the login ended in {redirect.status_code}")
    session.get(f"{web}/", timeout=30)
    live = LiveSocket(web, "; ".join(f"{cookie.name}={cookie.value}" for cookie in session.cookies))
    live.subscribe(NEW_KILLMAIL, after="0")
    seen = {live.next_killmail_id()}
    first = time.perf_counter() - began
    while len(seen) < killmails:
        seen.add(live.next_killmail_id())
    last = time.perf_counter() - began
    live.close()
    time.sleep(PAUSE)
    return first, last


if __name__ == "__main__":
    run("B4", "a login while a backlog is fetched", measure)
