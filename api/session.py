"""Who is signed in: Flask's signed cookie with a user id and that user's session epoch, and nothing secret.

Every request reads the user again. A session whose epoch is not the user's any more (signed out everywhere, the
character sold, the account deleted and its id used again) is no session.
"""

from __future__ import annotations

import hmac
import secrets
from datetime import UTC, datetime

from flask import g, session

import accounts
from models import User

#: Days a session lives since the last visit.
SESSION_DAYS = 30

_USER, _EPOCH, _CSRF, _DAY = "user_id", "epoch", "csrf", "day"


def current_user() -> User | None:
    """The signed-in user, read once a request; None when signed out."""
    if "user" not in g:
        g.user = _read_user()
    user: User | None = g.user
    return user


def sign_in(user: User) -> None:
    """Start a new session: nothing of the one before is kept, so that a planted cookie is worth nothing."""
    session.clear()
    session.permanent = True
    session[_USER] = user.id
    session[_EPOCH] = user.session_epoch
    g.user = user


def renew_session() -> None:
    """Let a session live on from today: its cookie is sent anew on the first page looked at in a day."""
    today = datetime.now(UTC).toordinal()
    if _USER in session and session.get(_DAY) != today:
        session[_DAY] = today


def sign_out() -> None:
    """End this session and every copy of it: the user is signed out on all devices, and their sockets are closed."""
    user = current_user()
    if user is not None:
        accounts.sign_out_everywhere(user.id)
    session.clear()
    g.user = None


def form_token() -> str:
    """What a form of ours carries and a foreign page cannot know."""
    if _CSRF not in session:
        session[_CSRF] = secrets.token_urlsafe(32)
    return str(session[_CSRF])


def is_form_token(token: str) -> bool:
    """Whether a form was made for this session."""
    return _CSRF in session and hmac.compare_digest(str(session[_CSRF]).encode(), token.encode())


def _read_user() -> User | None:
    user_id, epoch = session.get(_USER), session.get(_EPOCH)
    if user_id is None:
        return None
    user: User | None = User.get_or_none((User.id == user_id) & (User.session_epoch == epoch))
    return user
