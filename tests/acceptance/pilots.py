"""The outside of the system, as a test uses it: the simulator's control address, and a pilot's browser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

SYNC_FIELDS = """
    id trigger priority full state pages found saved skipped failed pending waitingUntil waitingFor error
    queuedAt startedAt finishedAt
"""


@dataclass
class Simulated:
    """The simulator's control API, and what it saw at its door."""

    url: str

    def truth(self) -> dict[int, dict[str, Any]]:
        return {int(key): value for key, value in self._get("truth")["characters"].items()}

    def killmail_ids(self, character_id: int) -> set[int]:
        return {int(killmail_id) for killmail_id, _ in self.truth()[character_id]["killmails"]}

    def requests(self, since: int = 0, route: str | None = None) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self._get(f"requests?since={since}&limit=100000")
        return [entry for entry in entries if route is None or entry["route"] == route]

    def last_seq(self) -> int:
        return int(self.stats()["last_seq"])

    def stats(self, since: int = 0) -> dict[str, Any]:
        stats: dict[str, Any] = self._get(f"stats?since_seq={since}")
        return stats

    def fault(self, **fault: Any) -> None:
        self.post("faults", fault)

    def faults_hit(self) -> int:
        """How often the faults that are set have struck."""
        return sum(int(fault["hits"]) for fault in self._get("faults"))

    def clear_faults(self) -> None:
        requests.delete(f"{self.url}/_simulator/faults", timeout=10).raise_for_status()

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = requests.post(f"{self.url}/_simulator/{path}", json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json()

    def _get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}/_simulator/{path}", timeout=60)
        assert answer.ok, answer.text
        return answer.json()


class Browser:
    """One pilot's browser: it logs in through the SSO's page and speaks GraphQL with its cookie."""

    def __init__(self, web_url: str) -> None:
        self.web_url = web_url
        self.session = requests.Session()

    def log_in(self, character_id: int) -> requests.Response:
        """Our /login, the SSO, and back to the dashboard. Returns the last answer."""
        to_sso = self.session.get(f"{self.web_url}/login", allow_redirects=False, timeout=30)
        assert to_sso.status_code == 302, to_sso.text
        return self.session.get(f"{to_sso.headers['Location']}&character_id={character_id}", timeout=30)

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The `data` of an answer without errors."""
        answer = self.ask(query, **variables)
        assert "errors" not in answer, answer["errors"]
        data: dict[str, Any] = answer["data"]
        return data

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self.session.post(f"{self.web_url}/graphql", json={"query": query, "variables": variables}, timeout=30)
        body: dict[str, Any] = answer.json()
        return body

    def me(self) -> dict[str, Any]:
        user: dict[str, Any] = self.graphql(
            f"""{{ me {{ id characterId characterName tokenState lastKillmailSyncAt lastKillmailId nextSyncAt
                 currentSync {{ {SYNC_FIELDS} }} }} }}"""
        )["me"]
        return user

    def last_sync(self) -> dict[str, Any] | None:
        edges = self.graphql(f"{{ syncs(first: 1) {{ edges {{ node {{ {SYNC_FIELDS} }} }} }} }}")["syncs"]["edges"]
        return edges[0]["node"] if edges else None

    def sync_now(self, full: bool = False) -> dict[str, Any]:
        payload: dict[str, Any] = self.graphql(
            "mutation($full: Boolean) { syncMyKillmails(full: $full) { queued message sync { id state } } }", full=full
        )["syncMyKillmails"]
        return payload
