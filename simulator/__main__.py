"""The command line: `python -m simulator`. Says where it listens, and stops on SIGTERM or Ctrl-C."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simulator import server
from simulator.config import DEFAULT_LIMITS, Config, milliseconds
from simulator.faults import KINDS, Fault
from simulator.request_log import ROUTES
from simulator.rules import Limit

_EPILOG = f"""
faults: comma-separated route=, kind=, and rate= (0-1), count=, page=, killmail_id=, seconds=,
  character_id= (only what concerns it), other_id= (of foreign_list), lasts= (seconds); route=recent is the
  killmail list, route=refresh the token endpoint when it refreshes
  routes  any {" ".join(sorted(ROUTES))}
  kinds   status:NNN {" ".join(KINDS)}

while it runs, under /_simulator/ on the same port (JSON): GET truth, stats, requests; POST and DELETE faults;
POST settings, characters, characters/ID/killmails, …: simulator/control_routes.py lists all
"""


def _arguments() -> argparse.ArgumentParser:
    default = Config()
    parser = argparse.ArgumentParser(
        prog="python -m simulator",
        description="ESI and EVE SSO on localhost, with their rules enforced.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default=default.host)
    parser.add_argument("--port", type=int, default=default.port, help="0 takes a free one (default)")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--pilots", type=int, default=default.pilots)
    parser.add_argument("--killmails-count", type=int, default=default.killmail_count, metavar="N")
    parser.add_argument("--shared", type=float, default=default.shared_fraction, help="part in two lists, 0-1")
    parser.add_argument("--attackers", type=int, default=default.attackers, help="mean of a fleet fight")
    parser.add_argument("--items", type=int, default=default.items, help="mean of a loss")
    parser.add_argument("--hostile-names", action="store_true", help="names that try to break pages")
    parser.add_argument("--killmails", type=Path, metavar="DIR", help="serve these files instead")
    parser.add_argument("--limit", type=_group_limit, action="append", default=[], metavar="GROUP=240/1m")
    parser.add_argument("--error-limit", type=_limit, default=default.error_limit, metavar="100/1m")
    parser.add_argument("--cache-seconds", type=float, default=default.cache_seconds)
    parser.add_argument("--token-seconds", type=float, default=default.token_seconds)
    parser.add_argument("--page-size", type=int, default=default.page_size)
    parser.add_argument("--latency-ms", type=milliseconds, default=default.latency_ms, metavar="LOW-HIGH")
    parser.add_argument("--client-id", default=default.client_id)
    parser.add_argument("--client-secret", default=default.client_secret)
    parser.add_argument("--callback", action="append", default=[], metavar="URL", help="default: any loopback")
    parser.add_argument("--rotate-refresh-tokens", action="store_true")
    parser.add_argument("--fault", type=_fault, action="append", default=[], metavar="route=R,kind=K,rate=P")
    parser.add_argument("--quiet", action="store_true", help="do not say where it listens")
    return parser


def _limit(text: str) -> str:
    with _told():
        return Limit.parse(text).text


def _group_limit(text: str) -> tuple[str, str]:
    group, _, limit = text.partition("=")
    if group not in DEFAULT_LIMITS:
        raise argparse.ArgumentTypeError(f"no group {group!r}; there are {', '.join(DEFAULT_LIMITS)}")
    return group, _limit(limit)


def _fault(text: str) -> dict[str, object]:
    with _told():
        return {key: value for key, value in vars(Fault.of_text(text)).items() if key not in ("hits", "ends_at")}


@contextmanager
def _told() -> Iterator[None]:
    """argparse repeats the words of no other exception."""
    try:
        yield
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _config(options: argparse.Namespace) -> Config:
    return Config(
        host=options.host,
        port=options.port,
        seed=options.seed,
        pilots=options.pilots,
        killmail_count=options.killmails_count,
        shared_fraction=options.shared,
        attackers=options.attackers,
        items=options.items,
        hostile_names=options.hostile_names,
        killmails_dir=options.killmails,
        limits=dict(options.limit),
        error_limit=options.error_limit,
        cache_seconds=options.cache_seconds,
        token_seconds=options.token_seconds,
        page_size=options.page_size,
        latency_ms=options.latency_ms,
        client_id=options.client_id,
        client_secret=options.client_secret,
        callbacks=tuple(options.callback),
        rotate_refresh_tokens=options.rotate_refresh_tokens,
        faults=tuple(options.fault),
    )


def main() -> int:
    """Run until a signal comes. Returns the exit status."""
    options = _arguments().parse_args()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        running = server.start(_config(options))
    except (OSError, ValueError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 1
    if not options.quiet:
        print(f"simulator listening on {running.url}", flush=True)
    stopping.wait()
    running.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
