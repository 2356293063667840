"""What counts as a message: never one that a consumer would hold for ever."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from actors.messages import LATEST_ETA_MS, CheckedEncoder


def encoded(**options: Any) -> bytes:
    fields = {"queue_name": "q", "actor_name": "a", "message_id": "1", "args": [], "kwargs": {}, "options": options}
    return json.dumps({**fields, "message_timestamp": 1}).encode()


def test_what_waits_for_as_long_as_ours_do_is_one() -> None:
    soon = int(time.time() * 1000) + LATEST_ETA_MS - 60_000
    assert CheckedEncoder().decode(encoded(eta=soon))["options"] == {"eta": soon}


@pytest.mark.parametrize("eta", [4_000_000_000_000, 10**30])
def test_what_waits_for_longer_is_none(eta: int) -> None:
    with pytest.raises(ValueError, match="wait for longer"):
        CheckedEncoder().decode(encoded(eta=eta))
