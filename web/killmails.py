"""My killmails: the list with its filters in the address, one killmail, and both as files.

Somebody else's killmail is as little there as one that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, Response, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from api import killmails
from api.callers import limiter, user_or_address
from api.errors import BadUserInput
from api.killmail_views import EVERYTHING, AttackerView, KillmailView
from api.pages import Page, decode_cursor
from api.scalars import MAX_ID
from api.session import current_user
from models import User
from web import choosing, export
from web.errors import message_page
from web.fitting import fitting, page_of
from web.pages import ROW_FIELDS
from web.pictures import share
from web.raw import esi_form

PAGE = 50
#: Attackers on a page, and lines of a fitting, containers and all: the largest fights have thousands of the ones, full
#: freighters hundreds of the others, and a page stays readable, and under 100 KiB.
ATTACKERS, LINES = 50, 100
#: Each reads everything a pilot has.
EXPORT_LIMIT = "20/minute"

blueprint = Blueprint("killmails", __name__, url_prefix="/killmails")


@blueprint.get("")
def index() -> str | AnyResponse:
    """A page of the viewer's killmails, filtered by the URL."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    choice = choosing.read(request.args)
    try:
        page, older, newer = _page(user, choice)
    except BadUserInput:
        return message_page(400, "No such page", "This address does not lead to a page of your killmails.")
    return render_template(
        "killmails.html",
        user=user,
        choice=choice,
        killmails=page.nodes if page else [],
        total=killmails.count_of(user, choice.chosen) if choice.chosen else 0,
        older=older,
        newer=newer,
    )


@blueprint.get("/<int:killmail_id>")
def show(killmail_id: int) -> str | AnyResponse:
    """One killmail."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    killmail = _mine_or_404(user, killmail_id, EVERYTHING | {"value"})
    attackers = sorted(killmail.attackers, key=lambda attacker: (-attacker.damage_done, not attacker.final_blow))
    slots = fitting(killmail.items)
    part = _part("attackers", len(attackers), ATTACKERS)
    items = _part("items", sum(len(slot.lines) for slot in slots), LINES)
    return render_template(
        "killmail.html",
        user=user,
        killmail=killmail,
        is_loss=killmail.is_loss_of(user.character_id),
        slots=page_of(slots, items.number, LINES),
        attackers=_with_shares(attackers[part.start : part.start + ATTACKERS], killmail),
        parts={"attackers": part, "items": items},
    )


@blueprint.get("/<int:killmail_id>.json")
def raw(killmail_id: int) -> AnyResponse:
    """One killmail as JSON, in ESI's form."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    killmail = _mine_or_404(user, killmail_id, EVERYTHING - {"name"})
    return _file(json.dumps(esi_form(killmail), indent=2) + "\n", "application/json", f"killmail-{killmail.id}.json")


@blueprint.get("/export.<any(csv, json):kind>")
@limiter.limit(EXPORT_LIMIT, key_func=user_or_address)
def download(kind: str) -> AnyResponse:
    """All killmails that the filter leaves, as a stream of CSV or JSON."""
    user = current_user()
    if user is None:
        return redirect(url_for("pages.index"))
    choice = choosing.read(request.args)
    if choice.chosen is None:
        return message_page(400, "Nothing to export", " ".join(choice.problems))
    if kind == "csv":
        return _file(export.as_csv(user, choice.chosen), "text/csv; charset=utf-8", "killmails.csv")
    return _file(export.as_json(user, choice.chosen), "application/json", "killmails.json")


def _page(user: User, choice: choosing.Choice) -> tuple[Page[KillmailView] | None, str | None, str | None]:
    """The page that `before` or `newer` (cursors) asks for, and the cursors that lead on. Raises BadUserInput."""
    if choice.chosen is None:
        return None, None, None
    before, newer = request.args.get("before"), request.args.get("newer")
    if newer is not None:
        above_id = decode_cursor(killmails.CURSOR, newer)
        page = killmails.newer_page_of(user, choice.chosen, PAGE, above_id, ROW_FIELDS, newer)
        has_older, has_newer = True, page.page_info.has_next_page
    else:
        before_id = None if before is None else decode_cursor(killmails.CURSOR, before)
        page = killmails.page_of(user, choice.chosen, PAGE, before_id, ROW_FIELDS, before)
        has_older, has_newer = page.page_info.has_next_page, before is not None
    info = page.page_info
    return page, info.end_cursor if has_older else None, info.start_cursor if has_newer else None


def _mine_or_404(user: User, killmail_id: int, named_fields: frozenset[str]) -> KillmailView:
    killmail = killmails.one_of(user, killmail_id, named_fields) if 0 < killmail_id <= MAX_ID else None
    if killmail is None:
        abort(404)
    return killmail


@dataclass(frozen=True, slots=True)
class Part:
    """Page `number` of `of`, from 1 on; `start` counts what lies before it."""

    number: int
    of: int
    start: int


def _part(name: str, count: int, size: int) -> Part:
    """The page of so many that the address asks for by a number: the nearest that there is."""
    of = max(1, -(-count // size))
    number = min(max(1, request.args.get(name, 1, type=int)), of)
    return Part(number, of, (number - 1) * size)


def _with_shares(shown: Sequence[AttackerView], killmail: KillmailView) -> list[tuple[AttackerView, float]]:
    """Each with its percent of the damage. What was done need not add up to what was taken: the larger counts."""
    done = sum(each.damage_done for each in killmail.attackers)
    return [(each, share(each.damage_done, max(done, killmail.victim.damage_taken))) for each in shown]


def _file(body: object, content_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(body, content_type=content_type, headers=headers)  # type: ignore[arg-type]
