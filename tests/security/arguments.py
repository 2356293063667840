"""Every argument of the schema, found by reading it: one that is new is attacked without anybody thinking of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
)

from api.schema import schema

#: The killmail that is the attacker's own: what stands below a killmail is reached through it.
MINE = 7002
#: What stands for an argument that must be given beside the one that is tried.
_ANY = {"ID": f'"{MINE}"', "String": '"1"', "Int": "1", "Boolean": "true"}


def operations(*kinds: str) -> dict[str, str]:
    """A document with the variable `$v` for every argument and every field of an input object, by its place.

    Arguments of fields within objects are reached by the shortest way from a root. `kinds`: query, mutation,
    subscription.
    """
    return {place: document for kind in kinds for place, document in _of_root(kind)}


def places() -> set[str]:
    """Every argument there is, whether it is reached or not: `Type.field(argument)`."""
    return {
        f"{kind.name}.{name}({argument})"
        for kind in schema.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and not kind.name.startswith("__")
        for name, field in kind.fields.items()
        for argument in field.args
    }


def _of_root(kind: str) -> Iterator[tuple[str, str]]:
    root = {
        "query": schema.query_type,
        "mutation": schema.mutation_type,
        "subscription": schema.subscription_type,
    }[kind]
    assert root is not None
    seen = {root.name}
    ways: list[tuple[GraphQLObjectType, str, str]] = [(root, "", "")]  # a type, and what stands around its fields
    while ways:
        at, before, after = ways.pop(0)
        for name, field in at.fields.items():
            for place, declared, given in _arguments(at, name, field):
                body = f"{before} {name}({given}) {selection_of(field.type)} {after}"
                yield place, f"{kind}($v: {declared}) {{ {body} }}"
            inner = get_named_type(field.type)
            if isinstance(inner, GraphQLObjectType) and inner.name not in seen:
                seen.add(inner.name)
                given = _required(field)
                ways.append((inner, f"{before} {name}{f'({given})' if given else ''} {{", f"}} {after}"))


def _arguments(at: GraphQLObjectType, name: str, field: GraphQLField) -> Iterator[tuple[str, str, str]]:
    """The argument's place, the type of `$v`, and what stands in the brackets."""
    for argument, definition in field.args.items():
        others = _required(field, argument)
        named = get_named_type(definition.type)
        place = f"{at.name}.{name}({argument})"
        if isinstance(named, GraphQLInputObjectType):
            for inner, inner_definition in named.fields.items():
                yield f"{place[:-1]}.{inner})", str(inner_definition.type), f"{argument}: {{{inner}: $v}} {others}"
        else:
            yield place, str(definition.type), f"{argument}: $v {others}"


def _required(field: GraphQLField, but: str = "") -> str:
    return " ".join(
        f"{name}: {_ANY[get_named_type(each.type).name]}"
        for name, each in field.args.items()
        if name != but and isinstance(each.type, GraphQLNonNull)
    )


def selection_of(kind: Any) -> str:
    """`{ … }` with something to see of an object; nothing of a scalar."""
    named = get_named_type(kind)
    if not isinstance(named, GraphQLObjectType):
        return ""
    if "nodes" in named.fields:
        return f"{{ nodes {selection_of(named.fields['nodes'].type)} }}"
    free = {name: field for name, field in named.fields.items() if not field.args}
    leaves = [name for name, field in free.items() if not isinstance(get_named_type(field.type), GraphQLObjectType)]
    if leaves:
        return f"{{ {' '.join(leaves)} }}"
    name, field = next(iter(free.items()))
    return f"{{ {name} {selection_of(field.type)} }}"
