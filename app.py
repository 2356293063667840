"""The web application. `python app.py` serves it; without RABBITMQ_URL that process is the whole system.

`create_app` puts the parts together and holds none of its own: settings, the system behind (`api/system.py`), pages,
the API and its sockets. Under gunicorn (`app:create_app()`) every worker process makes one app.
"""

from __future__ import annotations

import settings as settings_module  # isort: skip - first: it tells a Python that is too old for the rest
import logging
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta

from flask import Flask
from peewee import PeeweeException

import accounts
import api.system
import api.transport_http
import api.transport_ws
import database
import events
import logs
import migrations
import web.auth
import web.errors
import web.filters
import web.health
import web.killmails
import web.metrics
import web.open_files
import web.pages
import web.prefix
import web.security
import web.server
import web.status
from api.hub import Hub
from api.session import SESSION_DAYS, form_token
from api.system import System
from settings import Settings, SettingsError

log = logging.getLogger(__name__)

#: How late a signal may be noticed.
SIGNAL_SECONDS = 0.2
#: The exit code at which gunicorn's master gives up: at any other it boots the next worker, at full speed, for ever.
GUNICORN_BOOT_ERROR = 3


def create_app(settings: Settings | None = None, system: System | None = None) -> Flask:
    """The WSGI application. Without arguments: for a server such as gunicorn, configured by the environment.

    With `settings`, the caller has connected the database. `system` stands in for the real one in tests.
    """
    if settings is None:
        settings = _settings_of_a_server()
    app = Flask(__name__, template_folder="web/templates", static_folder="web/static")
    prefix = web.prefix.prefix_of(settings)
    if prefix:
        app.wsgi_app = web.prefix.UnderPrefix(app.wsgi_app, prefix)  # type: ignore[method-assign]
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SESSION_COOKIE_NAME="killmail_sync",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH=prefix or "/",
        SESSION_COOKIE_SECURE=settings.eve_callback_url.startswith("https://"),
        # A slow answer must not bring back the cookie of before a login: it is sent when it changes (renew_session).
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=timedelta(days=SESSION_DAYS),
        MAX_CONTENT_LENGTH=api.transport_http.MAX_BODY,
    )
    app.extensions[api.system.EXTENSION] = system or api.system.of_this_process(settings)
    app.extensions[api.transport_ws.EXTENSION] = Hub()
    app.config["SOCK_SERVER_OPTIONS"] = api.transport_ws.SERVER_OPTIONS
    app.jinja_env.globals["form_token"] = form_token
    app.jinja_env.globals["token_state_of"] = accounts.token_state
    web.security.protect(app, settings)
    web.errors.register(app)
    web.filters.register(app)
    pages = (web.auth, web.health, web.killmails, web.metrics, web.pages, web.status)
    for module in (api.transport_http, api.transport_ws, *pages):
        app.register_blueprint(module.blueprint)
    app.teardown_appcontext(_close_connection)
    return app


def _settings_of_a_server() -> Settings:
    """Settings and connections for a process started by gunicorn or its like. Ends it if they are wrong."""
    try:
        settings = settings_module.current()
        if settings.embedded:
            raise SettingsError(
                "RABBITMQ_URL is not set: only `python app.py` may be web, workers and scheduler in one; "
                "a valid value is amqp://guest:guest@127.0.0.1:5672/%2F"
            )
        settings.require_eve_application()
        _prepare(settings)
        migrations.check()
    except (SettingsError, migrations.SchemaError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        sys.exit(GUNICORN_BOOT_ERROR)
    except database.UNAVAILABLE_ERRORS as error:
        log.warning("the database does not answer; /readyz says so until it does: %s", error)
    return settings


def _prepare(settings: Settings) -> None:
    logs.configure(settings)
    database.connect(settings.database_url)
    events.configure(settings.rabbitmq_url)


def _close_connection(_error: BaseException | None) -> None:
    """A request's connection goes back to the pool; it was opened by the first statement, if there was one."""
    if not database.db.is_closed():
        database.db.close()


def main() -> int:
    """`python app.py`: serve until SIGTERM or Ctrl-C. Returns the exit code."""
    try:
        settings = settings_module.current()
        settings.require_eve_application()
        _prepare(settings)
        web.open_files.allow()
        app = create_app(settings)
        server = web.server.bind(settings.host, settings.port, app)
        stop_system = _start_system(settings)
    except (SettingsError, migrations.SchemaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 1
    except PeeweeException as error:
        first_line = str(error).partition("\n")[0]
        print(f"error: the database failed: {first_line} (check DATABASE_URL)", file=sys.stderr)  # noqa: T201 - likewise
        return 1
    _serve(server, app.extensions[api.transport_ws.EXTENSION])
    stop_system()
    events.close()
    return 0


def _start_system(settings: Settings) -> Callable[[], None]:
    """In embedded mode, workers and scheduler; returns what stops them. Otherwise other processes are at work."""
    if not settings.embedded:
        migrations.check()
        return lambda: None
    import embedded

    try:
        return embedded.start(settings).stop
    except embedded.AlreadyRunning as error:
        raise SettingsError(str(error)) from error


def _serve(server: web.server.Server, hub: Hub) -> None:
    """Until a signal comes."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="web", daemon=True)
    thread.start()
    log.info("Listening on %s", web.server.url_of(server))
    # The system may hand the signal to any thread; Python acts on it only when this one wakes up.
    while not stop.wait(SIGNAL_SECONDS):
        pass
    hub.close_all()
    server.shutdown()
    server.server_close()


if __name__ == "__main__":
    sys.exit(main())
