"""How pages write names: every name of EVE's whole, and what is none of them not at length."""

from __future__ import annotations

import pytest
from markupsafe import escape

from web.filters import NAME_BYTES, short


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Rifter",
        "Inherent Implants 'Squire' Capacitor Systems Operation EO-603",  # the longest known
        "<script>alert('Katja')</script>",
        "ж" * 50,
        "x" * NAME_BYTES,
    ],
)
def test_a_name_is_shown_whole(name: str) -> None:
    assert short(name) == name


@pytest.mark.parametrize(("letter", "shown"), [("x", 100), ("'", 20), ("&", 20), ("<", 25), ("ж", 50), ("💥", 25)])
def test_what_is_heavier_than_any_name_is_cut(letter: str, shown: int) -> None:
    cut = short(letter * 500)
    assert cut == letter * shown + "…"
    assert len(escape(cut[:-1]).encode()) == NAME_BYTES
