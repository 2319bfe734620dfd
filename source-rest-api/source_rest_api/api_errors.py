"""What an answer or a broken connection means for the sync, and how long to wait before the next try."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
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

from source_rest_api.errors import plain_url

LONGEST_WAIT_SECONDS = 600.0
MOST_ERROR_BYTES = 65_536
MOST_ERROR_TEXT = 300
RETRIED = {408, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524}
ADVICE = {
    400: "Check query_params, pagination and incremental: the API refuses one of them.",
    401: "Check credentials: the API does not accept them.",
    403: "Check that the credentials may read this.",
    404: "Check base_url and path.",
    405: "Check path: the API does not allow GET here.",
    406: "Check headers.",
    414: "The URL became too long: check query_params.",
}


@dataclass
class ApiErrorHandler(ErrorHandler):
    """A component of manifest.yaml. Says who should act: 4xx the user, 429 and 5xx time."""

    config: Mapping[str, Any]
    max_retries_: int | None = None
    ignored: list[int] | None = None

    def __post_init__(self) -> None:
        self.backoff_strategies = [Backoff()]

    @property
    def max_retries(self) -> int:
        if self.max_retries_ is not None:
            return self.max_retries_
        return int(self.config.get("max_retries", 5))

    @property
    def max_time(self) -> int:
        return int(LONGEST_WAIT_SECONDS * 2)

    def interpret_response(self, response: requests.Response | Exception | None) -> ErrorResolution:
        """Part of the CDK's interface."""
        if not isinstance(response, requests.Response):
            return _resolve_exception(response)
        if 200 <= response.status_code < 300:
            return ErrorResolution(ResponseAction.SUCCESS)
        code, where = response.status_code, plain_url(response.url)
        text = f"{where} answered {code}{api_text(response)}."
        if code in (self.ignored or ()):
            return ErrorResolution(ResponseAction.IGNORE, None, f"{text} It is ignored, as the form says.")
        if code == 429 or (code == 403 and is_rate_limit(response)):
            return ErrorResolution(
                ResponseAction.RATE_LIMITED, FailureType.transient_error, f"{text} It limits the rate."
            )
        if code == 401 and self.config.get("credentials", {}).get("auth_type", "").startswith("oauth"):
            return ErrorResolution(ResponseAction.REFRESH_TOKEN_THEN_RETRY, FailureType.transient_error, text)
        if code in RETRIED:
            return ErrorResolution(ResponseAction.RETRY, FailureType.transient_error, text)
        if 300 <= code < 400:
            text += " Set base_url to where it redirects."
        return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, f"{text} {ADVICE.get(code, '')}".strip())


class Backoff(BackoffStrategy):
    """As long as the API asks for; otherwise 1, 2, 4, ... seconds."""

    def backoff_time(
        self, response_or_exception: requests.Response | requests.RequestException | None, attempt_count: int
    ) -> float:
        """Seconds until the next try (the CDK adds one)."""
        asked = wait_asked(response_or_exception) if isinstance(response_or_exception, requests.Response) else None
        return min(LONGEST_WAIT_SECONDS, asked if asked is not None else 0.1 + 2.0 ** (attempt_count - 1))


def wait_asked(response: requests.Response) -> float | None:
    """Seconds of Retry-After (RFC 9110: seconds or a date) or until X-RateLimit-Reset (epoch or seconds)."""
    after = response.headers.get("Retry-After", "").strip()
    if after:
        try:
            return max(
                0.1,
                float(after)
                if after.replace(".", "", 1).isdigit()
                else parsedate_to_datetime(after).timestamp() - time.time(),
            )
        except ValueError:
            pass
    reset = response.headers.get("X-RateLimit-Reset", "").strip()
    if reset.isdigit():
        seconds = float(reset)
        return max(0.1, seconds - time.time() if seconds > 1_000_000_000 else seconds)
    return None


def is_rate_limit(response: requests.Response) -> bool:
    """A 403 that means "later", as GitHub's does."""
    return "Retry-After" in response.headers or response.headers.get("X-RateLimit-Remaining") == "0"


def api_text(response: requests.Response) -> str:
    """The API's own words about an error, short, as ``: words``; empty if it has none. Bounded in memory."""
    body = _start_of(response)
    kind = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    try:
        found = _message_in(orjson.loads(body))
    except orjson.JSONDecodeError:
        found = body.decode("utf-8", "replace") if kind == "text/plain" else ""
    words = " ".join(found.split())
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
            for name in ("message", "error_description", "detail", "error", "errors", "title", "reason", "description"):
                if body.get(name):
                    return _message_in(body[name])
    return ""


def _resolve_exception(problem: Exception | None) -> ErrorResolution:
    request = getattr(problem, "request", None)
    where = plain_url(request.url) if request is not None else "The API"
    match problem:
        case requests.exceptions.SSLError():
            text = f"{where}: its certificate was not accepted. Check base_url, or the certificates of this machine."
            return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
        case (
            requests.exceptions.InvalidURL() | requests.exceptions.InvalidSchema() | requests.exceptions.InvalidHeader()
        ):
            text = f"{where}: no such request can be made. Check base_url, path and headers."
            return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
        case requests.exceptions.TooManyRedirects():
            text = f"{where} redirects in a circle. Check base_url, path and credentials."
            return ErrorResolution(ResponseAction.FAIL, FailureType.config_error, text)
        case requests.exceptions.Timeout():
            text = f"{where} did not answer in time. Try later, or raise timeout_seconds."
        case _:
            text = f"{where} cannot be reached. Check base_url and the network."
    return ErrorResolution(ResponseAction.RETRY, FailureType.transient_error, text)
