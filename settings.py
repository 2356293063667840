"""Settings: one frozen dataclass, read once from the environment and `.env`, validated before anything starts.

A value that is missing or malformed ends the process with one line that names the setting and shows a valid
value; nothing later has to ask whether a setting makes sense. Secrets are masked in `repr` and never logged.
`.env.example` lists all settings with their defaults. Entry points import this module before the rest
of ours, so that a Python that is too old is told so, and not by a traceback.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - here and not in `load`: an older Python cannot even import what follows
    sys.exit("error: Python 3.11 or newer is needed, this is " + sys.version.split()[0])

import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from cryptography.fernet import Fernet
from dotenv.parser import parse_stream

#: The repository. Relative paths in settings start here, not where the user happens to stand.
ROOT = Path(__file__).resolve().parent
VAR = ROOT / "var"

REGISTER_AT = "https://developers.eveonline.com"
KILLMAIL_SCOPE = "esi-killmails.read_killmails.v1"
DEFAULT_ESI = "https://esi.evetech.net"
DEFAULT_SSO = "https://login.eveonline.com"
DEFAULT_COMPATIBILITY_DATE = "2026-08-18"
FIRST_COMPATIBILITY_DATE = date(2020, 1, 1)
#: UTC. ESI refuses a date that has not come yet (ESI docs: overview).
COMPATIBILITY_DAY_BEGINS = timedelta(hours=11)
DEFAULT_PORT = 8000
CALLBACK_PATH = "/auth/callback"
DEFAULT_CALLBACK = f"http://127.0.0.1:{DEFAULT_PORT}{CALLBACK_PATH}"

#: For RETURNING. (Python 3.11, above, is for `datetime.UTC` and exception notes.)
MINIMUM_SQLITE = (3, 35, 0)

#: What may follow `?` in a PostgreSQL address: how the connection is secured, and to which server it goes.
POSTGRESQL_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "target_session_attrs", "gssencmode")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS = ("console", "json")

T = TypeVar("T")
Network = IPv4Network | IPv6Network


class SettingsError(ValueError):
    """A setting is missing or malformed. The text is one line, fit to be shown to whoever starts the process."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the environment decides. Times are in the unit the name says."""

    database_url: str = field(repr=False)
    rabbitmq_url: str | None = field(repr=False)
    esi_url: str
    sso_url: str
    eve_client_id: str
    eve_client_secret: str = field(repr=False)
    eve_callback_url: str
    eve_client_scopes: tuple[str, ...]
    esi_compatibility_date: str
    esi_contact: str
    esi_requests_per_second: float
    secret_key: str = field(repr=False)
    token_keys: tuple[str, ...] = field(repr=False)
    sync_cooldown_minutes: int
    sync_max_pages: int
    schedule_minutes: int
    graphql_explorer: bool
    host: str
    port: int
    trusted_proxies: tuple[Network, ...]
    log_level: str
    log_format: str

    @property
    def embedded(self) -> bool:
        """One process is the whole system: no broker was named."""
        return self.rabbitmq_url is None

    @property
    def user_agent(self) -> str:
        contact = self.esi_contact or "contact not configured"
        return f"killmail-sync/1.0 ({contact})"

    def require_eve_application(self) -> None:
        """Raise SettingsError unless an EVE application is configured; called by what talks to the SSO."""
        if not self.eve_client_id:
            raise SettingsError(
                f"EVE_CLIENT_ID is not set: register an application at {REGISTER_AT} with the callback "
                f"{self.eve_callback_url} and the scope {' '.join(self.eve_client_scopes)}, and put its Client ID "
                "into .env as EVE_CLIENT_ID=…"
            )
        if not self.eve_client_secret:
            raise SettingsError(
                "EVE_CLIENT_SECRET is not set: copy the application's Secret Key from "
                f"{REGISTER_AT} into .env as EVE_CLIENT_SECRET=…"
            )


#: The names of all settings, as they stand in the environment.
NAMES = tuple(each.name.upper() for each in fields(Settings))


@cache
def current() -> Settings:
    """The settings of this process, read on the first call. Raises SettingsError."""
    return load()


def load(environ: Mapping[str, str] | None = None, env_file: Path = ROOT / ".env") -> Settings:
    """Read and validate all settings. What is in `environ` wins over `env_file`; empty or blank means the default.

    Raises SettingsError for the first setting that is wrong.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise SettingsError(f"SQLite 3.35 or newer is needed (RETURNING), this is {sqlite3.sqlite_version}")
    given = {**_read_env_file(env_file), **(os.environ if environ is None else environ)}
    source = {name: value.strip() for name, value in given.items() if name in NAMES and value.strip()}

    def read(name: str, default: str, parse: Callable[[str, str], T]) -> T:
        return parse(name, source.get(name, default))

    rabbitmq_url = read("RABBITMQ_URL", "", _broker_url)
    embedded = rabbitmq_url is None
    return Settings(
        database_url=read("DATABASE_URL", "sqlite:///var/killmails.db", _database_url),
        rabbitmq_url=rabbitmq_url,
        esi_url=read("ESI_URL", DEFAULT_ESI, _http_url),
        sso_url=read("SSO_URL", DEFAULT_SSO, _http_url),
        eve_client_id=read("EVE_CLIENT_ID", "", _word),
        eve_client_secret=read("EVE_CLIENT_SECRET", "", _word),
        eve_callback_url=read("EVE_CALLBACK_URL", DEFAULT_CALLBACK, _callback_url),
        eve_client_scopes=read("EVE_CLIENT_SCOPES", KILLMAIL_SCOPE, _scopes),
        esi_compatibility_date=read("ESI_COMPATIBILITY_DATE", DEFAULT_COMPATIBILITY_DATE, _date),
        esi_contact=read("ESI_CONTACT", "", _header_text),
        esi_requests_per_second=read("ESI_REQUESTS_PER_SECOND", "50", _requests_per_second),
        secret_key=_secret("SECRET_KEY", source, embedded, lambda: secrets.token_urlsafe(48), _secret_key),
        token_keys=_secret("TOKEN_KEYS", source, embedded, lambda: Fernet.generate_key().decode(), _token_keys),
        sync_cooldown_minutes=read("SYNC_COOLDOWN_MINUTES", "15", _integer(5, 7 * 24 * 60, 15)),
        sync_max_pages=read("SYNC_MAX_PAGES", "50", _integer(1, 1000, 50)),
        schedule_minutes=read("SCHEDULE_MINUTES", "10", _divides_an_hour),
        graphql_explorer=read("GRAPHQL_EXPLORER", "0", _flag),
        host=read("HOST", "127.0.0.1", _word),
        port=read("PORT", str(DEFAULT_PORT), _integer(0, 65535, DEFAULT_PORT)),
        trusted_proxies=read("TRUSTED_PROXIES", "127.0.0.1,::1", _networks),
        log_level=read("LOG_LEVEL", "INFO", _one_of(LOG_LEVELS, str.upper, "INFO")),
        log_format=read("LOG_FORMAT", "console", _one_of(LOG_FORMATS, str.lower, "console")),
    )


def _read_env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines, as they stand: `$` and `{` in a password are themselves. No file, no settings."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8") as lines:
            bindings = list(parse_stream(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path.name} cannot be read: {_reason(error)}") from None
    for binding in bindings:
        if binding.error:
            raise SettingsError(f"{path.name}, line {binding.original.line}, is not NAME=value")
    return {binding.key: binding.value or "" for binding in bindings if binding.key}


def _reason(error: Exception) -> str:
    """Why, without what: the content of a file may be a secret."""
    return (isinstance(error, OSError) and error.strerror) or "it is not UTF-8 text"


def _wrong(name: str, problem: str, example: str) -> SettingsError:
    return SettingsError(f"{name} {problem}; a valid value is {example}")


def _database_url(name: str, value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme == "sqlite":
        path = rest.removeprefix("/")
        if not path or path == ":memory:" or path.endswith("/") or "?" in path:
            raise _wrong(name, "must name a file: every process and thread opens it", "sqlite:///var/killmails.db")
        return f"sqlite:///{ROOT / path}"
    if scheme in ("postgresql", "postgres"):
        return _postgresql_url(name, "postgresql" + value[len(scheme) :])
    example = "postgresql://user:password@127.0.0.1/killmails or sqlite:///var/killmails.db"
    raise _wrong(name, "is not a database address", example)


def _postgresql_url(name: str, value: str) -> str:
    example = "postgresql://user:password@127.0.0.1/killmails (%2F for a / in the password, %40 for an @)"
    parts = _split(value)
    # A password with a bare / or # ends up in the path or behind it: it must not reach a message of the server.
    if parts is None or not parts.path.strip("/") or re.search(r"[/@\s]", parts.path[1:]) or parts.fragment:
        raise _wrong(name, "names no PostgreSQL database", example)
    unknown = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True) if key not in POSTGRESQL_OPTIONS]
    if unknown:
        raise _wrong(name, f"may end in no options but {', '.join(POSTGRESQL_OPTIONS)}", f"{example}?sslmode=require")
    return value


def _broker_url(name: str, value: str) -> str | None:
    if not value:
        return None
    parts = _split(value)
    if parts is None or parts.scheme not in ("amqp", "amqps") or not parts.hostname or parts.fragment:
        raise _wrong(name, "is not a RabbitMQ address", "amqp://guest:guest@127.0.0.1:5672/%2F")
    return value


def _http_url(name: str, value: str) -> str:
    example = {"EVE_CALLBACK_URL": DEFAULT_CALLBACK, "SSO_URL": DEFAULT_SSO}.get(name, DEFAULT_ESI)
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong(name, "is not an http(s) address", example)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise _wrong(name, "must have no user, query or fragment", example)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme == "http" and not local and name != "EVE_CALLBACK_URL":
        raise _wrong(name, "must be https: tokens travel there", example)
    return urlunsplit(parts).rstrip("/")  # with the scheme in lower case


def _callback_url(name: str, value: str) -> str:
    url = _http_url(name, value)
    # The SSO compares it as it stands: a slash at the end is another address. A path before it is web/prefix.py's.
    if not re.fullmatch(rf"(/[\w~-][\w.~-]*)*{CALLBACK_PATH}", urlsplit(value).path, re.ASCII):
        raise _wrong(name, f"must end in {CALLBACK_PATH}, where this application answers", DEFAULT_CALLBACK)
    return url


def _split(value: str) -> SplitResult | None:
    """The parts of an address, or None where it has no such parts: white space, a port that is no number."""
    try:
        parts = urlsplit(value)
        usable = parts.port != 0 and not re.search(r"[^!-~]", value)
    except ValueError:
        return None
    return parts if usable else None


def _word(name: str, value: str) -> str:
    if re.search(r"[^!-~]", value):
        raise _wrong(name, "must be one word of ASCII characters", "127.0.0.1" if name == "HOST" else "abc123")
    return value


def _networks(name: str, value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(each.strip()) for each in value.split(","))
    except ValueError:
        raise _wrong(name, "must be addresses or networks separated by commas", "127.0.0.1,::1") from None


def _header_text(name: str, value: str) -> str:
    if not value.isprintable() or not value.isascii() or len(value) > 200:
        raise _wrong(name, "must be printable ASCII of at most 200 characters", "you@example.com")
    return value


def _scopes(name: str, value: str) -> tuple[str, ...]:
    scopes = tuple(dict.fromkeys(value.split()))
    if not all(re.fullmatch(r"[\w.-]+", scope) for scope in scopes):
        raise _wrong(name, "must be scopes separated by spaces", KILLMAIL_SCOPE)
    if KILLMAIL_SCOPE not in scopes:
        raise _wrong(name, "lacks the scope killmails are listed with", KILLMAIL_SCOPE)
    return scopes


def _date(name: str, value: str) -> str:
    try:
        asked = date.fromisoformat(value)
        today = (datetime.now(UTC) - COMPATIBILITY_DAY_BEGINS).date()
        usable = asked.isoformat() == value and FIRST_COMPATIBILITY_DATE <= asked <= today
    except ValueError:
        usable = False
    if not usable:
        raise _wrong(name, f"must be a date from {FIRST_COMPATIBILITY_DATE} to today", DEFAULT_COMPATIBILITY_DATE)
    return value


def _requests_per_second(name: str, value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 10_000:
        raise _wrong(name, "must be a number over 0 and at most 10000", "50")
    return rate


def _integer(low: int, high: int, example: int) -> Callable[[str, str], int]:
    def parse(name: str, value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise _wrong(name, f"must be a whole number from {low} to {high}", str(example))
        return int(value)

    return parse


def _divides_an_hour(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,2}", value) or int(value) == 0 or 60 % int(value):
        raise _wrong(name, "must divide 60", "10")
    return int(value)


def _flag(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise _wrong(name, "must be 0 or 1", "0")
    return value == "1"


def _one_of(choices: tuple[str, ...], fold: Callable[[str], str], usual: str) -> Callable[[str, str], str]:
    def parse(name: str, value: str) -> str:
        if fold(value) not in choices:
            raise _wrong(name, f"must be one of {', '.join(choices)}", usual)
        return fold(value)

    return parse


def _secret_key(name: str, value: str) -> str:
    if len(value) < 32:
        problem = "must have at least 32 characters" if value else "is not set, and RABBITMQ_URL is"
        raise _wrong(name, problem, _what_prints("import secrets; print(secrets.token_urlsafe(48))"))
    _refuse_command(name, value)
    return value


def _token_keys(name: str, value: str) -> tuple[str, ...]:
    keys = tuple(key.strip() for key in value.split(",") if key.strip())
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        keys = ()
    if not keys:
        problem = "must be Fernet keys separated by commas" if value else "is not set, and RABBITMQ_URL is"
        generate = "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"
        raise _wrong(name, problem, _what_prints(generate))
    return keys


def _what_prints(code: str) -> str:
    """Where a secret comes from that must not be the one everybody is shown."""
    return f"what this prints: .venv/bin/python -c '{code}'"


def _refuse_command(name: str, value: str) -> None:
    """No shell reads `.env`: a command that stands there would be a secret that everybody knows."""
    if "$(" in value or "token_urlsafe" in value:
        raise SettingsError(f"{name} holds a command and not what it prints: run it, and put its output there")


def _secret(
    name: str, source: Mapping[str, str], embedded: bool, generate: Callable[[], str], parse: Callable[[str, str], T]
) -> T:
    """A secret from the environment; in embedded mode, one made on first use and kept in `var/`."""
    if name in source or not embedded:
        return parse(name, source.get(name, ""))
    path = VAR / name.lower()
    shown = f"{VAR.name}/{path.name}"
    try:
        VAR.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, generate())
        kept = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name} is not set and cannot be kept in {shown}: {_reason(error)}") from None
    if not kept:
        raise SettingsError(f"{name} is not set and {shown} is empty: restore it, or delete it for a new one")
    return parse(f"{name} (in {shown})", kept)


def _write_once(path: Path, text: str) -> None:
    """Create `path` with mode 0600. Of two processes that start together, the first one's secret is kept."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
