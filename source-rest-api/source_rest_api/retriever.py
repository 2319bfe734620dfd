"""Reads one partition of a stream, page by page: the place where the form and the CDK meet.

The CDK keeps what it is good at (requests, authentication, retries, workers, cursors, parents, STATE); paging,
extraction and the making of RECORD lines are ours, since the CDK's parse every record, end silently where a path is
wrong, and evaluate tokens as code. Used by several threads at once: nothing here changes after ``__post_init__``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import quote

import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.declarative.requesters.http_requester import HttpRequester
from airbyte_cdk.sources.declarative.retrievers.retriever import Retriever
from airbyte_cdk.sources.types import StreamSlice
from airbyte_cdk.utils.traced_exception import AirbyteTracedException
from msgspec import Raw

from source_rest_api.body import BodyError, RecordFinder, clean, leaf_decoder, value_of
from source_rest_api.boundary import Known, partition_key
from source_rest_api.credentials import as_header
from source_rest_api.errors import config_error, plain_url, transient_error
from source_rest_api.form import PARENT, DatetimeCursor, Form, Stream
from source_rest_api.page import BUDGET, PAGE, page_of
from source_rest_api.pagination import Answer, PagingError, Request, pager_of
from source_rest_api.rows import PageMaker, RowError, Window
from source_rest_api.streams import PARENT_VALUE, request_format, request_resolution
from source_rest_api.times import MICROSECOND, from_state, parse_duration, to_state, to_text

BOUNDARIES = "__boundaries"  # in the config of this process: what the input STATE knows, by stream
CHECKPOINT_RECORDS = 10_000
CHECKPOINT_SECONDS = 60.0
CHUNK = 1 << 20
NO_CONTENT = 204
SLACK = 1_000_000  # microseconds that rounding may take from "now"
# Of a redirect to another host only these headers go along: any other may hold credentials.
HARMLESS_HEADERS = {"accept", "accept-encoding", "accept-language", "connection", "host", "user-agent"}


@dataclass
class PageRetriever(Retriever):
    """A component of manifest.yaml.

    Args:
        config: the whole form.
        name: the stream's name in it.
        requester: the CDK's.
        parent_field: in a parent's copy, the field whose values are read; pages are not made then.
    """

    config: Mapping[str, Any]
    name: str
    requester: HttpRequester
    parent_field: str | None = None

    def __post_init__(self) -> None:
        form = Form.of(self.config)
        self._form = form
        self._stream: Stream = form.stream(self.name)
        self._made_at = time.time_ns() // 1000
        self._maker = PageMaker(self._stream)
        self._known: Mapping[str, Known] = self.config.get(BOUNDARIES, {}).get(self.name, {})
        self._log = logging.getLogger(f"airbyte.{self.name}")
        self.requester.stream_response = True  # bodies are read here, up to max_response_mb
        # The session is the client's own matter, but it has no public place for a hook.
        self.requester._http_client._session.hooks["response"].append(_strip_credentials)

    def read_records(
        self, records_schema: Mapping[str, Any], stream_slice: StreamSlice | None = None
    ) -> Iterable[Mapping[str, Any]]:
        """The queue items of one partition; in a parent's copy, one mapping per value.

        Raises:
            AirbyteTracedException: config_error or transient_error, with what to change.
        """
        window = self._window(stream_slice)
        if self.parent_field is not None:
            yield from self._parent_values(window, self.parent_field.split("."))
        elif self._stream.cursor is not None and self._stream.cursor.is_ascending:
            yield from self._with_checkpoints(window, self._stream.cursor)
        else:
            for records in self._pages(window):
                yield from self._items(records, window)
                if self._is_behind(records, window):
                    return

    def _is_behind(self, records: list[Raw], window: Window) -> bool:
        """Whether an API that answers newest first has reached what the state knows."""
        cursor = self._stream.cursor
        if cursor is None or not cursor.newest_first:
            return False
        moments = self._moments(records)
        if moments != sorted(moments, reverse=True):
            raise self._wrong(
                f"the API's answer is not ordered by {cursor.cursor_field!r}, newest first. Set newest_first to "
                "false, or ask the API for that order by query_params"
            )
        return bool(moments) and window.lower is not None and moments[-1] < window.lower

    def _moments(self, records: list[Raw]) -> list[int]:
        """The cursors of the records that have one, in the API's order."""
        try:
            return [moment for moment in self._maker.moments(records) if moment is not None]
        except RowError as problem:
            raise self._wrong(str(problem)) from None

    def _items(self, records: list[Raw], window: Window) -> Iterator[dict[str, Any]]:
        try:
            for item in self._maker.pages(records, window, time.time_ns() // 1_000_000):
                page = page_of(item)
                if page is not None:
                    BUDGET.take(len(page.lines))
                yield item
        except RowError as problem:
            raise self._wrong(str(problem)) from None

    def _with_checkpoints(self, window: Window, cursor: DatetimeCursor) -> Iterator[dict[str, Any]]:
        """Pages of an API that promises ascending order, each with the state that may be saved behind it."""
        highest: int | None = None
        saved, count = time.monotonic(), 0
        for records in self._pages(window):
            moments = self._moments(records)
            if moments != sorted(moments) or (moments and highest is not None and moments[0] < highest):
                raise self._wrong(
                    f"the API's answer is not in ascending order of {cursor.cursor_field!r}. Set is_ascending to "
                    "false, or ask the API for that order by query_params"
                )
            highest = moments[-1] if moments else highest
            for item in self._items(records, window):
                page = page_of(item)
                assert page is not None  # what _items yields
                count += page.count
                is_due = count >= CHECKPOINT_RECORDS or time.monotonic() - saved >= CHECKPOINT_SECONDS
                if is_due and page.boundary is not None:
                    saved, count = time.monotonic(), 0
                    checkpoint = to_state(page.boundary.at, cursor.cursor_format)
                    yield {**item, PAGE: replace(page, checkpoint=checkpoint)}
                else:
                    yield item

    def _parent_values(self, window: Window, path: list[str]) -> Iterator[Mapping[str, Any]]:
        """Each value of a field once. Records without it have no children; if none has it, the form is wrong."""
        decoder, name = leaf_decoder(path, Any), ".".join(path)
        is_key = self._stream.primary_key == [name]
        seen: set[Any] = set()
        count = found = 0
        for records in self._pages(window):
            for record in records:
                count += 1
                value = value_of(record, decoder, path)
                if value is None:
                    continue
                found += 1
                if not isinstance(value, str | int):
                    raise self._wrong(
                        f"its field {name!r} is a {type(value).__name__}; children need a text or an integer"
                    )
                if not is_key:
                    if value in seen:
                        continue
                    seen.add(value)
                yield {PARENT_VALUE: value}
        if count and not found:
            raise self._wrong(
                f"none of its {count} records has the field {name!r} for its children. Check parents[].field"
            )

    def _pages(self, window: Window) -> Iterator[list[Raw]]:
        """The records of one page after the other."""
        pager = pager_of(self._stream.pagination or self._form.pagination, self._form.base_url)
        finder = RecordFinder.of(self._stream.record_path)
        request: Request | None = pager.first()
        is_first = True
        while request is not None:
            response, body = self._fetch(request, window)
            where = plain_url(response.url)
            try:
                if response.status_code == NO_CONTENT or response.status_code in self._stream.ignore_status_codes:
                    return
                body = clean(body)
                records = finder.find(body, is_first=is_first)
                link = response.links.get("next", {}).get("url")
                last = records[-1] if records else None
                request = pager.next(Answer(response.url, body, len(records), link, response.headers, last))
            except BodyError as problem:
                kind = response.headers.get("Content-Type", "no content type")
                raise self._wrong(f"the answer of {where} ({response.status_code}, {kind}) {problem}") from None
            except PagingError as problem:
                raise self._wrong(f"pagination: {where} {problem}") from None
            yield records
            is_first = False

    def _fetch(self, request: Request, window: Window) -> tuple[requests.Response, bytes]:
        """One answer, whole. A connection that breaks while the body comes is tried again."""
        is_own = request.url is None
        params = {**self._params(window), **request.params} if is_own else {}
        headers = {pair.name: as_header(_filled(pair.value, window)) for pair in self._stream.headers}
        headers |= {name: as_header(value) for name, value in request.headers.items()}
        body = self._request_body(request, window)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        tries = self._form.max_retries + 1
        for number in range(1, tries + 1):
            response = self._send(request.url or self._url(window), headers, params, body)
            try:
                return response, self._body(response)
            except (
                requests.exceptions.ConnectionError,
                requests.exceptions.ChunkedEncodingError,
                requests.exceptions.Timeout,
            ):
                self._log.info(f"The connection broke while an answer was coming (try {number} of {tries})")
                if number < tries:
                    time.sleep(min(60.0, 2.0 ** (number - 1)))
            except requests.exceptions.ContentDecodingError:
                raise self._wrong(f"the answer of {plain_url(response.url)} is not encoded as it says") from None
        raise transient_error(
            f"Stream {self.name!r}: the connection broke {tries} times while an answer was coming. Try later."
        )

    def _send(
        self, url: str, headers: Mapping[str, str], params: Mapping[str, str], body: str | None
    ) -> requests.Response:
        try:
            response = self.requester.send_request(
                path=url, request_headers=headers, request_params=params, request_body_data=body
            )
        except ValueError:  # of requests (a line break in a header), or of the CDK (a name that stands twice)
            raise self._wrong(
                f"no request can be made for {plain_url(url)}. Check headers, query_params and credentials: a name may "
                "stand twice, or a value hold a line break"
            ) from None
        except AirbyteTracedException as problem:
            if problem.failure_type is not FailureType.transient_error:
                raise
            # The CDK wraps our words ("... Exception: <words>"), or keeps them in the internal message only.
            words = (problem.internal_message or "").partition("xception: ")[2] or problem.message
            tries = f" Tried {self._form.max_retries + 1} times." if self._form.max_retries else ""
            raise transient_error(f"Stream {self.name!r}: {words}{tries}") from None
        assert response is not None  # the CDK answers or raises
        return response

    def _body(self, response: requests.Response) -> bytes:
        limit = self._form.max_response_mb << 20
        chunks: list[bytes] = []
        size = 0
        with response:
            for chunk in response.iter_content(CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    most = self._form.max_response_mb
                    raise self._wrong(
                        f"an answer is larger than max_response_mb ({most}). Ask for smaller pages, or raise it"
                    )
        return b"".join(chunks)

    def _wrong(self, problem: str) -> AirbyteTracedException:
        return config_error(f"Stream {self.name!r}: {problem}.")

    def _url(self, window: Window) -> str:
        """Absolute, so that nothing in the path is taken for a scheme, and nothing evaluated."""
        path = _filled(self._stream.path, window, quote_all).lstrip("/")
        base = self._form.base_url.rstrip("/")
        return f"{base}/{path}" if path else base

    def _request_body(self, request: Request, window: Window) -> str | None:
        """The form's body with the parent's values, and what paging sets in it."""
        if self._stream.method == "GET":
            return None
        text = PARENT.sub(lambda found: _inside_json(window.partition[found[1]]), self._stream.body)
        if not request.body:
            return text or None
        document = json.loads(text or "{}")
        for path, value in request.body.items():
            *above, name = path.split(".")
            place = document
            for key in above:
                place = place.setdefault(key, {})
            place[name] = value
        return json.dumps(document)

    def _params(self, window: Window) -> dict[str, str]:
        params = {pair.name: _filled(pair.value, window) for pair in self._stream.query_params}
        cursor = self._stream.cursor
        if cursor is None or self.parent_field is not None:
            return params
        format_ = request_format(cursor)
        if cursor.start_param and window.lower is not None:
            params[cursor.start_param] = to_text(window.lower, format_)
        if cursor.end_param and window.end is not None:
            params[cursor.end_param] = to_text(window.end, format_)
        return params

    def _window(self, stream_slice: StreamSlice | None) -> Window:
        partition = {
            name: value
            for name, value in (stream_slice.partition if stream_slice else {}).items()
            if name != "parent_slice"
        }
        bounds = stream_slice.cursor_slice if stream_slice else {}
        cursor = self._stream.cursor
        key = partition_key(partition)
        if cursor is None or not bounds:
            return Window(partition, key)
        start, end = (from_state(bounds[name], cursor.cursor_format) for name in ("start_time", "end_time"))
        known = self._known.get(key)
        is_unbounded = not cursor.start and start == 0
        is_last = end >= self._made_at - SLACK
        gap = parse_duration(cursor.granularity) if cursor.granularity else request_resolution(cursor)
        return Window(
            partition,
            key,
            start=str(bounds["start_time"]),
            lower=None if is_unbounded else start,
            below=end + gap // MICROSECOND if cursor.step and not is_last else None,
            end=end,
            known_at=known.at if known else None,
            known=known.records if known else frozenset(),
        )


quote_all = partial(quote, safe="")


def _filled(text: str, window: Window, encode: Callable[[str], str] = str) -> str:
    """A text of the form with the parent's values in it, each through ``encode``."""
    return PARENT.sub(lambda found: encode(str(window.partition[found[1]])), text)


def _inside_json(value: str | int) -> str:
    """A parent's value in JSON text; a text's quotes are the form's own."""
    return json.dumps(value)[1:-1] if isinstance(value, str) else str(value)


def _strip_credentials(response: requests.Response, **_: object) -> None:
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
    for name in [name for name in response.request.headers if name.lower() not in HARMLESS_HEADERS]:
        del response.request.headers[name]
