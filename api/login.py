"""Log in through EVE SSO: begin with a state and a PKCE verifier in the session, finish with the code that comes back.

A state is good for one use, ten minutes, and the browser it was made for. Whatever fails, nothing has changed: tokens
are stored only after the access token was verified. The page and the GraphQL mutations share these functions.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from dataclasses import dataclass

from flask import current_app, session

import accounts
from api.session import sign_in
from api.system import SyncRequest, System
from esi import sso_gate
from esi.errors import SsoConfiguration, SsoInvalidToken, SsoRefused, SsoUnavailable
from esi.sso import LoginRequest
from models import Trigger, User
from settings import SettingsError

log = logging.getLogger(__name__)

#: Seconds between the log-in button and the way back. A code lives five minutes; a password takes its time.
LOGIN_SECONDS = 600
#: Logins on their way that a session remembers: one a tab, and a cookie has 4 KiB.
MAX_LOGINS = 3
#: Characters of a code or state that are looked at.
MAX_PARAMETER = 2048

_LOGINS = "logins"

#: Where an app keeps the states that were used, with the time: a browser may put back the cookie of before. One process
#: serves the web (web/gunicorn.py).
EXTENSION = "killmail-sync.used-states"
_used_lock = threading.Lock()


class LoginRefusedError(Exception):
    """The login cannot be finished; the text says to the pilot why and what to do. Nothing has changed."""


class LoginUnavailableError(Exception):
    """EVE SSO, or our application's registration there, does not work now. Nobody's fault; nothing has changed."""


@dataclass(frozen=True, slots=True)
class LoginUrl:
    """Where the browser goes, and the state it must bring back."""

    url: str
    state: str


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Who logged in, and what came of the sync that was asked for."""

    user: User
    sync: SyncRequest
    message: str  # about the sync, for the pilot


def begin(system: System) -> LoginUrl:
    """Where to send the browser. Raises LoginUnavailableError."""
    try:
        system.settings.require_eve_application()
        login = system.sso.new_login()
        url = system.sso.authorize_url(login, system.settings.eve_client_scopes)
    except SettingsError as error:
        raise LoginUnavailableError(str(error)) from error
    except (SsoUnavailable, SsoConfiguration) as error:
        raise _unavailable(error) from error
    entry = {"state": login.state, "verifier": login.code_verifier, "at": int(time.time())}
    session[_LOGINS] = [*_pending_logins(), entry][-MAX_LOGINS:]
    return LoginUrl(url, login.state)


def finish(system: System, code: str, state: str) -> LoggedIn:
    """Turn the SSO's answer into a session and a first sync. Raises LoginRefusedError, LoginUnavailableError."""
    login = _take_login(state)
    if not 0 < len(code) <= MAX_PARAMETER or not _is_printable_ascii(code):
        raise LoginRefusedError("EVE SSO sent no code that could be used. Please log in again.")
    try:
        with sso_gate.login():
            tokens = system.sso.exchange(code, login.code_verifier)
        identity = system.sso.verify(tokens.access_token)
    except SsoRefused as error:
        raise LoginRefusedError("EVE SSO did not accept this login: it was used before, or took too long.") from error
    except SsoInvalidToken as error:
        log.warning("a login ended with a token that does not verify: %s", error)
        raise LoginRefusedError("EVE SSO answered with a token that cannot be trusted.") from error
    except (SsoUnavailable, SsoConfiguration) as error:
        raise _unavailable(error) from error
    config = system.settings
    user = accounts.log_in(identity, tokens, system.cipher, config.sync_cooldown_minutes, secret_key=config.secret_key)
    sign_in(user)
    log.info("user %s: logged in", user.id)
    sync = system.request_sync(user.id, Trigger.LOGIN)
    return LoggedIn(user, sync, _said(user, sync))


def _said(user: User, sync: SyncRequest) -> str:
    """What the pilot is told of the sync. A pilot who unlinked and is back would not expect a cooldown."""
    came_back = (
        user.last_killmail_sync_at is not None
        and user.last_full_sync_at is None
        and user.created_at > (user.last_killmail_sync_at)
    )
    if sync.queued or not came_back:
        return sync.message
    return (
        "Welcome back. This character was unlinked here a short time ago. So as not to burden EVE's servers with the "
        f"same list again, its next sync waits a little; your killmails appear then. {sync.message}"
    )


def was_begun_here(state: str) -> bool:
    """Whether this browser has begun a login with this state, and not finished it."""
    return any(hmac.compare_digest(str(entry["state"]).encode(), state.encode()) for entry in _pending_logins())


def _pending_logins() -> list[dict[str, object]]:
    oldest = time.time() - LOGIN_SECONDS
    return [entry for entry in session.get(_LOGINS, []) if entry["at"] >= oldest]


def _take_login(state: str) -> LoginRequest:
    """The login this state belongs to, taken out of the session."""
    pending = _pending_logins()
    mine = None
    for entry in pending if _is_printable_ascii(state) else ():
        if hmac.compare_digest(str(entry["state"]).encode(), state.encode()):
            mine = entry
    if mine is None or not _use_up(str(mine["state"])):
        raise LoginRefusedError(
            "This login was not begun in this browser, was finished already, or is older than ten minutes. "
            "Please log in again, at the same address you started from."
        )
    session[_LOGINS] = [entry for entry in pending if entry is not mine]
    return LoginRequest(state=str(mine["state"]), code_verifier=str(mine["verifier"]))


def _use_up(state: str) -> bool:
    """Whether this is its first use. What is too old to be used again is forgotten."""
    now = time.time()
    used: dict[str, float] = current_app.extensions.setdefault(EXTENSION, {})
    with _used_lock:
        for each in [each for each, at in used.items() if at < now - LOGIN_SECONDS]:
            del used[each]
        if state in used:
            return False
        used[state] = now
    return True


def _is_printable_ascii(text: str) -> bool:
    """What codes and states consist of (RFC 6749, appendix A)."""
    return text.isascii() and text.isprintable()


def _unavailable(error: SsoUnavailable | SsoConfiguration) -> LoginUnavailableError:
    if isinstance(error, SsoConfiguration):
        log.error("nobody can log in: %s", error)
        return LoginUnavailableError("This site's registration with EVE SSO does not work; its operator has to look.")
    log.warning("a login failed: %s", error)
    return LoginUnavailableError("EVE SSO gave no usable answer. Please try again in a minute.")
