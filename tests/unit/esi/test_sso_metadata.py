"""Which addresses of a metadata document are believed: a table."""

from __future__ import annotations

import pytest

from esi.errors import SsoConfiguration, SsoUnavailable
from esi.sso_metadata import Metadata, read_metadata

SSO = "https://login.eveonline.com"


def document(home: str = SSO, **changes: object) -> dict[str, object]:
    return {
        "issuer": home,
        "authorization_endpoint": f"{home}/v2/oauth/authorize",
        "token_endpoint": f"{home}/v2/oauth/token",
        "jwks_uri": f"{home}/oauth/jwks",
        "revocation_endpoint": f"{home}/v2/oauth/revoke",
        "userinfo_endpoint": "ignored",
        **changes,
    }


@pytest.mark.parametrize("home", [SSO, "http://127.0.0.1:8123", "http://localhost:8123", "http://[::1]:8123"])
def test_endpoints_at_home_are_read(home):
    metadata = read_metadata(document(home), home)

    assert metadata.token_endpoint == f"{home}/v2/oauth/token"
    assert metadata.issuer == home


@pytest.mark.parametrize(
    ("sso_url", "address"),
    [
        (SSO, "https://tokens.login.eveonline.com/token"),
        (SSO, "https://LOGIN.eveonline.com/token"),
        (SSO, "https://login.eveonline.com:443/token"),
        ("http://localhost:8123", "http://127.0.0.1:8123/token"),
    ],
)
def test_an_address_at_home_is_believed(sso_url, address):
    assert read_metadata(document(sso_url, token_endpoint=address), sso_url).token_endpoint == address


@pytest.mark.parametrize(
    ("sso_url", "address"),
    [
        (SSO, "http://login.eveonline.com/token"),
        (SSO, "https://eveonline.com/token"),
        (SSO, "https://evil.example/token"),
        (SSO, "https://evil-login.eveonline.com/token"),
        (SSO, "https://evillogin.eveonline.com/token"),
        (SSO, "https://login.eveonline.com.evil.example/token"),
        (SSO, "https://login.eveonline.com@evil.example/token"),
        (SSO, "https://evil.example\\@login.eveonline.com/token"),
        (SSO, "https://evil.example#login.eveonline.com/token"),
        (SSO, "https://login.eveonline.com:8443/token"),
        (SSO, "https://login.eveonline.com:port/token"),
        (SSO, "https://login.eveonline.com/token?a=b"),
        (SSO, "https://login.eveonline.com/to\nken"),
        (SSO, "https://login.eveonline.cоm/token"),  # the second o of com is Cyrillic
        (SSO, "file://login.eveonline.com/etc/passwd"),
        (SSO, "//login.eveonline.com/token"),
        (SSO, "/v2/oauth/token"),
        (SSO, "https:///token"),
        (SSO, "http://127.0.0.1:443/token"),
        ("http://127.0.0.1:8123", "http://127.0.0.1:8124/token"),
        ("http://127.0.0.1:8123", "http://10.0.0.5:8123/token"),
        ("http://127.0.0.1:8123", "ftp://127.0.0.1:8123/token"),
        ("http://sso.example.com", "http://sso.example.com/token"),
    ],
)
@pytest.mark.parametrize("name", Metadata.__slots__)
def test_an_address_elsewhere_is_not(sso_url, address, name):
    with pytest.raises(SsoConfiguration, match="SSO_URL"):
        read_metadata(document(sso_url, **{name: address}), sso_url)


@pytest.mark.parametrize("value", [None, 5, "", ["https://login.eveonline.com"], "https://login.eveonline.com/" * 100])
@pytest.mark.parametrize("name", Metadata.__slots__)
def test_a_missing_or_malformed_address_is_a_broken_answer(name, value):
    with pytest.raises(SsoUnavailable, match=name):
        read_metadata(document(**{name: value}), SSO)
