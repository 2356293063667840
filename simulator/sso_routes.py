"""EVE SSO v2: metadata, authorize, token, jwks and revoke, as strict as the real one.

A bad client or redirect address is never redirected to; everything else a client gets wrong goes back to its
redirect address, as OAuth 2 asks. What is granted is remembered in `grants.py`, signed in `keys.py`. Source:
EVE SSO docs, esi/README.md §4.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from simulator import sso_pages
from simulator.grants import Grant, OddAnswerError, RefusedError
from simulator.request_log import Note
from simulator.state import Simulator
from simulator.wire import Payload, Request, Response
from simulator.world import Pilot

_SCOPE: Final = re.compile(r"publicData|esi-[a-z_]+\.[a-z_]+\.v\d+")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_METHODS: Final = ["client_secret_basic", "client_secret_post", "client_secret_jwt"]


def handle(state: Simulator, request: Request, note: Note) -> Response | None:
    """Answer a request for SSO, or None if the address is not one of its own."""
    route = _ROUTES.get(request.path.rstrip("/"))
    if route is None:
        return None
    note.route, method, answer = route
    if request.method != method:
        return Response.of_json(405, {"error": "invalid_request", "error_description": "Method not allowed."})
    if request.at < state.sso_down_until:
        return sso_pages.unavailable()
    if note.route == "token":
        form = request.form()
        note.grant_type = form.get("grant_type")
        note.concerns = state.grants.owners_of(form.get("refresh_token", ""))
    fault = state.faults.pick(note, request.at)
    if fault is None:
        return answer(state, request, note)
    if fault.kind in ("reset", "hang"):
        # The real exchange is not made: a lost answer would burn a code or a rotated token for good.
        return fault.spoil(lambda: Response(200))
    return fault.spoil(lambda: answer(state, request, note))


def _metadata(state: Simulator, request: Request, note: Note) -> Response:
    url = state.url
    document = {
        "issuer": url,
        "authorization_endpoint": f"{url}/v2/oauth/authorize",
        "token_endpoint": f"{url}/v2/oauth/token",
        "response_types_supported": ["code", "token"],
        "jwks_uri": f"{url}/oauth/jwks",
        "revocation_endpoint": f"{url}/v2/oauth/revoke",
        "subject_types_supported": ["public"],
        "revocation_endpoint_auth_methods_supported": _METHODS,
        "token_endpoint_auth_methods_supported": _METHODS,
        "id_token_signing_alg_values_supported": ["HS256"],
        "token_endpoint_auth_signing_alg_values_supported": ["HS256"],
        "code_challenge_methods_supported": ["S256"],
    }
    return Response.of_json(200, document)


def _jwks(state: Simulator, request: Request, note: Note) -> Response:
    return Response.of_json(200, state.keys.jwks())


def _authorize(state: Simulator, request: Request, note: Note) -> Response:
    query = request.query
    redirect_uri = query.get("redirect_uri", "")
    if query.get("client_id") != state.config.client_id:
        return sso_pages.refusal("Unknown client_id.")
    if not _redirect_allowed(redirect_uri, state.config.callbacks):
        return sso_pages.refusal("The redirect_uri is not registered for this application.")
    if not query.get("state"):
        return sso_pages.refusal("The state parameter is required.")
    scopes = tuple(dict.fromkeys(query.get("scope", "").split()))
    if problem := _authorize_problem(query, scopes):
        return _back(redirect_uri, {"error": problem, "state": query["state"]})
    if "character_id" not in query:
        return sso_pages.choose_pilot(state.world.pilots.values(), request.path, query, scopes)
    character_id = query["character_id"]
    if not character_id.isdecimal() or int(character_id) not in state.world.pilots:
        return sso_pages.refusal("There is no such pilot.")
    note.character_id = int(character_id)
    grant = Grant(int(character_id), scopes, redirect_uri, query.get("code_challenge"))
    code = state.grants.issue_code(grant, request.at)
    return _back(redirect_uri, {"code": code, "state": query["state"]})


def _authorize_problem(query: Mapping[str, str], scopes: tuple[str, ...]) -> str | None:
    if query.get("response_type") != "code":
        return "unsupported_response_type"
    if not all(_SCOPE.fullmatch(scope) for scope in scopes):
        return "invalid_scope"
    method = query.get("code_challenge_method")
    if ("code_challenge" in query) != (method == "S256"):
        return "invalid_request"
    return None


def _redirect_allowed(redirect_uri: str, callbacks: tuple[str, ...]) -> bool:
    if callbacks:
        return redirect_uri in callbacks
    parts = urlsplit(redirect_uri)
    return parts.scheme in ("http", "https") and parts.hostname in _LOOPBACK and not parts.fragment


def _back(redirect_uri: str, answer: Mapping[str, str]) -> Response:
    parts = urlsplit(redirect_uri)
    query = urlencode([*parse_qsl(parts.query), *answer.items()])
    return Response(302, headers={"Location": urlunsplit(parts._replace(query=query))})


def _token(state: Simulator, request: Request, note: Note) -> Response:
    try:
        form = _form_of(request)
        note.grant_type = form.get("grant_type")
        public = _authenticate(state, request, form)
        if note.grant_type == "authorization_code":
            body = _exchange(state, request, note, form, public=public)
        elif note.grant_type == "refresh_token":
            body = _refresh(state, request, note, form, public=public)
        else:
            raise RefusedError("unsupported_grant_type", "The grant_type is missing or not supported.")
    except RefusedError as refused:
        answer = {"error": refused.error, "error_description": refused.description}
        return Response.of_json(refused.status, answer)
    except OddAnswerError as odd:
        return Response(odd.answer.status, Payload.of_json(dict(odd.answer.body)), dict(odd.answer.headers))
    return Response(200, Payload.of_json(body), {"Cache-Control": "no-store", "Pragma": "no-cache"})


def _form_of(request: Request) -> dict[str, str]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        raise RefusedError("invalid_request", "The request must be form-urlencoded.")
    return request.form()


def _authenticate(state: Simulator, request: Request, form: Mapping[str, str]) -> bool:
    """Who the client is; returns True for one without a secret. Raises RefusedError for a wrong one."""
    client_id, secret = form.get("client_id"), form.get("client_secret")
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            client_id = None
    if client_id != state.config.client_id or secret not in (None, state.config.client_secret):
        raise RefusedError("invalid_client", "Missing or invalid client credentials.", 401)
    return secret is None


def _exchange(
    state: Simulator, request: Request, note: Note, form: Mapping[str, str], *, public: bool
) -> dict[str, Any]:
    grant = state.grants.redeem_code(form.get("code", ""), form.get("code_verifier"), request.at)
    if public and grant.challenge is None:
        raise RefusedError("invalid_client", "Missing or invalid client credentials.", 401)
    if form.get("redirect_uri", grant.redirect_uri) != grant.redirect_uri:
        raise RefusedError("invalid_grant", "The redirect_uri does not match the authorization request.")
    note.character_id = grant.character_id
    pilot = state.world.pilots[grant.character_id]
    # EVE SSO says 1199 on the first token and 1200 on a refresh.
    body = _bearer(state, pilot, grant.scopes, request.at, spent=1)
    refresh_token = state.grants.issue_token(grant, public=public)
    return body if refresh_token is None else body | {"refresh_token": refresh_token}


def _refresh(
    state: Simulator, request: Request, note: Note, form: Mapping[str, str], *, public: bool
) -> dict[str, Any]:
    text = form.get("refresh_token", "")
    token = state.grants.use_token(text, request.at, public=public)
    note.character_id = token.character_id
    asked = tuple(form.get("scope", "").split()) or token.scopes
    if not set(asked) <= set(token.scopes):
        raise RefusedError("invalid_scope", "The requested scope is not a subset of the granted ones.")
    if state.settings.rotate_refresh_tokens or note.fault == "lost" or token.dead_because is not None:
        text = state.grants.rotate_token(text, request.at, state.settings.rotation_grace_seconds)
    pilot = state.world.pilots[token.character_id]
    return _bearer(state, pilot, asked, request.at) | {"refresh_token": text}


def _bearer(state: Simulator, pilot: Pilot, scopes: tuple[str, ...], now: float, spent: int = 0) -> dict[str, Any]:
    life = max(1, round(state.settings.token_seconds))
    claims: dict[str, Any] = {
        "sub": f"CHARACTER:EVE:{pilot.character_id}",
        "name": pilot.name,
        "owner": pilot.owner,
        "azp": state.config.client_id,
        "aud": [state.config.client_id, "EVE Online"],
        "iss": state.url,
        "iat": int(now),
        "exp": int(now) + life,
        "jti": str(uuid4()),
        "tenant": "tranquility",
        "tier": "live",
        "region": "world",
    }
    if scopes:
        claims["scp"] = scopes[0] if len(scopes) == 1 else list(scopes)
    token = state.keys.sign(claims)
    return {"access_token": token, "expires_in": max(1, life - spent), "token_type": "Bearer"}


def _revoke(state: Simulator, request: Request, note: Note) -> Response:
    form = request.form()
    try:
        _authenticate(state, request, form)
    except RefusedError as refused:
        answer = {"error": refused.error, "error_description": refused.description}
        return Response.of_json(refused.status, answer)
    state.grants.revoke(form.get("token", ""))
    return Response(200)


_Answer = Callable[[Simulator, Request, Note], Response]
_ROUTES: Final[dict[str, tuple[str, str, _Answer]]] = {
    "/.well-known/oauth-authorization-server": ("metadata", "GET", _metadata),
    "/v2/oauth/authorize": ("authorize", "GET", _authorize),
    "/v2/oauth/token": ("token", "POST", _token),
    "/oauth/jwks": ("jwks", "GET", _jwks),
    "/v2/oauth/revoke": ("revoke", "POST", _revoke),
}
