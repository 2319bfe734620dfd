"""From the records of one answer to finished pages: cursor, boundary, timestamps, parent fields. Pure but for a clock
that comes in as an argument.

A record's text is passed on as it came, unless the form asks for a change, and then only the top-level and the named
fields are touched. A record is left out for one reason only: the state says that it has been brought before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import Raw

from source_rest_api.body import leaf, leaf_decoder
from source_rest_api.conditions import Condition, ConditionError
from source_rest_api.form import Stream
from source_rest_api.page import PAGE, Boundary, Page
from source_rest_api.projection import Projection, RowError
from source_rest_api.times import FormatError, to_moment, to_state

MOST_RECORDS = 1000  # a page of 200,000 must not become one item of 70 MB
MOST_BOUNDARY = 1000

_ENCODE = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a stream that one worker reads.

    Attributes:
        partition: the parent's values by name; empty without parents.
        partition_key: the same as canonical JSON.
        start: text of the cursor window's start; empty without a cursor.
        lower: lowest moment that belongs here, or None.
        below: first moment that belongs to the next window, or None.
        end: last moment to ask for, or None.
        known: by moment, the digests of records that were brought before.
    """

    partition: Mapping[str, Any] = field(default_factory=dict)
    partition_key: str = "{}"
    start: str = ""
    lower: int | None = None
    below: int | None = None
    end: int | None = None
    known: Mapping[int, frozenset[str]] = field(default_factory=dict)


class PageMaker:
    """Makes pages of one stream; holds no state between calls."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._head = b'{"type":"RECORD","record":{"stream":%s,"data":' % _ENCODE(stream.name)
        self._cursor = stream.cursor
        self._projection = Projection(stream)
        self._filter = Condition(stream.filter) if stream.filter else None
        if self._cursor is not None:
            self._at_cursor = leaf_decoder(self._cursor.path, Any)

    def pages(self, records: Sequence[Raw], window: Window, now_ms: int) -> Iterator[dict[str, Any]]:
        """Queue items of at most 1,000 records each.

        Raises:
            RowError: a record's cursor or timestamp does not fit its format.
        """
        for first in range(0, len(records), MOST_RECORDS):
            part = records[first : first + MOST_RECORDS]
            item = self._plain(part, window, now_ms) if self._cursor is None else self._dated(part, window, now_ms)
            if item is not None:
                yield item

    def moments(self, records: Sequence[Raw]) -> list[int | None]:
        """The cursor of each record, None where it has none. Raises RowError."""
        assert self._cursor is not None  # asked of incremental streams only
        path, format_ = self._cursor.path, self._cursor.cursor_format
        try:
            values = [leaf(self._at_cursor.decode(record), path) for record in records]
        except msgspec.ValidationError:
            raise RowError(f"a record has no object on the way to its cursor {self._cursor.cursor_field!r}") from None
        except msgspec.DecodeError:
            raise RowError("a record holds text that is no Unicode") from None
        if values and not self._stream.parents and all(value is msgspec.UNSET for value in values):
            raise RowError(
                f"none of {len(values)} records has the cursor {self._cursor.cursor_field!r}. Set cursor_field"
            )
        try:
            return [None if value is None or value is msgspec.UNSET else to_moment(value, format_) for value in values]
        except FormatError as problem:
            raise RowError(f"cursor_field {self._cursor.cursor_field!r}: {problem}. Set cursor_format") from None

    def _plain(self, records: Sequence[Raw], window: Window, now_ms: int) -> dict[str, Any]:
        kept = self.wanted(records)
        return {PAGE: Page(self._stream.name, self._lines(kept, window, now_ms), len(kept))}

    def _dated(self, records: Sequence[Raw], window: Window, now_ms: int) -> dict[str, Any] | None:
        moments = self.moments(records)
        chosen = _chosen(records, moments, window)
        new = [records[index] for index in chosen]
        if not new:
            return None
        known = [moments[index] for index in chosen]
        highest = max((moment for moment in known if moment is not None), default=None)
        item: dict[str, Any] = {}
        boundary = None
        if highest is not None and self._cursor is not None:
            item[self._cursor.cursor_field] = to_state(highest, self._cursor.cursor_format)
            at_top = [record for record, moment in zip(new, known, strict=True) if moment == highest]
            digests = tuple(digest(record) for record in at_top[:MOST_BOUNDARY])
            boundary = Boundary(window.partition_key, window.start, highest, digests)
        kept = self.wanted(new)
        lines = self._lines(kept, window, now_ms)
        item[PAGE] = Page(self._stream.name, lines, len(kept), len(records) - len(new), boundary)
        return item

    def wanted(self, records: Sequence[Raw]) -> Sequence[Raw]:
        """The records that the form's filter lets pass. Raises RowError."""
        if self._filter is None:
            return records
        try:
            return [record for record in records if self._filter.holds(record=msgspec.json.decode(record))]
        except ConditionError as problem:
            raise RowError(f"filter {problem} for a record") from None
        except msgspec.DecodeError:
            raise RowError("a record holds text that is no Unicode") from None

    def _lines(self, records: Sequence[Raw], window: Window, now_ms: int) -> bytes:
        if not records:
            return b""
        added = window.partition if self._stream.add_parent_fields else {}
        texts: Sequence[Raw | bytes] = records
        if self._projection.changes or added:
            texts = self._projection.records(records, added)
        tail = b',"emitted_at":%d}}\n' % now_ms
        return self._head + (tail + self._head).join(texts) + tail


def digest(record: Raw) -> str:
    """A record by its whole text: one that changed under the same cursor value is another record."""
    return hashlib.blake2b(record, digest_size=16).hexdigest()


def _chosen(records: Sequence[Raw], moments: Sequence[int | None], window: Window) -> Sequence[int]:
    """Indexes of the records that belong to this window and are new."""
    lower, below = window.lower, window.below
    found = [moment for moment in moments if moment is not None]
    floor = max((*window.known, *([] if lower is None else [lower])), default=None)
    is_above = not found or floor is None or min(found) > floor
    if is_above and (not found or below is None or max(found) < below):
        return range(len(records))
    return [
        index
        for index, moment in enumerate(moments)
        if moment is None
        or not (
            (lower is not None and moment < lower)
            or (below is not None and moment >= below)
            or (moment in window.known and digest(records[index]) in window.known[moment])
        )
    ]
