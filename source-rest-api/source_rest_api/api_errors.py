"""What an answer or a broken connection means for the sync, and how long to wait before the next try."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.streams.http.error_handlers import (
    BackoffStrategy,
    ErrorHandler,
    ErrorResolution,
    ResponseAction,
)
from airbyte_cdk.utils.airbyte_secrets_utils import filter_secrets

from source_rest_api.body import value_in
from source_rest_api.errors import plain_host, shown_url
from source_rest_api.form import SHARED, Form, RateLimit
from source_rest_api.limits import Gate, check_wait, is_limit, retry_after, wait_asked

IGNORED = "ignored"  # in what the components share: answers by stream and status code
LONGEST_BACKOFF_SECONDS = 600.0
MOST_ERROR_BYTES = 65_536
MOST_ERROR_TEXT = 300
RETRIED = {408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524}
ADVICE = {
    400: "Check query_params, pagination and incremental: the API refuses one of them.",
    401: "Check credentials: the API does not accept them.",
    403: "Check that the credentials may read this.",
    404: "Check base_url and path.",
    405: "Check path and method: the API does not allow this one here.",
    406: "Check headers.",
    414: "The URL became too long: check query_params.",
}
MESSAGES = ("message", "error_description", "error_message", "errorMessages", "detail", "error", "errors", "title",
            "reason", "description")  # fmt: skip
RENEWABLE = ("oauth_client_credentials", "oauth_refresh_token", "session_token", "jwt")


@dataclass
class ApiErrorHandler(ErrorHandler):
    """A component of manifest.yaml. Says who should act: 4xx the user, limits and 5xx time.

    Args:
        config: the whole form.
        stream: the stream's name in it.
        max_retries_: fewer than the form's, for a check.
    """

    config: Mapping[str, Any]
    stream: str
    max_retries_: int | None = None

    def __post_init__(self) -> None:
        form = Form.of(self.config)
        self._form = form
        self._stream = form.stream(self.stream)
        shared: dict[str, Any] = self.config.get(SHARED, {})
        self._ignored: Counter[int] = shared.setdefault(IGNORED, {}).setdefault(self.stream, Counter())
        self.backoff_strategies = [Backoff(form.rate_limit, Gate.shared(self.config, form.rate_limit))]

    @property
    def max_retries(self) -> int:
        return self._form.max_retries if self.max_retries_ is None else self.max_retries_

    @property
    def max_time(self) -> int:
        return self._form.rate_limit.max_wait_seconds * (self.max_retries + 1)

    def interpret_response(self, response: requests.Response | Exception | None) -> ErrorResolution:
        """Part of the CDK's interface."""
        if not isinstance(response, requests.Response):
            return self._of_exception(response)
        if 200 <= response.status_code < 300:
            return ErrorResolution(ResponseAction.SUCCESS)
        code = response.status_code
        text = f"{self._asked(response.request)} answered {code}{api_text(response, self._message_path)}."
        if code in self._stream.ignore_status_codes:
            self._ignored[code] += 1
            is_first = self._ignored[code] == 1  # the others are counted, and said at the stream's end
            action = ResponseAction.IGNORE if is_first else ResponseAction.SUCCESS
            return ErrorResolution(action, None, f"{text} It is ignored, as the form says.")
        if is_limit(code, response.headers, self._form.rate_limit):
            return ErrorResolution(
                ResponseAction.RATE_LIMITED, FailureType.transient_error, f"{text} It limits the rate."
            )
        if code == 401 and self._form.credentials.__struct_config__.tag in RENEWABLE:
            return ErrorResolution(ResponseAction.REFRESH_TOKEN_THEN_RETRY, FailureType.transient_error, text)
        if code in RETRIED:
            return ErrorResolution(ResponseAction.RETRY, FailureType.transient_error, text)
        if 300 <= code < 400:
            text += " Set base_url to where it redirects."
        return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, f"{text} {ADVICE.get(code, '')}".strip())

    @property
    def _message_path(self) -> str:
        return self._stream.errors.error_message_path if self._stream.errors else ""

    def _asked(self, request: requests.PreparedRequest | None) -> str:
        """Method and URL without what may be data: the query, and values of parents in the path."""
        if request is None:
            return "The API"
        return f"{request.method} {shown_url(request.url, self._form.base_url, self._stream.path)}"

    def _of_exception(self, problem: Exception | None) -> ErrorResolution:
        where = self._asked(getattr(problem, "request", None))
        errors = requests.exceptions
        match problem:
            case errors.SSLError():
                text = f"{where}: its certificate was not accepted. Check base_url and ca_bundle."
                return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
            case errors.InvalidURL() | errors.InvalidSchema() | errors.InvalidHeader():
                text = f"{where}: no such request can be made. Check base_url, path and headers."
                return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
            case errors.TooManyRedirects():
                text = f"{where} redirects in a circle. Check base_url, path and credentials."
                return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
            case errors.Timeout():
                text = f"{where} did not answer in time. Try later, or raise timeout_seconds."
            case errors.ProxyError():
                text = f"{where} cannot be reached through the proxy. Check https_proxy and http_proxy."
            case _:
                text = f"{where} cannot be reached. Check base_url and the network."
        return ErrorResolution(ResponseAction.RETRY, FailureType.transient_error, text)


@dataclass(frozen=True)
class Backoff(BackoffStrategy):
    """As long as the API asks for; otherwise 1, 2, 4, ... seconds."""

    rule: RateLimit
    gate: Gate

    def backoff_time(
        self, response_or_exception: requests.Response | requests.RequestException | None, attempt_count: int
    ) -> float:
        """Seconds until the next try (the CDK adds one).

        Raises:
            AirbyteTracedException: a transient error if the API asks for more than the form allows.
        """
        if isinstance(response_or_exception, requests.Response):
            asked = self._asked(response_or_exception)
            if asked is not None:
                check_wait(asked, self.rule, f"{plain_host(response_or_exception.url)} asks to wait")
                return asked
        return min(LONGEST_BACKOFF_SECONDS, 0.1 + 2.0 ** (attempt_count - 1))

    def _asked(self, response: requests.Response) -> float | None:
        if not is_limit(response.status_code, response.headers, self.rule):
            return retry_after(response.headers, time.time())
        asked = wait_asked(response.headers, self.rule, time.time())
        if asked is not None:
            self.gate.hold(asked)
        return asked


def api_text(response: requests.Response, message_path: str = "") -> str:
    """The API's own words about an error, short, as ``: words``; empty if it has none. Bounded in memory."""
    body = _start_of(response)
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    try:
        return words_of(orjson.loads(body), message_path)
    except orjson.JSONDecodeError:
        return _cut(body.decode("utf-8", "replace")) if kind == "text/plain" else ""


def words_of(body: Any, message_path: str) -> str:
    """The words of an error in a parsed body: at the form's path, or where APIs put them."""
    return _cut(_message_in(value_in(body, message_path.split(".")) if message_path else body))


def _cut(text: str) -> str:
    """Secrets are masked first: the rest of one that is cut would not be found any more."""
    words = " ".join(filter_secrets(text).split())
    return f": {words[:MOST_ERROR_TEXT].rstrip('. ')}" if words else ""


def _start_of(response: requests.Response) -> bytes:
    """At most 64 KB of a body that may not have been read yet; the CDK's own look at it then finds only those."""
    if not getattr(response, "_content_consumed", True):  # requests has no other way to bound a body
        try:
            found = response.raw.read(MOST_ERROR_BYTES, decode_content=True)
        except Exception:  # noqa: BLE001  # whatever breaks here, the status is what counts
            found = b""
        response._content = found
        setattr(response, "_content_consumed", True)  # noqa: B010  # the stubs do not know it
        response.close()
    return response.content[:MOST_ERROR_BYTES]


def _message_in(body: Any) -> str:
    """The usual places of an error's words."""
    match body:
        case str():
            return body
        case list():
            return "; ".join(filter(None, map(_message_in, body[:5])))
        case dict():
            for name in MESSAGES:
                if body.get(name):
                    return _message_in(body[name])
    return ""
