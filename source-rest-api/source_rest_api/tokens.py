"""Access tokens: fetched when needed, renewed before they expire.

Thread-safe: workers share one token. A token that the API refuses is renewed once by the CDK's client
(``refresh_and_set_access_token``), and refused again it is a config_error. A refresh token that the API rotates is
written back at once, by a CONTROL message with the whole configuration: the old one is worth nothing any more.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import jwt
import msgspec
import orjson
import requests
from airbyte_cdk.config_observation import emit_configuration_as_airbyte_control_message
from airbyte_cdk.utils.airbyte_secrets_utils import add_to_secrets

from source_rest_api.api_errors import api_text
from source_rest_api.body import value_in
from source_rest_api.errors import config_error, plain_url, transient_error
from source_rest_api.form import (
    SHARED,
    Form,
    Jwt,
    OAuth,
    OAuthClientCredentials,
    OAuthRefreshToken,
    SessionToken,
    without_ours,
)
from source_rest_api.masking import forms_of
from source_rest_api.network import session_of
from source_rest_api.watching import CREDENTIALS, show_answers, watcher_of

KEEPER = "keeper"  # in what the components share: who keeps a rotated configuration, if it is not the platform
EARLY_SECONDS = 60.0  # a token is renewed this long before it expires
DEFAULT_LIFETIME_SECONDS = 3600.0
TRIES = 3
TIMEOUT_SECONDS = 30

TokenCredentials = OAuthClientCredentials | OAuthRefreshToken | SessionToken | Jwt


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    lifetime_seconds: float


class TokenStore:
    """The current token of one set of credentials.

    Args:
        fetch: makes a new token.
    """

    def __init__(self, fetch: Callable[[], Token], *, now: Callable[[], float] = time.monotonic):
        self._fetch = fetch
        self._now = now
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """A token that is valid now.

        Raises:
            AirbyteTracedException: the credentials are refused, or the token endpoint cannot be reached.
        """
        with self._lock:
            if not self._token or self._now() >= self._until:
                self._renew()
            return self._token

    def renew(self) -> None:
        """Forget the token and fetch another. Raises as ``token``."""
        with self._lock:
            self._renew()

    def _renew(self) -> None:
        found = self._fetch()
        hide(found.text)
        self._token = found.text
        self._until = self._now() + max(found.lifetime_seconds - EARLY_SECONDS, found.lifetime_seconds / 2)


def store_of(credentials: TokenCredentials, form: Form, config: Mapping[str, Any]) -> TokenStore:
    """The store for a kind of credentials.

    Args:
        credentials: of the form.
        form: for the network.
        config: as it was given, to be written back with a rotated refresh token.
    """
    match credentials:
        case OAuthClientCredentials():
            return TokenStore(_OAuth(credentials, form, config).by_client)
        case OAuthRefreshToken():
            return TokenStore(_OAuth(credentials, form, config).by_refresh_token)
        case SessionToken():
            return TokenStore(_Login(credentials, form, config).token)
        case Jwt():
            return TokenStore(lambda: signed(credentials, int(time.time())))
        case other:
            assert_never(other)


def hide(secret: str) -> None:
    """Keep a secret out of logs and errors, in every form in which it may come back."""
    for form in forms_of(secret):
        add_to_secrets(form)


def signed(credentials: Jwt, now: int) -> Token:
    """A JSON Web Token (RFC 7519) with the form's claims, ``iat`` and ``exp``.

    Raises:
        AirbyteTracedException: the key is none for this algorithm.
    """
    lifetime = credentials.lifetime_seconds
    claims = {"iat": now, "exp": now + lifetime, **msgspec.json.decode(credentials.claims)}
    headers = {"kid": credentials.key_id} if credentials.key_id else None
    try:
        text = jwt.encode(claims, credentials.key, credentials.algorithm, headers=headers)
    except (jwt.exceptions.PyJWTError, ValueError, TypeError):
        raise config_error(
            f"credentials.key is no key for {credentials.algorithm}: RS and ES need a private key in PEM form, HS a "
            "text."
        ) from None
    return Token(text, lifetime)


class _OAuth:
    """A token endpoint (RFC 6749): client credentials (4.4), or a refresh token (6)."""

    def __init__(self, credentials: OAuth, form: Form, config: Mapping[str, Any]):
        self._credentials = credentials
        self._config = config
        self._session = session_of(form)
        show_answers(self._session, watcher_of(config), CREDENTIALS)
        self._refresh_token = credentials.refresh_token if isinstance(credentials, OAuthRefreshToken) else ""

    def by_client(self) -> Token:
        return _oauth_token(self._ask({"grant_type": "client_credentials"}), self._credentials.token_url)

    def by_refresh_token(self) -> Token:
        found = self._ask({"grant_type": "refresh_token", "refresh_token": self._refresh_token})
        token = _oauth_token(found, self._credentials.token_url)
        rotated = value_in(found, ["refresh_token"])
        if isinstance(rotated, str) and rotated and rotated != self._refresh_token:
            hide(rotated)
            self._refresh_token = rotated
            own = without_ours(self._config)
            own["credentials"] = {**own.get("credentials", {}), "refresh_token": rotated}
            self._config.get(SHARED, {}).get(KEEPER, emit_configuration_as_airbyte_control_message)(own)
        return token

    def _ask(self, grant: Mapping[str, str]) -> Any:
        credentials = self._credentials
        form = {
            **grant,
            **({"scope": credentials.scopes} if credentials.scopes else {}),
            **({"audience": credentials.audience} if credentials.audience else {}),
            **{pair.name: pair.value for pair in credentials.extra_params},
        }
        if credentials.client_auth == "body":
            form["client_id"] = credentials.client_id
            if credentials.client_secret:
                form["client_secret"] = credentials.client_secret
        return ask(self._session, "POST", credentials.token_url, data=form, auth=self._sign)

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """In place of requests' own look into ~/.netrc."""
        if self._credentials.client_auth == "basic":
            pair = f"{self._credentials.client_id}:{self._credentials.client_secret}"
            request.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return request


class _Login:
    """A login that answers with a token."""

    def __init__(self, credentials: SessionToken, form: Form, config: Mapping[str, Any]):
        self._credentials = credentials
        self._session = session_of(form)
        show_answers(self._session, watcher_of(config), CREDENTIALS)

    def token(self) -> Token:
        credentials = self._credentials
        body = credentials.login_body or None
        headers = {"Content-Type": "application/json"} if body else {}
        found = ask(
            self._session,
            credentials.login_method,
            credentials.login_url,
            data=body.encode() if body else None,
            headers=headers,
            auth=lambda request: request,
        )
        token = value_in(found, credentials.token_path.split("."))
        if not isinstance(token, str) or not token:
            where = plain_url(credentials.login_url)
            raise config_error(f"{where} answered without a text at {credentials.token_path!r}. Check token_path.")
        return Token(token, credentials.lifetime_seconds)


def ask(session: requests.Session, method: str, url: str, **request: Any) -> Any:
    """The JSON that an endpoint for tokens answers, None if it is no JSON. Tried again if that may help.

    Raises:
        AirbyteTracedException: it refuses (config_error), or cannot be reached (transient_error).
    """
    where = plain_url(url)
    words = f"{where} cannot be reached"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(2.0**attempt)
        try:
            # No redirects: the secret goes nowhere else.
            response = session.request(method, url, timeout=TIMEOUT_SECONDS, allow_redirects=False, **request)
        except requests.exceptions.SSLError:
            raise config_error(f"{where}: its certificate was not accepted. Check its URL and ca_bundle.") from None
        except requests.exceptions.RequestException:
            continue
        if response.ok and not response.is_redirect:
            try:
                return orjson.loads(response.content)
            except orjson.JSONDecodeError:
                return None
        words = f"{where} answered {response.status_code}{api_text(response)}"
        if response.status_code < 500 and response.status_code != 429:
            raise config_error(f"{words}. Check credentials: the token endpoint refuses them.")
    raise transient_error(f"{words}. Check the URL in credentials, or try later.")


def _oauth_token(found: Any, url: str) -> Token:
    token = value_in(found, ["access_token"])
    if not isinstance(token, str) or not token:
        raise config_error(f"{plain_url(url)} answered without an access_token. Check credentials.token_url.")
    lifetime = value_in(found, ["expires_in"])
    if isinstance(lifetime, str) and lifetime.isdigit():
        lifetime = int(lifetime)
    seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else DEFAULT_LIFETIME_SECONDS
    return Token(token, seconds)
