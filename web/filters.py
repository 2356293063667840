"""How templates write names, numbers and times. Times are EVE time, which is UTC."""

from __future__ import annotations

from datetime import datetime
from itertools import accumulate

from flask import Flask
from markupsafe import escape

#: ISK's units, as pilots write them, each with its decimals.
_UNITS = ((1, "", 0), (1e3, " k", 2), (1e6, " M", 2), (1e9, " B", 2), (1e12, " T", 2))
#: Bytes of HTML that a name gets, so that a page of them stays under 100 KiB whatever they are. All of EVE's fit: the
#: longest known is an implant's with 61 letters, 69 bytes. `names.js` cuts in the same place.
NAME_BYTES = 100


def register(app: Flask) -> None:
    """Give them to every template."""
    for function in (clock, iso, isk, moment, number, security_class, short):
        app.jinja_env.filters[function.__name__] = function


def moment(at: datetime) -> str:
    """2026-11-23 14:32"""
    return f"{at:%Y-%m-%d %H:%M}"


def clock(at: datetime) -> str:
    """14:32"""
    return f"{at:%H:%M}"


def iso(at: datetime) -> str:
    """For machines: 2026-11-23T14:32:00Z"""
    return at.isoformat(timespec="seconds") + "Z"


def number(count: int) -> str:
    """1,234,567"""
    return f"{count:,}"


def isk(amount: float) -> str:
    """12.34 M: the smallest unit in which less than 1,000 is shown, once it is rounded."""
    shown = ""
    for size, unit, decimals in _UNITS:
        shown = f"{amount / size:,.{decimals}f}{unit}"
        if round(amount / size, decimals) < 1000:
            break
    return shown


def security_class(status: float) -> str:
    """As the law has it: high (CONCORD comes), low, null."""
    if status >= 0.5:
        return "high"
    return "low" if status > 0.0 else "null"


def short(name: str) -> str:
    """A name as a page shows it: whole, or cut where it gets heavier than any that is one. Exports have all of it."""
    weights = accumulate(len(escape(letter).encode()) for letter in name)
    fit = sum(weight <= NAME_BYTES for weight in weights)
    return name if fit == len(name) else name[:fit] + "…"
