"""What proves to the API who asks: headers or a query parameter.

The CDK's own authenticators read a secret through Jinja, which takes ``1e5`` for a number and breaks characters beyond
the Basic Multilingual Plane; here a secret is never evaluated.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from airbyte_cdk.sources.declarative.auth.declarative_authenticator import DeclarativeAuthenticator

from source_rest_api.form import SHARED, ApiKey, Basic, Bearer, Credentials, Form, NoCredentials, OAuthClientCredentials
from source_rest_api.oauth import TokenStore

TOKENS = "tokens"  # in what the components share: one store for all streams


@dataclass
class FormAuthenticator(DeclarativeAuthenticator):
    """A component of manifest.yaml: the form's credentials.

    Args:
        config: the whole form.
    """

    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        credentials = Form.of(self.config).credentials
        self._headers = headers_of(credentials)
        self._params = params_of(credentials)
        self._tokens: TokenStore | None = None
        if isinstance(credentials, OAuthClientCredentials):
            shared: dict[str, Any] = self.config.get(SHARED, {})
            self._tokens = shared.setdefault(TOKENS, TokenStore(credentials))
            # Only authenticators that have this method are asked to renew a token (CDK, HttpClient).
            self.refresh_and_set_access_token = self._tokens.renew

    def get_auth_header(self) -> Mapping[str, Any]:
        """Part of the CDK's interface."""
        if self._tokens is not None:
            return {"Authorization": as_header(f"Bearer {self._tokens.token()}")}
        return self._headers

    def get_request_params(self) -> Mapping[str, Any]:
        """Part of the CDK's interface."""
        return self._params

    @property
    def auth_header(self) -> str:
        """Part of the CDK's interface; the header's name, empty if there is none."""
        return next(iter(self.get_auth_header()), "")

    @property
    def token(self) -> str:
        """Part of the CDK's interface; the header's value."""
        return next(iter(self.get_auth_header().values()), "")


def headers_of(credentials: Credentials) -> dict[str, str]:
    """The headers that carry these credentials (RFC 7617 and RFC 6750 for Authorization)."""
    match credentials:
        case Basic(username=username, password=password):
            return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}
        case Bearer(token=token, prefix=prefix):
            return {"Authorization": as_header(f"{prefix} {token}".lstrip())}
        case ApiKey(api_key=key, name=name, inject_into="header"):
            return {name: as_header(key)}
        case NoCredentials() | ApiKey() | OAuthClientCredentials():
            return {}
        case other:
            assert_never(other)


def params_of(credentials: Credentials) -> dict[str, str]:
    """The query parameters that carry these credentials."""
    match credentials:
        case ApiKey(api_key=key, name=name, inject_into="query"):
            return {name: key}
        case _:
            return {}


def as_header(text: str) -> str:
    """A text whose bytes on the wire are UTF-8: the HTTP client writes headers as Latin-1."""
    return text.encode().decode("latin-1")
