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
from source_rest_api.form import Stream
from source_rest_api.page import PAGE, Boundary, Page
from source_rest_api.times import EPOCHS, FormatError, text_to_rfc3339, to_moment, to_rfc3339, to_state

MOST_RECORDS = 1000  # a page of 200,000 must not become one item of 70 MB
MOST_BOUNDARY = 1000

_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_ENCODE = msgspec.json.Encoder().encode

Tree = dict[str, "Tree | str"]  # field -> its fields, or the format of a timestamp


class RowError(ValueError):
    """A record does not fit the form. The message names the field and never the value."""


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
        known_at: the moment at which records may have been brought before.
        known: their digests.
    """

    partition: Mapping[str, Any] = field(default_factory=dict)
    partition_key: str = "{}"
    start: str = ""
    lower: int | None = None
    below: int | None = None
    end: int | None = None
    known_at: int | None = None
    known: frozenset[str] = frozenset()


class PageMaker:
    """Makes pages of one stream; holds no state between calls."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._head = b'{"type":"RECORD","record":{"stream":%s,"data":' % _ENCODE(stream.name)
        self._cursor = stream.cursor
        self._timestamps = _tree(stream)
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
        return {PAGE: Page(self._stream.name, self._lines(records, window, now_ms), len(records))}

    def _dated(self, records: Sequence[Raw], window: Window, now_ms: int) -> dict[str, Any] | None:
        moments = self.moments(records)
        chosen = _chosen(records, moments, window)
        kept = [records[index] for index in chosen]
        if not kept:
            return None
        known = [moments[index] for index in chosen]
        highest = max((moment for moment in known if moment is not None), default=None)
        item: dict[str, Any] = {}
        boundary = None
        if highest is not None and self._cursor is not None:
            item[self._cursor.cursor_field] = to_state(highest, self._cursor.cursor_format)
            at_top = [record for record, moment in zip(kept, known, strict=True) if moment == highest]
            digests = tuple(digest(record) for record in at_top[:MOST_BOUNDARY])
            boundary = Boundary(window.partition_key, window.start, highest, digests)
        lines = self._lines(kept, window, now_ms)
        item[PAGE] = Page(self._stream.name, lines, len(kept), len(records) - len(kept), boundary)
        return item

    def _lines(self, records: Sequence[Raw], window: Window, now_ms: int) -> bytes:
        added = window.partition if self._stream.add_parent_fields else {}
        texts: Sequence[Raw | bytes] = records
        if self._timestamps or added:
            texts = [self._changed(record, added) for record in records]
        tail = b',"emitted_at":%d}}\n' % now_ms
        return self._head + (tail + self._head).join(texts) + tail

    def _changed(self, record: Raw, added: Mapping[str, Any]) -> bytes:
        fields: dict[str, Any] = _with_timestamps(record, self._timestamps, ())
        for name, value in added.items():
            if name in fields:
                raise RowError(
                    f"a record has a field {name!r} of its own: give the parent's field another name with `as`"
                )
            fields[name] = value
        return _ENCODE(fields)


def digest(record: Raw) -> str:
    """A record by its whole text: one that changed under the same cursor value is another record."""
    return hashlib.blake2b(record, digest_size=16).hexdigest()


def _chosen(records: Sequence[Raw], moments: Sequence[int | None], window: Window) -> Sequence[int]:
    """Indexes of the records that belong to this window and are new."""
    lower, below, known_at = window.lower, window.below, window.known_at
    found = [moment for moment in moments if moment is not None]
    is_above = not found or ((lower is None or min(found) > lower) and (known_at is None or min(found) > known_at))
    if is_above and (not found or below is None or max(found) < below):
        return range(len(records))
    return [
        index
        for index, moment in enumerate(moments)
        if moment is None
        or not (
            (lower is not None and moment < lower)
            or (below is not None and moment >= below)
            or (moment == known_at and digest(records[index]) in window.known)
        )
    ]


def _tree(stream: Stream) -> Tree:
    tree: Tree = {}
    for stamp in stream.timestamps:
        place = tree
        *above, name = stamp.field.split(".")
        for key in above:
            inner = place.setdefault(key, {})
            assert isinstance(inner, dict)  # the form refuses a timestamp inside of another
            place = inner
        place[name] = stamp.format
    return tree


def _with_timestamps(record: Raw, tree: Tree, above: tuple[str, ...]) -> dict[str, Any]:
    fields: dict[str, Any] = _FIELDS.decode(record)
    for name, below in tree.items():
        raw = fields.get(name)
        if raw is None or bytes(raw) == b"null":
            continue
        path = (*above, name)
        if isinstance(below, str):
            try:
                fields[name] = _timestamp(bytes(raw), below)
            except FormatError as problem:
                raise RowError(f"timestamps, {'.'.join(path)!r}: {problem}") from None
        else:
            try:
                fields[name] = _with_timestamps(raw, below, path)
            except msgspec.ValidationError:
                raise RowError(f"timestamps: a record has no object at {'.'.join(path)!r}") from None
    return fields


def _timestamp(raw: bytes, format_: str) -> str:
    text = raw.decode()
    if text.startswith('"'):
        text = msgspec.json.decode(raw)
        return to_rfc3339(text, format_) if format_ in EPOCHS else text_to_rfc3339(text, format_)
    if format_ not in EPOCHS:
        raise FormatError(f"a value is no text in the format {format_}")
    return to_rfc3339(text, format_)
