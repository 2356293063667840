"""`python -m benchmarks.socket_crowd FILE WEB_URL COOKIES`: a crowd of browsers, each a dashboard that is open.

COOKIES is a JSON file with a cookie for each. Says READY when all have subscribed, then writes a line for every frame
that arrives to FILE, `reader killmail_id seconds`, until it is ended. One thread reads all sockets: it has to be faster
than the server, whose core it shares, and so it takes whatever has come in one call and looks into no frame further
than the id.
"""

from __future__ import annotations

import json
import re
import selectors
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import websocket

from benchmarks.sockets import LiveSocket

_ID = re.compile(rb'"id": "(\d+)", "killmailTime"')
#: Of a frame's first byte, and of the lengths that say "in the next bytes" (RFC 6455, 5.2).
_OPCODE, _TWO_BYTES, _EIGHT_BYTES = 0x0F, 126, 127


class Watched:
    """A subscribed socket, read frame by frame."""

    def __init__(self, number: int, live: LiveSocket) -> None:
        self.number = number
        self.live = live
        assert live.ws.sock is not None
        self._raw = live.ws.sock
        self._buffer = b""

    def frames(self) -> Iterator[bytes]:
        """What has come, whole frames only. Ends the process, saying why, when the server gives up on one of them."""
        data = self._raw.recv(1 << 16)
        if not data:
            sys.exit("the server cut a connection")
        self._buffer += data
        while (end := _end_of_frame(self._buffer)) is not None:
            opcode, frame, self._buffer = self._buffer[0] & _OPCODE, self._buffer[:end], self._buffer[end:]
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                sys.exit(f"the server closed a socket: {frame!r}")
            if opcode == websocket.ABNF.OPCODE_PING:
                self.live.ws.pong()
            else:
                yield frame


def _end_of_frame(data: bytes) -> int | None:
    """The length of the first frame of a server, which masks nothing; None: not all of it is here."""
    if len(data) < 2:
        return None
    length, head = data[1], 2
    if length in (_TWO_BYTES, _EIGHT_BYTES):
        head = 4 if length == _TWO_BYTES else 10
        length = int.from_bytes(data[2:head])
    end = head + length
    return end if head <= len(data) and end <= len(data) else None


def main() -> None:
    output, web_url, cookies = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
    ready = selectors.DefaultSelector()
    for number, cookie in enumerate(cookies):
        live = LiveSocket(web_url, cookie)
        live.follow()
        ready.register(live, selectors.EVENT_READ, Watched(number, live))
    print("READY", flush=True)
    with output.open("w", buffering=1 << 16) as lines:
        while True:
            for key, _ in ready.select(timeout=0.2):
                for frame in key.data.frames():
                    found = _ID.search(frame)
                    if found:
                        lines.write(f"{key.data.number} {found[1].decode()} {time.time():.6f}\n")
            lines.flush()


if __name__ == "__main__":
    main()
