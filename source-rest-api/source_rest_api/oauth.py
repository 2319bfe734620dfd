"""Access tokens by client credentials (RFC 6749, 4.4): fetched when needed, renewed before they expire.

Thread-safe: workers share one token. A token that the API refuses is renewed once by the CDK's client
(``refresh_and_set_access_token``), and refused again it is a config_error.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import requests
from airbyte_cdk.utils.airbyte_secrets_utils import add_to_secrets

from source_rest_api.api_errors import api_text
from source_rest_api.errors import config_error, plain_url, transient_error
from source_rest_api.form import OAuthClientCredentials

EARLY_SECONDS = 60.0  # a token is renewed this long before it expires
DEFAULT_LIFETIME_SECONDS = 3600.0
TRIES = 3
TIMEOUT_SECONDS = 30


class TokenStore:
    """The current access token of one set of client credentials."""

    def __init__(self, credentials: OAuthClientCredentials, *, now: Callable[[], float] = time.monotonic):
        self._credentials = credentials
        self._now = now
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    def token(self) -> str:
        """A token that is valid now.

        Raises:
            AirbyteTracedException: the token endpoint refuses the credentials, or cannot be reached.
        """
        with self._lock:
            if not self._token or self._now() >= self._until:
                self._fetch()
            return self._token

    def renew(self) -> None:
        """Forget the token and fetch another. Raises as ``token``."""
        with self._lock:
            self._fetch()

    def _fetch(self) -> None:
        answer = self._ask()
        try:
            found: Any = orjson.loads(answer.content)
        except orjson.JSONDecodeError:
            found = None
        token = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(token, str) or not token:
            where = plain_url(self._credentials.token_url)
            raise config_error(f"{where} answered without an access_token. Check credentials.token_url.")
        add_to_secrets(token)
        lifetime = found.get("expires_in")
        seconds = float(lifetime) if isinstance(lifetime, int | float) and lifetime > 0 else DEFAULT_LIFETIME_SECONDS
        self._token = token
        self._until = self._now() + max(seconds - EARLY_SECONDS, seconds / 2)

    def _ask(self) -> requests.Response:
        where = plain_url(self._credentials.token_url)
        words = f"{where} cannot be reached"
        for attempt in range(TRIES):
            if attempt:
                time.sleep(2.0**attempt)
            try:
                response = requests.post(
                    self._credentials.token_url,
                    data=self._form(),
                    auth=self._sign,
                    timeout=TIMEOUT_SECONDS,
                    allow_redirects=False,  # the secret goes nowhere else
                )
            except requests.exceptions.RequestException:
                continue
            if response.ok and not response.is_redirect:
                return response
            words = f"{where} answered {response.status_code}{api_text(response)}"
            if response.status_code < 500 and response.status_code != 429:
                raise config_error(f"{words}. Check credentials: the token endpoint refuses them.")
        raise transient_error(f"{words}. Check credentials.token_url, or try later.")

    def _form(self) -> dict[str, str]:
        credentials = self._credentials
        form = {"grant_type": "client_credentials"}
        if credentials.scopes:
            form["scope"] = credentials.scopes
        if credentials.audience:
            form["audience"] = credentials.audience
        if credentials.client_auth == "body":
            form |= {"client_id": credentials.client_id, "client_secret": credentials.client_secret}
        return form | {pair.name: pair.value for pair in credentials.extra_params}

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """In place of requests' own look into ~/.netrc."""
        if self._credentials.client_auth == "basic":
            pair = f"{self._credentials.client_id}:{self._credentials.client_secret}"
            request.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return request
