"""What the dashboard asks for, read from its own scripts, so that a benchmark never asks for less than a page does."""

from __future__ import annotations

import re
from pathlib import Path

_ROWS = Path(__file__).parent.parent / "web" / "static" / "rows.js"
_TEMPLATE = re.compile(r'^(?:export )?const (?P<name>[A-Z]+) = ["`](?P<text>[^"`]*)["`];$', re.MULTILINE)


def _constants(script: str) -> dict[str, str]:
    """The script's constant texts, with `${OTHER}` put in from those above."""
    texts: dict[str, str] = {}
    for found in _TEMPLATE.finditer(script):
        texts[found["name"]] = re.sub(r"\$\{(\w+)\}", lambda other: texts[other[1]], found["text"])
    return texts


#: A row of the list of killmails: its fields.
ROW = _constants(_ROWS.read_text(encoding="utf-8"))["ROW"]
#: A page of the list.
PAGE = f"""query ($first: Int!, $after: String) {{ killmails(first: $first, after: $after) {{
  pageInfo {{ hasNextPage endCursor }} nodes {{ {ROW} }} }} }}"""
#: What is told of a killmail that has just been stored.
NEW_KILLMAIL = f"subscription ($after: ID) {{ newKillmail(after: $after) {{ {ROW} }} }}"
