"""What keeps a browser out of trouble: response headers and form tokens.

Names of pilots and killmails come from strangers: pages run no inline script or style and load nothing but ours and
EVE's image server.
"""

from __future__ import annotations

from flask import Flask, Response, abort, request

from api.callers import limiter
from api.session import is_form_token
from settings import Settings

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' https://images.evetech.net",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


def protect(app: Flask, settings: Settings) -> None:
    """Add the headers to every response, and turn the limits on."""
    limiter.init_app(app)
    https = settings.eve_callback_url.startswith("https://")

    @app.after_request
    def add_headers(response: Response) -> Response:
        headers = response.headers
        headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("X-Frame-Options", "DENY")
        headers.setdefault("Referrer-Policy", "no-referrer")
        headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
        if request.endpoint != "static":
            headers.setdefault("Cache-Control", "no-store")
        if https:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        return response


def require_form_token() -> None:
    """Ends a form post that no page of ours sent with 400."""
    if not is_form_token(request.form.get("csrf_token", "")):
        abort(400, "This page was open for too long. Please go back, load it again, and try once more.")
