"""One request and its whole answer: made of the form, sent by the CDK's client, read up to ``max_response_mb``.

The CDK signs, retries and limits; what goes into a request is never evaluated, and no credential goes to another host.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.declarative.requesters.http_requester import HttpRequester
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

from source_rest_api.api_errors import ADVICE
from source_rest_api.body import BodyError
from source_rest_api.credentials import as_header, body_of
from source_rest_api.errors import config_error, plain_url, shown_url, transient_error
from source_rest_api.form import PARENT, Form, Stream
from source_rest_api.formats import TooLarge, unzipped
from source_rest_api.limits import Gate
from source_rest_api.network import prepare, read_body
from source_rest_api.pagination import Request, placed_request
from source_rest_api.rows import Window
from source_rest_api.streams import request_format
from source_rest_api.times import to_text
from source_rest_api.watching import Watcher, show_answers

# Of a redirect to another host only these headers go along: any other may hold credentials.
HARMLESS_HEADERS = {"accept", "accept-encoding", "accept-language", "connection", "host", "user-agent"}
KEEPS_BODY = (307, 308)


class Exchange:
    """Requests of one stream. Used by several threads at once: nothing here changes.

    Args:
        form: the whole form.
        stream: the stream in it.
        requester: the CDK's.
        gate: what the API said of its limit, for all streams.
        with_cursor: whether the stream's cursor narrows the requests.
        watcher: who looks on, if anybody.
    """

    def __init__(
        self,
        form: Form,
        stream: Stream,
        requester: HttpRequester,
        gate: Gate,
        *,
        with_cursor: bool,
        watcher: Watcher | None = None,
    ):
        self._form = form
        self._stream = stream
        self._requester = requester
        self._gate = gate
        self._with_cursor = with_cursor
        self._watcher = watcher
        self._log = logging.getLogger(f"airbyte.{stream.name}")
        requester.stream_response = True  # bodies are read here
        # The session is the client's own matter, but it has no public place for a hook or an adapter.
        session = requester._http_client._session
        session.hooks["response"].append(strip_credentials)
        show_answers(session, watcher, stream.name)
        prepare(session, form)

    def fetch(self, request: Request, window: Window) -> tuple[requests.Response, bytes]:
        """One answer, whole. A connection that breaks while the body comes is tried again."""
        is_own = request.url is None
        cursor = self._cursor_values(window)
        params = {pair.name: _filled(pair.value, window) for pair in self._stream.query_params} if is_own else {}
        params |= {**(cursor.params if is_own else {}), **request.params}
        headers = {pair.name: as_header(_filled(pair.value, window)) for pair in self._stream.headers}
        headers |= {name: as_header(value) for name, value in {**cursor.headers, **request.headers}.items()}
        body = self._request_body({**cursor.body, **request.body}, window)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        tries = self._form.max_retries + 1
        for number in range(1, tries + 1):
            response = self._send(request.url or self._url(window), headers, params, body)
            try:
                return response, self._body(response)
            except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
                self._log.info(f"The connection broke, or was too slow, inside of an answer (try {number} of {tries})")
                if number < tries:
                    time.sleep(min(60.0, 2.0 ** (number - 1)))
            except requests.exceptions.ContentDecodingError:
                raise self.wrong(f"the answer of {self.shown(response.url)} is not encoded as it says") from None
        raise transient_error(
            f"Stream {self._stream.name!r}: the connection broke, or was too slow, {tries} times inside of an answer. "
            "Try later, or raise timeout_seconds."
        )

    def _send(
        self, url: str, headers: Mapping[str, str], params: Mapping[str, str], body: str | None
    ) -> requests.Response:
        if self._watcher is not None:
            self._watcher.asking(self._stream.name)
        self._gate.wait(self._stream.name)
        try:
            response = self._requester.send_request(
                path=url, request_headers=headers, request_params=params, request_body_data=body
            )
        except ValueError:  # of requests (a line break in a header), or of the CDK (a name that stands twice)
            raise self.wrong(
                f"no request can be made for {self.shown(url)}. Check headers, query_params and credentials: a name "
                "may stand twice, or a value hold a line break"
            ) from None
        except AirbyteTracedException as problem:
            raise self._worded(problem) from None
        assert response is not None  # the CDK answers or raises
        self._gate.learn(response.headers)
        return response

    def _worded(self, problem: AirbyteTracedException) -> AirbyteTracedException:
        """An error of the CDK's client with our words, which it wraps or keeps in the internal message only."""
        internal = problem.internal_message or ""
        if "rejected" in internal and "OAuth" in internal:
            words = internal.partition("Error handler message: '")[2].rstrip("'") or "The API answered 401."
            if problem.failure_type is FailureType.config_error:
                return config_error(
                    f"Stream {self._stream.name!r}: {words} A new token was refused too. Check credentials and scopes."
                )
            return transient_error(f"Stream {self._stream.name!r}: {words} The token could not be renewed. Try later.")
        if problem.failure_type is not FailureType.transient_error:
            return problem
        words = internal.partition("xception: ")[2] or problem.message or ""
        if words.startswith("Stream "):
            return problem
        if " answered 401" in words:  # with max_retries 0 a new token is not even asked for
            return config_error(f"Stream {self._stream.name!r}: {words} {ADVICE[401]}")
        handler = self._requester.error_handler
        retries = handler.max_retries if handler is not None else None  # of a check or a command: fewer than the form's
        tries = f" Tried {retries + 1} times." if retries else ""
        return transient_error(f"Stream {self._stream.name!r}: {words}{'' if 'max_wait_seconds' in words else tries}")

    def _body(self, response: requests.Response) -> bytes:
        limit = self._form.max_response_mb << 20
        try:
            return unzipped(read_body(response, limit, self._form.timeout_seconds), limit)
        except TooLarge:
            most = self._form.max_response_mb
            raise self.wrong(
                f"an answer is larger than max_response_mb ({most}). Ask for smaller pages, or raise it"
            ) from None
        except BodyError as problem:
            raise self.wrong(f"the answer of {self.shown(response.url)} {problem}") from None

    def wrong(self, problem: str) -> AirbyteTracedException:
        """A config_error of this stream."""
        return config_error(f"Stream {self._stream.name!r}: {problem}.")

    def shown(self, url: str | None) -> str:
        """A URL without what may be data."""
        return shown_url(url, self._form.base_url, self._stream.path)

    def _url(self, window: Window) -> str:
        """Absolute, so that nothing in the path is taken for a scheme, and nothing evaluated."""
        path = _filled(self._stream.path, window, quote_all).lstrip("/")
        if "{{" in self._stream.path and {".", ".."} & set(path.partition("?")[0].split("/")):
            raise self.wrong("a parent's value is . or .., which would lead to another path. Leave it out by a filter")
        base = self._form.base_url.rstrip("/")
        return f"{base}/{path}" if path else base

    def _request_body(self, placed: Mapping[str, str | int], window: Window) -> str | None:
        """The form's body with the parent's values, and what cursor, paging and credentials set in it."""
        if self._stream.method == "GET":
            return None
        text = PARENT.sub(lambda found: _inside_json(window.partition[found[1]]), self._stream.body)
        placed = {**placed, **body_of(self._form.credentials)}
        if not placed:
            return text or None
        document = json.loads(text or "{}")
        for path, value in placed.items():
            _place(document, path.split("."), value)
        return json.dumps(document)

    def _cursor_values(self, window: Window) -> Request:
        """What narrows a request to its window."""
        cursor = self._stream.cursor
        if cursor is None or not self._with_cursor:
            return Request()
        format_ = request_format(cursor)
        bounds = ((cursor.start_param, window.lower), (cursor.end_param, window.end))
        values = {name: to_text(moment, format_) for name, moment in bounds if name and moment is not None}
        return placed_request(values, cursor.inject_into)


quote_all = partial(quote, safe="")


def _filled(text: str, window: Window, encode: Callable[[str], str] = str) -> str:
    """A text of the form with the parent's values in it, each through ``encode``."""
    return PARENT.sub(lambda found: encode(str(window.partition[found[1]])), text)


def _inside_json(value: str | int) -> str:
    """A parent's value in JSON text; a text's quotes are the form's own."""
    return json.dumps(value)[1:-1] if isinstance(value, str) else str(value)


def _place(document: Any, path: Sequence[str], value: str | int) -> None:
    """Set a value in a JSON document; what is missing on the way is made, numbers are places in lists that exist."""
    key, *rest = path
    place: Any = int(key) if isinstance(document, list) and key.isdigit() and int(key) < len(document) else key
    if isinstance(document, list) and place is key:
        raise config_error(f"body has a list without the place {key!r}, where a value is to be set.")
    if not isinstance(document, dict | list):
        raise config_error(f"body has a single value where {key!r} is to be set.")
    if not rest:
        document[place] = value
    else:
        _place(document.setdefault(place, {}) if isinstance(document, dict) else document[place], rest, value)


def strip_credentials(response: requests.Response, **_: object) -> None:
    """Before a redirect to another host is followed, forget every header that could be a credential.

    requests does so for Authorization only (its Session.rebuild_auth).
    """
    target = response.headers.get("Location")
    if not response.is_redirect or target is None:
        return
    here, there = (
        requests.compat.urlsplit(url) for url in (response.url, requests.compat.urljoin(response.url, target))
    )
    if (here.scheme, here.netloc) == (there.scheme, there.netloc):
        return
    if response.status_code in KEEPS_BODY and response.request.body:
        raise config_error(
            f"{plain_url(response.url)} redirects a request with a body to another host, which it must not reach. Set "
            "base_url to where it redirects."
        )
    for name in [name for name in response.request.headers if name.lower() not in HARMLESS_HEADERS]:
        del response.request.headers[name]
