"""DateTime and BigInt, and the ids that clients send: strict on the way in, one form on the way out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ariadne import ScalarType
from graphql import GraphQLError, IntValueNode, StringValueNode, ValueNode

from api.errors import BadUserInput

#: The largest 64-bit id.
MAX_ID = 2**63 - 1

date_time = ScalarType("DateTime")
big_int = ScalarType("BigInt")


def parse_id(value: str, what: str) -> int:
    """A positive 64-bit id. Raises BadUserInput, naming `what`."""
    if not (value.isascii() and value.isdigit() and len(value) <= 19 and 0 < int(value) <= MAX_ID):
        raise BadUserInput(f"{what} is not an id: a whole number is expected.")
    return int(value)


@date_time.serializer
def serialize_date_time(value: datetime) -> str:
    """Stored times are naive UTC; fractions of a second are nobody's concern here."""
    return value.isoformat(timespec="seconds") + "Z"


@date_time.value_parser
def parse_date_time(value: Any) -> datetime:
    """ISO 8601 with an offset, or without one for UTC, to naive UTC."""
    try:
        moment: datetime = datetime.fromisoformat(value)
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        raise GraphQLError("DateTime is not of the form 2026-11-23T21:00:00Z.") from None


@date_time.literal_parser
def parse_date_time_literal(node: ValueNode, _variables: Any = None) -> datetime:
    """`parse_date_time`, for a value in the document."""
    moment: datetime = parse_date_time(node.value if isinstance(node, StringValueNode) else None)
    return moment


@big_int.serializer
def serialize_big_int(value: int) -> int:
    """A number as it is: JSON has no bound."""
    return value


@big_int.value_parser
def parse_big_int(value: Any) -> int:
    """A signed 64-bit integer. Raises GraphQLError."""
    if type(value) is not int or not -MAX_ID - 1 <= value <= MAX_ID:
        raise GraphQLError("BigInt is a whole number of at most 64 bits.")
    return value


@big_int.literal_parser
def parse_big_int_literal(node: ValueNode, _variables: Any = None) -> int:
    """`parse_big_int`, for a value in the document."""
    value: int = parse_big_int(int(node.value) if isinstance(node, IntValueNode) and len(node.value) <= 20 else None)
    return value
