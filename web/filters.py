"""How templates write numbers and times. Times are EVE time, which is UTC."""

from __future__ import annotations

from datetime import datetime

from flask import Flask

#: ISK's large units, as pilots write them.
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def register(app: Flask) -> None:
    """Give them to every template."""
    for function in (clock, iso, isk, moment, number, security_class):
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
    """12.34 M"""
    for size, unit in _UNITS:
        if amount >= size:
            return f"{amount / size:,.2f} {unit}"
    return f"{amount:,.0f}"


def security_class(status: float) -> str:
    """As the law has it: high (CONCORD comes), low, null."""
    if status >= 0.5:
        return "high"
    return "low" if status > 0.0 else "null"
