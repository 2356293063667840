"""One execution for all who are told the same: a fleet's killmail goes to a thousand sockets, most with one document.

A view is read once for all of them (`api/hub.py`), and of its fields only `isLoss` depends on who looks. So the answer
to the same document, about the same view, is the same for everybody on the same side.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from graphql import DocumentNode, OperationDefinitionNode, VariableNode, Visitor, visit

from api.killmail_views import KillmailView
from api.wire import frame

#: Operation ids, which clients choose, in whose name an answer's frame is remembered.
MOST_IDS = 16
#: Answers remembered: those of the last moment, in as many documents as are in use.
MOST = 256

_Key = tuple[int, int, str | None, bool]
_lock = threading.Lock()


class Answer:
    """What is sent to all whom it is the same for; most of them have given their operation the same id, too."""

    def __init__(self, text: str) -> None:
        self._text = text  # JSON
        self._frames: dict[str, bytes] = {}

    def frame(self, operation_id: str) -> bytes:
        """The `next` message with this answer, as the bytes that go out."""
        known = self._frames.get(operation_id)
        if known is not None:
            return known
        head = json.dumps({"id": operation_id, "type": "next"})
        made = frame(f'{head[:-1]}, "payload": {self._text}}}')
        if len(self._frames) < MOST_IDS:
            self._frames[operation_id] = made
        return made


_answers: OrderedDict[_Key, tuple[KillmailView, DocumentNode, Answer]] = OrderedDict()


def answer(
    document: DocumentNode,
    operation_name: str | None,
    view: KillmailView,
    character_id: int,
    execute: Callable[[], str],
) -> Answer:
    """What `execute` answers about this view, in JSON. Only for a document that `is_same_for_all`."""
    key = (id(document), id(view), operation_name, view.is_loss_of(character_id))
    with _lock:
        known = _answers.get(key)
        # Held along with their answer, so that no other object has come to have their ids.
        if known is not None and known[0] is view and known[1] is document:
            return known[2]
    found = Answer(execute())
    with _lock:
        _answers[key] = (view, document, found)
        while len(_answers) > MOST:
            _answers.popitem(last=False)
    return found


def is_same_for_all(document: DocumentNode, operation: OperationDefinitionNode) -> bool:
    """Whether variables, which are each client's own, decide nothing below the root field's arguments.

    A document with fragments is not looked into: no page of ours sends one.
    """
    if len(document.definitions) > 1:
        return False
    seen = _Variables()
    for root in operation.selection_set.selections:
        below = getattr(root, "selection_set", None)
        if below is not None:
            visit(below, seen)
        for directive in root.directives or ():
            visit(directive, seen)
    return not seen.found


class _Variables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def enter_variable(self, _node: VariableNode, *_rest: Any) -> None:
        self.found = True
