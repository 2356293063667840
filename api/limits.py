"""How much one document may ask for: length, depth, fields, and root fields, counted before anything is executed.

Fragments are counted where they are spread, so that a few hundred bytes of nested fragments cannot ask for millions of
fields; one that nothing spreads, or that is defined twice, is refused: it would be validated without having been
counted. Introspection is allowed and costs what it costs. What no document tells, how many attackers and items the
killmails have, is counted while it is executed (`RowBudget`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
)

from api.errors import BadUserInput

#: Tokens of a document. GraphiQL's introspection, the longest in common use, has about 400.
MAX_TOKENS = 2_000
#: Levels of fields. killmails.edges.node.items.items.type.name has 7; introspection's chain of ofType 13.
MAX_DEPTH = 15
#: Fields after fragments are spread.
MAX_FIELDS = 500
#: Root fields of an operation, aliases included: each may read a page of 100 killmails.
MAX_ROOT_FIELDS = 10
#: Pages of killmails in one operation.
MAX_KILLMAIL_PAGES = 3
#: Times one selection may name the same field, aliases included: each repeat of a list is the whole list again.
MAX_REPEATS = 4
#: Fields of the answer, as far as the document tells; a page of 100 killmails with everything has about 60,000.
MAX_WEIGHT = 100_000
#: Entries of a list, for its weight: pages as the schema bounds them, the others as they usually are.
ENTRIES = {
    "edges": 100, "nodes": 100, "attackers": 10, "items": 5,
    "types": 40, "fields": 10, "inputFields": 8, "args": 3, "enumValues": 6, "possibleTypes": 5,
}  # fmt: skip
#: Attackers and items of one operation, counted when they are read and each time they are answered with. A hundred
#: ordinary killmails come to 7,000 (of ESI's, one has 19 attackers and 15 items); the largest fight known had 3,753
#: attackers.
MAX_ROWS = 12_000


class RowBudget:
    """What of MAX_ROWS one operation has left."""

    def __init__(self) -> None:
        self._left = MAX_ROWS

    def spend(self, rows: int) -> None:
        """Raises BadUserInput when it is not there."""
        self._left -= rows
        if self._left < 0:
            raise BadUserInput(
                "These killmails have too many attackers and items to be read at once: "
                "ask for fewer killmails (`first`), and for each list once."
            )


@dataclass(slots=True)
class _Count:
    """`spread`: the names of the fragments that were come upon, by any operation."""

    spread: set[str]
    fields: int = 0
    root_fields: int = 0
    killmail_pages: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class _Level:
    """One selection set, together with the fragments spread in it."""

    depth: int
    entries: int  # of the lists around it, multiplied
    names: Counter[str] = field(default_factory=Counter)

    def below(self, selection: FieldNode) -> _Level:
        return _Level(self.depth + 1, self.entries * ENTRIES.get(selection.name.value, 1))


def check(document: DocumentNode) -> None:
    """Raises BadUserInput for a document that asks for too much. The document need not be valid."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    spread: set[str] = set()
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            count = _Count(spread=spread)
            _walk(operation.selection_set, fragments, _Level(1, 1), count)
            if operation.operation is OperationType.MUTATION and count.root_fields > 1:
                raise BadUserInput("One mutation at a time.")
    for node in document.definitions:
        # Validation would say so too, but not before it has compared all that is in them.
        if isinstance(node, FragmentDefinitionNode) and fragments[node.name.value] is not node:
            raise BadUserInput(f"There can be only one fragment named '{node.name.value}'.")
        if isinstance(node, FragmentDefinitionNode) and node.name.value not in spread:
            raise BadUserInput(f"Fragment '{node.name.value}' is never used.")


def field_names(document: DocumentNode) -> frozenset[str]:
    """Every field that a document names anywhere: what may have to be read for it."""
    names: set[str] = set()
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode | FragmentDefinitionNode):
            _collect(definition.selection_set, names)
    return frozenset(names)


def _walk(
    selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode], level: _Level, count: _Count
) -> None:
    if level.depth > MAX_DEPTH:
        raise BadUserInput(f"The query is nested too deeply: {MAX_DEPTH} levels are allowed.")
    for selection in selections.selections:
        _add(selection, level, count)
        if isinstance(selection, FragmentSpreadNode):
            fragment = fragments.get(selection.name.value)
            count.spread.add(selection.name.value)
            if fragment is not None:
                _walk(fragment.selection_set, fragments, level, count)
        elif isinstance(selection, InlineFragmentNode):
            _walk(selection.selection_set, fragments, level, count)
        elif isinstance(selection, FieldNode) and selection.selection_set:
            _walk(selection.selection_set, fragments, level.below(selection), count)


def _add(selection: SelectionNode, level: _Level, count: _Count) -> None:
    # A spread counts as well, so that fragments that spread each other come to an end here.
    count.fields += 1
    count.weight += level.entries
    if count.fields > MAX_FIELDS:
        raise BadUserInput(f"The query asks for too many fields: {MAX_FIELDS} are allowed.")
    if count.weight > MAX_WEIGHT:
        raise BadUserInput("The query asks for too much at once: ask for less of each entry, or for fewer lists.")
    if not isinstance(selection, FieldNode):
        return
    if level.depth == 1:
        _add_root(selection, count)
        return
    level.names[selection.name.value] += 1
    if level.names[selection.name.value] > MAX_REPEATS:
        raise BadUserInput(f"The query names the same field more than {MAX_REPEATS} times in one place.")


def _add_root(selection: FieldNode, count: _Count) -> None:
    count.root_fields += 1
    if count.root_fields > MAX_ROOT_FIELDS:
        raise BadUserInput(f"One query may ask for {MAX_ROOT_FIELDS} root fields.")
    count.killmail_pages += selection.name.value == "killmails"
    if count.killmail_pages > MAX_KILLMAIL_PAGES:
        raise BadUserInput(f"One query may ask for {MAX_KILLMAIL_PAGES} pages of killmails.")


def _collect(selections: SelectionSetNode, names: set[str]) -> None:
    for selection in selections.selections:
        if isinstance(selection, FieldNode):
            names.add(selection.name.value)
        if isinstance(selection, FieldNode | InlineFragmentNode) and selection.selection_set:
            _collect(selection.selection_set, names)
