"""Gunicorn's configuration: `gunicorn --config web/gunicorn.py "app:create_app()"`, as supervisord.conf has it.

One worker process with a thread for every request and socket: the limits on requests and sockets are counted in the
process, and events reach every socket from one subscription. On SIGTERM sockets are closed with 1001 at once and
requests in flight get a few seconds. Nothing a client sends decides what scheme, path or user the application sees.
"""

from __future__ import annotations

import settings  # isort: skip - first: it tells a Python that is too old for the rest
import logging
import signal
import sys
import threading
from types import FrameType
from typing import Any

import events
import logs
from api.transport_ws import EXTENSION
from web import open_files
from web.server import THREADS, with_brackets

try:
    _settings = settings.current()
except settings.SettingsError as error:
    sys.exit(f"error: {error}")

bind = f"{with_brackets(_settings.host)}:{_settings.port}"
proc_name = "killmail-sync"

worker_class = "gthread"
workers = 1
#: Made when they are needed.
threads = THREADS
#: Connections taken, with and without a thread: above `threads`, so that nobody is refused for keeping one alive.
worker_connections = 1_500
#: Seconds a kept-alive connection may be idle.
keepalive = 5
#: Seconds for requests in flight after SIGTERM. Sockets need none of it: `hub.close_all` says goodbye to them.
graceful_timeout = 5

#: What a proxy on this machine passes on is a client's word: the scheme and the host are in EVE_CALLBACK_URL.
forwarded_allow_ips = ""
forwarder_headers = ""
header_map = "drop"

accesslog = None
#: A control socket would lie in the home directory, one for all systems of this user.
control_socket_disable = True


def on_starting(_server: Any) -> None:
    """Gunicorn's own lines go where ours go, in the same format; and files may be opened for every socket."""
    logs.configure(_settings)
    logger = logging.getLogger("gunicorn.error")
    logger.handlers.clear()
    logger.propagate = True
    open_files.allow()  # its workers inherit it


def post_worker_init(worker: Any) -> None:
    """On SIGTERM, tell every socket; then stop as gunicorn does."""
    hub = worker.wsgi.extensions[EXTENSION]
    stop = worker.handle_exit

    def stop_with_sockets(number: int, frame: FrameType | None) -> None:
        # Not in the signal handler itself: the thread it interrupts may hold the hub's lock.
        threading.Thread(target=hub.close_all, name="goodbye", daemon=True).start()
        stop(number, frame)

    signal.signal(signal.SIGTERM, stop_with_sockets)


def worker_exit(_server: Any, _worker: Any) -> None:
    """End the events' threads with the process."""
    events.close()
