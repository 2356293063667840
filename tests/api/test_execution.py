"""Documents: those that come again are parsed once, and what is kept of them is bounded in bytes."""

from __future__ import annotations

import gc
import tracemalloc

from api.execution import MAX_KEPT, MAX_KEPT_LENGTH, prepare


def document(number: int, length: int) -> str:
    """One that is like no other, of about so many characters; up to 1,900 small nodes, which cost the most."""
    head, tail = f"subscription Q{number} {{ names(ids: [", "]) { id } }"
    room = length - len(head) - len(tail)
    width = max(4, -(-room // 1_900))
    return head + f'"{"1" * (width - 3)}" ' * (room // width) + tail


def kept_by(count: int, length: int) -> int:
    """Bytes that are held after so many documents."""
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        prepare(document(number, length))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held


def test_a_short_document_is_parsed_once() -> None:
    assert prepare("{ me { id } }") is prepare("{ me { id } }")
    assert prepare("{ me { id } }").is_kept


def test_a_long_document_is_not_kept() -> None:
    """Strangers can send as many as they like: 256 of 10 KB held 136 MiB."""
    long = document(0, MAX_KEPT_LENGTH + 200)
    assert prepare(long) is not prepare(long)
    assert not prepare(long).is_kept
    assert kept_by(30, 10_000) < 1024 * 1024


def test_what_short_ones_hold_is_bounded() -> None:
    assert kept_by(MAX_KEPT + 20, MAX_KEPT_LENGTH) < 16 * 1024 * 1024
