"""A plain client for the tests of the simulator: `requests`, and no more manners than a test needs."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

SCOPE = "esi-killmails.read_killmails.v1"
CALLBACK = "http://127.0.0.1/callback"
AUTH = ("demo", "demo")


@dataclass
class Client:
    """Drives one simulator over HTTP."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str, token: str | None = None, **headers: str) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            named["Authorization"] = f"Bearer {token}"
        return self.session.get(self.url + path, headers=named, timeout=10, allow_redirects=False)

    def recent(self, character_id: int, token: str | None, page: int = 1, **headers: str) -> requests.Response:
        return self.get(f"/characters/{character_id}/killmails/recent?page={page}", token, **headers)

    def killmail(self, reference: list[Any], token: str | None = None, **headers: str) -> requests.Response:
        return self.get(f"/killmails/{reference[0]}/{reference[1]}", token, **headers)

    def names(self, ids: object) -> requests.Response:
        return self.session.post(f"{self.url}/universe/names", json=ids, timeout=10)

    def control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self.session.request(method, f"{self.url}/_simulator/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def truth(self) -> dict[int, list[list[Any]]]:
        """The true list of each pilot, in the simulator's order of pilots."""
        characters = self.control("GET", "truth")["characters"]
        return {int(one): character["killmails"] for one, character in characters.items()}

    def authorize(self, **changes: str | None) -> requests.Response:
        """Ask to authorize; `changes` replace or (None) leave out parameters of a good request."""
        query = {
            "response_type": "code",
            "client_id": "demo",
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "my state",
        } | changes
        return self.session.get(f"{self.url}/v2/oauth/authorize", params=query, timeout=10, allow_redirects=False)

    def code(self, character_id: int, **changes: str | None) -> str:
        answer = self.authorize(character_id=str(character_id), **changes)
        assert answer.status_code == 302, answer.text
        return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]

    def token(self, auth: tuple[str, str] | None = AUTH, **form: str) -> requests.Response:
        return self.session.post(f"{self.url}/v2/oauth/token", data=form, auth=auth, timeout=10)

    def login(self, character_id: int, scope: str = SCOPE) -> dict[str, Any]:
        answer = self.token(grant_type="authorization_code", code=self.code(character_id, scope=scope))
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    def access(self, character_id: int, scope: str = SCOPE) -> str:
        return str(self.login(character_id, scope)["access_token"])

    def refresh(self, refresh_token: str, **form: str) -> requests.Response:
        return self.token(AUTH, grant_type="refresh_token", refresh_token=refresh_token, **form)
