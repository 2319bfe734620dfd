"""Reads one partition of a stream, page by page: the place where the form and the CDK meet.

The CDK keeps what it is good at (requests, authentication, retries, workers, cursors, parents, STATE); paging,
extraction and the making of RECORD lines are ours, since the CDK's parse every record, end silently where a path is
wrong, and evaluate tokens as code. Used by several threads at once: nothing here changes after ``__post_init__``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, assert_never

import msgspec
import requests
from airbyte_cdk.sources.declarative.requesters.http_requester import HttpRequester
from airbyte_cdk.sources.declarative.retrievers.retriever import Retriever
from airbyte_cdk.sources.types import StreamSlice
from msgspec import Raw

from source_rest_api.api_errors import words_of
from source_rest_api.body import BodyError, RecordFinder, as_text, clean, leaf_decoder, value_of
from source_rest_api.boundary import Known, partition_key
from source_rest_api.ceiling import NotAscending, Tail
from source_rest_api.conditions import Condition, ConditionError
from source_rest_api.exchange import Exchange
from source_rest_api.form import SHARED, CounterCursor, Cursor, Form, Offsets, PageNumbers, Stream
from source_rest_api.formats import from_csv, from_lines
from source_rest_api.limits import Gate
from source_rest_api.page import BUDGET, PAGE, page_of
from source_rest_api.pagination import (
    Answer,
    CeilingReached,
    Pager,
    PagingError,
    Request,
    StoppingPages,
    pager_of,
)
from source_rest_api.projection import RowError
from source_rest_api.rows import MOST_RECORDS, PageMaker, Window
from source_rest_api.streams import request_resolution
from source_rest_api.times import MICROSECOND, from_state, parse_duration, to_state
from source_rest_api.watching import watcher_of

BOUNDARIES = "__boundaries"  # in the config of this process: what the input STATE knows, by stream
COUNTS, DETECTED = "counts", "detected"  # in what the components share
CHECKPOINT_RECORDS = 10_000
CHECKPOINT_SECONDS = 60.0
NO_CONTENT = 204
SLACK = 1_000_000  # microseconds that rounding may take from "now"


@dataclass
class PageRetriever(Retriever):
    """A component of manifest.yaml.

    Args:
        config: the whole form.
        name: the stream's name in it.
        requester: the CDK's.
        parent_fields: in a parent's copy, the fields that are read, by the names that children have for them; pages are
            not made then.
    """

    config: Mapping[str, Any]
    name: str
    requester: HttpRequester
    parent_fields: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        form = Form.of(self.config)
        self._form = form
        self._stream: Stream = form.stream(self.name)
        self._made_at = time.time_ns() // 1000
        self._maker = PageMaker(self._stream)
        self._known: Mapping[str, Known] = self.config.get(BOUNDARIES, {}).get(self.name, {})
        self._log = logging.getLogger(f"airbyte.{self.name}")
        shared: dict[str, Any] = self.config.get(SHARED, {})
        gate = Gate.shared(self.config, form.rate_limit)
        self._watcher = watcher_of(self.config)
        self._exchange = Exchange(
            form, self._stream, self.requester, gate, with_cursor=self.parent_fields is None, watcher=self._watcher
        )
        self._counts: dict[str, int] = shared.setdefault(COUNTS, {})
        self._detected: dict[str, str] = shared.setdefault(DETECTED, {})
        errors = self._stream.errors
        self._error_when = Condition(errors.error_when) if errors and errors.error_when else None

    def read_records(
        self, records_schema: Mapping[str, Any], stream_slice: StreamSlice | None = None
    ) -> Iterable[Mapping[str, Any]]:
        """The queue items of one partition; in a parent's copy, one mapping per record.

        Raises:
            AirbyteTracedException: config_error or transient_error, with what to change.
        """
        window = self._window(stream_slice)
        if self.parent_fields is not None:
            yield from self._parent_values(window, self.parent_fields)
        elif self._stream.cursor is not None and self._stream.cursor.is_ascending:
            yield from self._with_checkpoints(window, self._stream.cursor)
        else:
            for records, part in self._pages(window):
                yield from self._items(records, part)
                if self._is_behind(records, part):
                    return

    def _is_behind(self, records: list[Raw], window: Window) -> bool:
        """Whether an API that answers newest first has reached what the state knows."""
        cursor = self._stream.cursor
        if cursor is None or not cursor.newest_first:
            return False
        moments = self._moments(records)
        if moments != sorted(moments, reverse=True):
            raise self._exchange.wrong(
                f"the API's answer is not ordered by {cursor.cursor_field!r}, newest first. Set newest_first to "
                "false, or ask the API for that order by query_params"
            )
        return bool(moments) and window.lower is not None and moments[-1] < window.lower

    def _moments(self, records: list[Raw]) -> list[int]:
        """The cursors of the records that have one, in the API's order."""
        try:
            return [moment for moment in self._maker.moments(records) if moment is not None]
        except RowError as problem:
            raise self._exchange.wrong(str(problem)) from None

    def _items(self, records: list[Raw], window: Window) -> Iterator[dict[str, Any]]:
        try:
            for item in self._maker.pages(records, window, time.time_ns() // 1_000_000):
                page = page_of(item)
                if page is not None:
                    BUDGET.take(len(page.lines))
                    self._counts[self.name] = self._counts.get(self.name, 0) + page.count
                yield item
        except RowError as problem:
            raise self._exchange.wrong(str(problem)) from None

    def _with_checkpoints(self, window: Window, cursor: Cursor) -> Iterator[dict[str, Any]]:
        """Pages of an API that promises ascending order, each with the state that may be saved behind it."""
        highest: int | None = None
        saved, count = time.monotonic(), 0
        before = window
        for records, part in self._pages(window):
            if part is not before:
                before, highest = part, None
            highest = self._ascending(records, highest, cursor)
            for item in self._items(records, part):
                page = page_of(item)
                assert page is not None  # what _items yields
                count += page.count
                is_full = count > CHECKPOINT_RECORDS - MOST_RECORDS  # the next item could go beyond
                is_due = is_full or time.monotonic() - saved >= CHECKPOINT_SECONDS
                if is_due and page.boundary is not None:
                    saved, count = time.monotonic(), 0
                    checkpoint = to_state(page.boundary.at, cursor.cursor_format)
                    yield {**item, PAGE: replace(page, checkpoint=checkpoint)}
                else:
                    yield item

    def _ascending(self, records: list[Raw], highest: int | None, cursor: Cursor) -> int | None:
        """The highest cursor so far, of answers that must come in ascending order."""
        moments = self._moments(records)
        if moments != sorted(moments) or (moments and highest is not None and moments[0] < highest):
            raise self._exchange.wrong(
                f"the API's answer is not in ascending order of {cursor.cursor_field!r}. Set is_ascending to false, or "
                "ask the API for that order by query_params"
            )
        return moments[-1] if moments else highest

    def _parent_values(self, window: Window, fields: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """The fields of each record, with what stands above. If no record has them, the form is wrong."""
        places = [(name, text, text.split(".")) for name, text in fields.items()]
        decoders = [leaf_decoder(path, Any, in_lists=True) for _, _, path in places]
        count = found = 0
        for records, _ in self._pages(window):
            for record in self._wanted(records):
                count += 1
                values = dict(window.partition)
                for (name, text, path), decoder in zip(places, decoders, strict=True):
                    value = value_of(record, decoder, path)
                    if value is None:
                        break
                    if not isinstance(value, str | int) or isinstance(value, bool):
                        kind = type(value).__name__
                        raise self._exchange.wrong(
                            f"its field {text!r} is a {kind}; children need a text or an integer"
                        )
                    values[name] = value
                else:
                    found += 1
                    yield values
        if count > found:
            self._log.warning(
                f"{count - found} of {count} records have no {' and '.join(fields.values())}: no children"
            )
        if count and not found and not window.partition:
            raise self._exchange.wrong(
                f"none of its {count} records has the field {' and '.join(map(repr, fields.values()))} for its "
                "children. Check parents[].field"
            )

    def _wanted(self, records: list[Raw]) -> Sequence[Raw]:
        try:
            return self._maker.wanted(records)
        except RowError as problem:
            raise self._exchange.wrong(str(problem)) from None

    def _pages(self, window: Window) -> Iterator[tuple[list[Raw], Window]]:
        """The records of one page after the other, with the window that they were asked for.

        Where the API serves no more pages (``max_offset``), a new window begins at the last cursor value seen.
        """
        tail = self._tail()
        part: Window | None = window
        while part is not None:
            here, part = part, None
            try:
                for records in self._pages_of(here):
                    if tail is not None:
                        tail.follow(records, self._maker.moments(records))
                    yield records, here
            except CeilingReached:
                part = self._behind_ceiling(here, tail)
            except RowError as problem:
                raise self._exchange.wrong(str(problem)) from None
            except NotAscending:
                raise self._exchange.wrong(
                    "records do not come in ascending order of the cursor, in which alone reading can go on behind "
                    "max_offset. Ask the API for that order by query_params"
                ) from None

    def _tail(self) -> Tail | None:
        """Only a cursor that the API is asked for leads on behind a ceiling."""
        pages, cursor = self._stream.pagination, self._stream.cursor
        has_ceiling = isinstance(pages, PageNumbers | Offsets) and pages.max_offset is not None
        can_ask = cursor is not None and cursor.start_param and self.parent_fields is None
        return Tail() if has_ceiling and can_ask else None

    def _behind_ceiling(self, window: Window, tail: Tail | None) -> Window:
        if tail is None:
            raise self._exchange.wrong(
                "there is more than the API serves (max_offset). Set incremental with a start_param, so that reading "
                "goes on from the last value seen, or ask for less by query_params"
            )
        found = tail.window_behind(window)
        if found is None:
            raise self._exchange.wrong("there is more than the API serves (max_offset) at a single value of the cursor")
        self._log.info("max_offset is reached: a new window begins at the last value of the cursor")
        return found

    def _pages_of(self, window: Window) -> Iterator[list[Raw]]:
        pager = pager_of(self._stream.pagination or self._form.pagination, self._form.base_url)
        finder = RecordFinder.of(self._stream.record_path, in_columns=self._stream.format == "columns")
        request: Request | None = pager.first()
        is_first, is_json = True, self._stream.answers_json
        while request is not None:
            response, body = self._exchange.fetch(request, window)
            if response.status_code == NO_CONTENT or response.status_code in self._stream.ignore_status_codes:
                return
            ceiling: CeilingReached | None = None
            try:
                body = clean(body) if is_json else as_text(body)
                self._check_for_errors(response, body)
                records = self._records(body, finder, is_first=is_first)
                link = response.links.get("next", {}).get("url")
                ends: tuple[Raw | None, Raw | None] = (records[-1], records[0]) if records else (None, None)
                answer = Answer(response.url, body, len(records), link, response.headers, *ends, is_json)
                request = pager.next(answer)
            except CeilingReached as reached:
                ceiling = reached
            except BodyError as problem:
                kind = response.headers.get("Content-Type", "no content type")
                raise self._exchange.wrong(
                    f"the answer of {self._exchange.shown(response.url)} ({response.status_code}, {kind}) {problem}"
                ) from None
            except PagingError as problem:
                raise self._exchange.wrong(f"pagination: {self._exchange.shown(response.url)} {problem}") from None
            if is_first:
                self._note_detection(pager)
            if self._watcher is not None:
                self._watcher.took(self.name, answer, finder.text, _detected(pager))
            yield records
            if ceiling is not None:
                raise ceiling
            is_first = False
        if isinstance(pager, StoppingPages) and pager.was_cut:
            self._log.warning("max_pages is reached: there may be more records, which are not read")
        if isinstance(pager, StoppingPages) and pager.left_a_token:
            self._log.warning(
                "an empty page ended it, though it had a token for another one. If this API sends empty pages on the "
                "way, set stop_on_empty to false"
            )

    def _records(self, body: bytes, finder: RecordFinder, *, is_first: bool) -> list[Raw]:
        match self._stream.format:
            case "json" | "columns":
                return finder.find(body, is_first=is_first)
            case "jsonl":
                return from_lines(body)
            case "csv":
                return from_csv(body, self._stream.csv_delimiter)
            case other:
                assert_never(other)

    def _check_for_errors(self, response: requests.Response, body: bytes) -> None:
        """An API may answer errors with status 200, as the form describes them."""
        if self._error_when is None:
            return
        parsed = msgspec.json.decode(body)
        try:
            is_error = self._error_when.holds(body=parsed)
        except ConditionError as problem:
            raise self._exchange.wrong(
                f"errors.error_when {problem} for the answer of {self._exchange.shown(response.url)}"
            ) from None
        if is_error:
            path = self._stream.errors.error_message_path if self._stream.errors else ""
            raise self._exchange.wrong(
                f"{self._exchange.shown(response.url)} answered {response.status_code} with an error"
                f"{words_of(parsed, path)} (errors.error_when)"
            )

    def _note_detection(self, pager: Pager) -> None:
        found = _detected(pager)
        if found and self._detected.get(self.name) != found:
            self._detected[self.name] = found
            self._log.info(f"Pagination of stream {self.name!r}: {found} (detected)")

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
        known = self._known.get(key)
        brought = {known.at: known.records} if known else {}
        if isinstance(cursor, CounterCursor):
            start = int(bounds["start"])
            lower = None if cursor.start is None and start == 0 else start
            return Window(partition, key, start=str(start), lower=lower, known=brought)
        start, end = (from_state(bounds[name], cursor.cursor_format) for name in ("start_time", "end_time"))
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
            known=brought,
        )


def _detected(pager: Pager) -> str:
    """How the API was seen to page; empty where the form says it."""
    return pager.detected if isinstance(pager, StoppingPages) else ""
