"""What proves to the API who asks: headers, a query parameter, or a field of the body.

The CDK's own authenticators read a secret through Jinja, which takes ``1e5`` for a number and breaks characters beyond
the Basic Multilingual Plane; here a secret is never evaluated.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from airbyte_cdk.sources.declarative.auth.declarative_authenticator import DeclarativeAuthenticator

from source_rest_api.form import (
    SHARED,
    ApiKey,
    Basic,
    Bearer,
    Credentials,
    Form,
    Jwt,
    NoCredentials,
    OAuthClientCredentials,
    OAuthRefreshToken,
    SessionToken,
)
from source_rest_api.tokens import TokenCredentials, TokenStore, store_of

TOKENS = "tokens"  # in what the components share: one store for all streams


@dataclass
class FormAuthenticator(DeclarativeAuthenticator):
    """A component of manifest.yaml: the form's credentials.

    Args:
        config: the whole form.
    """

    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        form = Form.of(self.config)
        self._credentials = form.credentials
        self._tokens: TokenStore | None = None
        if isinstance(self._credentials, get_args(TokenCredentials)):
            shared: dict[str, Any] = self.config.get(SHARED, {})
            if TOKENS not in shared:
                shared[TOKENS] = store_of(self._credentials, form, self.config)
            self._tokens = shared[TOKENS]
            # Only authenticators that have this method are asked to renew a token (CDK, HttpClient).
            self.refresh_and_set_access_token = self._tokens.renew

    def get_auth_header(self) -> Mapping[str, Any]:
        """Part of the CDK's interface."""
        return headers_of(self._credentials, self._tokens.token() if self._tokens is not None else "")

    def get_request_params(self) -> Mapping[str, Any]:
        """Part of the CDK's interface."""
        return params_of(self._credentials, self._tokens.token() if self._tokens is not None else "")

    def __call__(self, request: Any) -> Any:
        """Part of requests' interface; called again before each retry, when the token may be another one."""
        request.headers.update(self.get_auth_header())
        match self._credentials:
            case SessionToken(name=name, inject_into="query"):
                parts = urlsplit(request.url)
                query = [(key, value) for key, value in parse_qsl(parts.query, True) if key != name]
                query += self.get_request_params().items()
                request.url = urlunsplit(parts._replace(query=urlencode(query)))
            case _:
                pass
        return request

    @property
    def auth_header(self) -> str:
        """Part of the CDK's interface; the header's name, empty if there is none."""
        return next(iter(self.get_auth_header()), "")

    @property
    def token(self) -> str:
        """Part of the CDK's interface; the header's value."""
        return next(iter(self.get_auth_header().values()), "")


def headers_of(credentials: Credentials, fetched: str = "") -> dict[str, str]:
    """The headers that carry these credentials (RFC 7617 and RFC 6750 for Authorization).

    Args:
        credentials: of the form.
        fetched: the current token, for kinds that fetch one.
    """
    match credentials:
        case Basic(username=username, password=password):
            return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}
        case Bearer(token=token, prefix=prefix):
            return {"Authorization": _prefixed(prefix, token)}
        case ApiKey(api_key=key, name=name, inject_into="header"):
            return {name: as_header(key)}
        case OAuthClientCredentials() | OAuthRefreshToken():
            return {"Authorization": _prefixed("Bearer", fetched)}
        case SessionToken(name=name, prefix=prefix, inject_into="header"):
            return {name: _prefixed(prefix, fetched)}
        case Jwt(header_prefix=prefix):
            return {"Authorization": _prefixed(prefix, fetched)}
        case NoCredentials() | ApiKey() | SessionToken():
            return {}
        case other:
            assert_never(other)


def params_of(credentials: Credentials, fetched: str = "") -> dict[str, str]:
    """The query parameters that carry these credentials."""
    match credentials:
        case ApiKey(api_key=key, name=name, inject_into="query"):
            return {name: key}
        case SessionToken(name=name, inject_into="query"):
            return {name: fetched}
        case _:
            return {}


def body_of(credentials: Credentials) -> dict[str, str]:
    """The fields of a JSON body that carry these credentials, by dotted path."""
    match credentials:
        case ApiKey(api_key=key, name=name, inject_into="body"):
            return {name: key}
        case _:
            return {}


def as_header(text: str) -> str:
    """A text whose bytes on the wire are UTF-8: the HTTP client writes headers as Latin-1."""
    return text.encode().decode("latin-1")


def _prefixed(prefix: str, token: str) -> str:
    return as_header(f"{prefix} {token}".lstrip())
