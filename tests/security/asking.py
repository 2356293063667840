"""GraphQL as an attacker's program sends it to the application under test."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient


def ask(client: FlaskClient, query: str, variables: Any = None, **options: Any) -> Any:
    """One operation by POST; the response."""
    return client.post("/graphql", json={"query": query, "variables": variables}, **options)


def data(client: FlaskClient, query: str, variables: Any = None) -> Any:
    """The data of an answer that has to be without errors."""
    answer = ask(client, query, variables).get_json()
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


def codes(response: Any) -> list[str]:
    """The codes of the errors of an answer."""
    return [error["extensions"]["code"] for error in response.get_json()["errors"]]


def who(client: FlaskClient) -> str | None:
    """The character this browser is signed in as."""
    me = data(client, "{ me { characterId } }")["me"]
    return None if me is None else str(me["characterId"])
