"""The dashboard: who I am, how my syncs stand, my newest killmails; and the buttons, which work without scripts."""

from __future__ import annotations

from datetime import datetime, timedelta

from flask import Blueprint, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response

import accounts
from api import killmails, statistics, syncs, system
from api.callers import MUTATION_LIMIT, limiter, user_or_address
from api.killmail_views import EVERYTHING
from api.session import current_user, renew_session, sign_out
from database import utcnow
from models import Trigger, User
from web import pictures
from web.errors import message_page
from web.security import require_form_token

#: Killmails and syncs on the dashboard.
NEWEST = 25
LAST_SYNCS = 10
#: What a row of the list shows.
ROW_FIELDS = EVERYTHING - {"attackers", "items"}

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def index() -> str:
    """The dashboard, or what this is all about for who is signed out."""
    user = current_user()
    renew_session()
    if user is None:
        return render_template("signed_out.html", scopes=system.current().settings.eve_client_scopes)
    # Read first: what is stored while the page is made is not on it, and has to come after this one.
    last_reached = killmails.last_reached(user)
    page = killmails.page_of(user, killmails.Filter(), NEWEST, None, ROW_FIELDS)
    history = syncs.page_of(user, LAST_SYNCS, None, None).nodes
    days = statistics.days(user, _first_day())
    # Read again behind the syncs: one that ended meanwhile must not stand beside times from before its end.
    user = User.get_or_none(User.id == user.id) or user
    return render_template(
        "dashboard.html",
        user=user,
        cool_down_ends_at=syncs.cool_down_ends_at(user, system.current().settings.sync_cooldown_minutes),
        sync=history[0] if history else None,
        syncs=history,
        killmails=page.nodes,
        last_reached=last_reached,
        days=days,
        by_day=pictures.by_day(days, utcnow().date()),
    )


@blueprint.get("/pictures")
def show_pictures() -> str | Response:
    """Ninety days in pictures."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    days, hours = statistics.days(user, _first_day()), statistics.hours(user)
    return render_template(
        "pictures.html",
        user=user,
        days=days,
        hours=hours,
        by_day=pictures.by_day(days, utcnow().date()),
        by_hour=pictures.by_hour(hours),
        weekdays=pictures.WEEKDAYS,
        tops=(
            ("Ships lost", "ship", statistics.ships_lost(user)),
            ("Ships flown on kills", None, statistics.ships_flown(user)),
            ("Systems", "system", statistics.systems(user)),
        ),
    )


@blueprint.post("/sync")
@limiter.limit(MUTATION_LIMIT, key_func=user_or_address)
def sync() -> Response:
    """The dashboard's buttons, without JavaScript."""
    require_form_token()
    user = current_user()
    if user is not None:
        wanted = system.current().request_sync(user.id, Trigger.WEB, full=request.form.get("full") == "1")
        flash(wanted.message)
    return redirect(url_for("pages.index"))


@blueprint.get("/unlink")
def confirm_unlink() -> str | Response:
    """What exactly would go."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    return render_template("unlink.html", user=user, held=_held(user))


@blueprint.post("/unlink")
@limiter.limit(MUTATION_LIMIT, key_func=user_or_address)
def unlink() -> Response:
    """Forget the pilot for good, and say so."""
    require_form_token()
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    behind = system.current()
    revoked = accounts.unlink(user.id, behind.sso, behind.cipher, secret_key=behind.settings.secret_key)
    sign_out()
    return message_page(200, "Done", accounts.farewell(revoked))


def _held(user: User) -> dict[str, int]:
    return {"syncs": syncs.count_of(user), **killmails.held_by(user)}


def _first_day() -> datetime:
    """The start of the first of the days in the picture."""
    today = utcnow().replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=pictures.DAYS - 1)
