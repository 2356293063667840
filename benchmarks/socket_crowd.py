"""`python -m benchmarks.socket_crowd FILE WEB_URL COOKIES`: a crowd of browsers, all of them following their killmails.

COOKIES is a JSON file with a cookie for each. Says READY when all have subscribed, then writes a line for every frame
that arrives to FILE, `killmail_id seconds`, until it is ended. One thread reads all sockets: it has to be faster than
the server, and so it looks into no frame further than the id.
"""

from __future__ import annotations

import json
import re
import selectors
import sys
import time
from pathlib import Path

import websocket

from benchmarks.asks import NEW_KILLMAIL
from benchmarks.sockets import LiveSocket

_ID = re.compile(rb'"id": "(\d+)", "killmailTime"')


def read(live: LiveSocket) -> bytes:
    """The next frame. Ends the process, saying why, when the server gives up on one of the crowd."""
    try:
        opcode, data = live.ws.recv_data()
    except (OSError, websocket.WebSocketException) as error:
        sys.exit(f"the server cut a connection: {error}")
    if opcode == websocket.ABNF.OPCODE_CLOSE:
        sys.exit(f"the server closed a socket: {data!r}")
    return bytes(data)


def main() -> None:
    output, web_url, cookies = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    ready = selectors.DefaultSelector()
    for cookie in cookies:
        live = LiveSocket(web_url, cookie)
        live.subscribe(NEW_KILLMAIL)
        live.settle()
        ready.register(live, selectors.EVENT_READ, live)
    print("READY", flush=True)
    with output.open("w", buffering=1 << 16) as lines:
        while True:
            for key, _ in ready.select(timeout=0.2):
                data = read(key.data)
                found = _ID.search(data)
                if found:
                    lines.write(f"{found[1].decode()} {time.time():.6f}\n")
            lines.flush()


if __name__ == "__main__":
    main()
