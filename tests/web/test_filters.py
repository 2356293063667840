"""How pages write names: every name of EVE's whole, and what is none of them not at length."""

from __future__ import annotations

import pytest
from markupsafe import escape

from web.filters import NAME_BYTES, isk, short


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.4, "999"),
        (999.5, "1.00 k"),
        (1_000, "1.00 k"),
        (12_340, "12.34 k"),
        (999_994, "999.99 k"),
        (999_996, "1.00 M"),
        (1_000_000, "1.00 M"),
        (999_994_999, "999.99 M"),
        (999_999_999, "1.00 B"),
        (999_999_999_999, "1.00 T"),
        (1_234_567_890_123_456, "1,234.57 T"),
    ],
)
def test_isk_is_rounded_before_its_unit_is_chosen(amount: float, shown: str) -> None:
    assert isk(amount) == shown


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
