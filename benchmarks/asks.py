"""What the dashboard asks for, read from its own scripts, so that a benchmark never asks for less than a page does."""

from __future__ import annotations

import re
from pathlib import Path

_SCRIPTS = Path(__file__).parent.parent / "web" / "static"
_TEMPLATE = re.compile(r'^(?:export )?const (?P<name>[A-Z_]+) =\s+["`](?P<text>[^"`]*)["`];$', re.MULTILINE)


def _constants(*scripts: str) -> dict[str, str]:
    """The scripts' constant texts, with `${OTHER}` put in where it is one of those above."""
    texts: dict[str, str] = {}
    for found in _TEMPLATE.finditer("\n".join((_SCRIPTS / name).read_text(encoding="utf-8") for name in scripts)):
        texts[found["name"]] = re.sub(r"\$\{(\w+)\}", lambda other: texts.get(other[1], other[0]), found["text"])
    return texts


_TEXTS = _constants("rows.js", "sync.js", "dashboard.js")

#: A page of the list: no script asks for one, the server writes it, with the same fields a row.
PAGE = f"""query ($first: Int!, $after: String) {{ killmails(first: $first, after: $after) {{
  pageInfo {{ hasNextPage endCursor }} nodes {{ {_TEXTS["ROW"]} }} }} }}"""
#: What every open dashboard is subscribed to: killmails as they are stored, and the sync as it goes on.
NEW_KILLMAIL = _TEXTS["NEW_KILLMAIL"]
SYNC_PROGRESS = _TEXTS["SYNC_PROGRESS"]
