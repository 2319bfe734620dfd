"""stdin as bytes -> framed lines, and what kind of message each is.

Own framing, since nothing may be skipped: a line is a RECORD or STATE of a stream, a stream status, a message that
destinations ignore, blank, or the end of the sync with an error that names the line's number and nothing of its text.
The bytes of a line are kept as they came: numbers keep their digits.

The last line counts also without its newline, if it is a whole message: sources end without one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from destination_s3_datalake.errors import BadLineError
from destination_s3_datalake.protocol.catalog import StreamId

BOM = b"\xef\xbb\xbf"
BEGINNING = re.compile(
    rb'\{"type": ?"RECORD", ?"record": ?\{(?:"(?:stream|namespace)": ?(?:"[^"\\\n]*"|null), ?)+"(?:data|emitted_at)":'
)
FEWEST_ALIKE = 8  # fewer lines are looked at one by one
FIRST_ALIKE = 32  # are matched, what follows them is counted
FIRST_PIECE = 1 << 12  # bytes
NEWLINE = ord("\n")
MOST_BEGINNINGS = 10_000
IGNORED_TYPES = frozenset({"LOG", "TRACE", "CONTROL", "SPEC", "CATALOG", "CONNECTION_STATUS", "DESTINATION_CATALOG"})


@dataclass(frozen=True, slots=True)
class Record:
    """A RECORD line of one stream. ``raw`` has no newline."""

    line: int
    stream: StreamId
    raw: bytes


@dataclass(frozen=True, slots=True)
class State:
    """A STATE line.

    Attributes:
        stream: the stream of a STREAM state; None for GLOBAL and LEGACY, which cover all streams.
        digest: hash of what the state says (type, descriptor, data), None if it says nothing (empty or null).
        is_final: the data are empty, null or a completion marker: what a source ends a full refresh with.
    """

    line: int
    stream: StreamId | None
    raw: bytes
    digest: str | None
    is_final: bool


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """A TRACE with the status of a stream; only COMPLETE and INCOMPLETE decide anything."""

    line: int
    stream: StreamId
    status: Literal["COMPLETE", "INCOMPLETE"]


@dataclass(frozen=True, slots=True)
class Records:
    """Lines of one stream in a row, each with its newline. Each begins as a RECORD of the stream does; that it is one
    is proved when it is converted (``records/exact.py``), before anything behind it is acknowledged."""

    line: int
    stream: StreamId
    raw: bytes
    rows: int


Message = Record | Records | State | StreamStatus


class _Digits(str):
    """A whole number as its text."""

    __slots__ = ()


class _RecordBody(msgspec.Struct, gc=False):
    stream: str
    emitted_at: int | float
    data: msgspec.Raw
    namespace: str | None = None


class _Envelope(msgspec.Struct, gc=False):
    type: str
    record: _RecordBody | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode

COMPLETION_MARKERS = ("__ab_full_refresh_sync_complete", "__ab_no_cursor_state_message")


class Framer:
    """Bytes as they arrive -> whole messages, in order. ``feed`` any number of times, then ``finish`` once.

    Lines that follow a line of a stream and begin as it does are taken together, without a look at each.

    Args:
        max_line_bytes: longer lines end the sync.
        ambiguous: stream names that several namespaces have: their lines belong together only if the namespace, too, is
            where they begin.

    Raises (both):
        BadLineError: a line is longer than ``max_line_bytes``, is no JSON even for the lenient reader, or no message.
    """

    def __init__(self, *, max_line_bytes: int, ambiguous: Collection[str] = ()):
        self._max = max_line_bytes
        self._ambiguous = frozenset(ambiguous)
        self._rest = bytearray()
        self._line = 0
        self._beginnings: dict[bytes, tuple[StreamId, re.Pattern[bytes]]] = {}
        self._one_by_one_until = 0

    @property
    def lines(self) -> int:
        """Whole lines seen so far."""
        return self._line

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that ``chunk`` completes."""
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            self._rest += chunk
        else:
            whole, self._rest = b"".join((self._rest, memoryview(chunk)[:cut])), bytearray(chunk[cut:])
            yield from self._messages(whole)
        if len(self._rest) > self._max:
            raise self._too_long(self._line + 1)

    def finish(self) -> Iterator[Message]:
        """The last line, if it came without a newline."""
        raw, self._rest = bytes(self._rest), bytearray()
        if raw:
            yield from self._message(raw)

    def _messages(self, whole: bytes) -> Iterator[Message]:
        """Messages of whole lines."""
        has_returns = b"\r" in whole
        self._one_by_one_until = 0
        place = 0
        while place < len(whole):
            run = None if has_returns else self._run_at(whole, place)
            if run is not None:
                self._line += run.rows
                place += len(run.raw)
                yield run
                continue
            end = whole.index(b"\n", place)
            yield from self._message(whole[place:end])
            place = end + 1

    def _run_at(self, whole: bytes, place: int) -> Records | None:
        """The lines from here on that begin alike, if they are many, and as one of a known stream."""
        if place < self._one_by_one_until:
            return None
        found = BEGINNING.match(whole, place)
        if found is None or (known := self._beginnings.get(found[0])) is None:
            return None
        stream, first_alike = known
        run = first_alike.match(whole, place)
        if run is None:
            return None
        end = run.end()
        rows = whole.count(b"\n", place, end)
        if rows == FIRST_ALIKE:
            end, more = _rest_of_run(whole, end, found[0])
            rows += more
        if rows < FEWEST_ALIKE or end - place > self._max:  # of a long run it is not known how long its lines are
            self._one_by_one_until = end
            return None
        return Records(self._line + 1, stream, whole[place:end], rows)

    def _learn(self, record: Record) -> None:
        """Remember how a line of this stream begins."""
        found = BEGINNING.match(record.raw)
        if found is None or found[0] in self._beginnings or len(self._beginnings) >= MOST_BEGINNINGS:
            return
        if record.stream.name in self._ambiguous and b'"namespace"' not in found[0]:
            return
        first_alike = b"(?:%s[^\n]*+\n){1,%d}+" % (re.escape(found[0]), FIRST_ALIKE)
        self._beginnings[found[0]] = (record.stream, re.compile(first_alike))

    def _too_long(self, line: int) -> BadLineError:
        return BadLineError(
            f"Line {line} of the input is longer than max_record_mb ({self._max >> 20} MB). "
            "Raise max_record_mb (and memory_limit_mb to 12 times it), or leave the stream's largest field out.",
            line=line,
        )

    def _message(self, raw: bytes) -> Iterator[Message]:
        self._line += 1
        if self._line == 1:
            raw = raw.removeprefix(BOM)
        if raw.endswith(b"\r"):
            raw = raw[:-1]
        if len(raw) > self._max:
            raise self._too_long(self._line)
        if not raw or raw.isspace():
            return
        message = parse_message(raw, line=self._line)
        if isinstance(message, Record):
            self._learn(message)
        if message is not None:
            yield message


def _rest_of_run(whole: bytes, place: int, beginning: bytes) -> tuple[int, int]:
    """Where the lines from ``place`` on end that begin so, and how many they are.

    By counting, four times faster than matching: in pieces that grow while all their lines are alike, and shrink behind
    the first that is not, so that the cost is that of the run and not of what follows it.
    """
    follows, rows, size, grows = b"\n" + beginning, 0, FIRST_PIECE, True
    while place < len(whole):
        end = whole.rfind(b"\n", place, place + size) + 1 or whole.index(b"\n", place) + 1
        # bytes.count takes four times as long for one byte
        lines = int(np.count_nonzero(np.frombuffer(whole, np.uint8, end - place, place) == NEWLINE))
        if whole.startswith(beginning, place) and whole.count(follows, place, end) == lines - 1:
            place, rows = end, rows + lines
        elif lines == 1:
            break
        else:
            grows = False
        size = size * 2 if grows else size // 2
    return place, rows


def parse_message(raw: bytes, *, line: int) -> Message | None:
    """One line as a message; None for a message that destinations ignore.

    Raises:
        BadLineError: naming ``line``.
    """
    try:
        envelope = _decode_envelope(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return _parse_leniently(raw, line)
    if envelope.type == "RECORD" and envelope.record is not None:
        body = envelope.record
        if not raw.isascii():
            _require_utf8(raw, line)
        if bytes(body.data)[:1] != b"{":
            raise bad_line(line, "the data of its record is no object")
        _require_time(body.emitted_at, line)
        return Record(line, StreamId(body.namespace or None, body.stream), raw)
    return _of_kind(envelope.type, raw, line)


def with_destination_stats(raw: bytes, *, records: int) -> bytes:
    """The STATE line as it came, with ``destinationStats`` in its state; every number keeps its digits."""
    message = _decode_object(raw)
    state = _decode_object(message["state"])
    state["destinationStats"] = msgspec.Raw(b'{"recordCount":%d.0}' % records)
    message["state"] = msgspec.Raw(_encode(state))
    return _encode(message)


def _parse_leniently(raw: bytes, line: int) -> Message | None:
    """What the strict reader refuses (NaN, lone surrogates, an odd envelope), but records may hold."""
    message = _load(raw, line)
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise bad_line(line, "it is not an Airbyte message")
    if message["type"] != "RECORD":
        return _of_kind(message["type"], raw, line)
    body = message.get("record")
    if not isinstance(body, dict) or not isinstance(body.get("stream"), str):
        raise bad_line(line, "its record names no stream")
    if not isinstance(body.get("data"), dict):
        raise bad_line(line, "the data of its record is no object")
    at = body.get("emitted_at")
    if not isinstance(at, _Digits | float):
        raise bad_line(line, "its record has no emitted_at")
    _require_time(float(at), line)
    namespace = body.get("namespace")
    return Record(line, StreamId(namespace if isinstance(namespace, str) and namespace else None, body["stream"]), raw)


def _require_utf8(raw: bytes, line: int) -> None:
    try:
        raw.decode()  # the reader above does not look inside ``data``
    except UnicodeDecodeError:
        raise bad_line(line, "it is not UTF-8") from None


def _require_time(emitted_at: float, line: int) -> None:
    if not -62_135_596_800_000 <= emitted_at < 253_402_300_800_000:
        raise bad_line(line, "its emitted_at, in milliseconds, is not in the years 1 to 9999")


def _load(raw: bytes, line: int) -> Any:
    try:
        return json.loads(raw, parse_int=_Digits)  # as text: Python refuses to read integers of over 4,300 digits
    except (ValueError, RecursionError):
        raise bad_line(line, "it is not JSON") from None


def _of_kind(kind: str, raw: bytes, line: int) -> Message | None:
    if kind == "STATE":
        return _parse_state(raw, line)
    if kind == "TRACE":
        return _parse_trace(raw, line)
    if kind in IGNORED_TYPES:
        return None
    if kind == "RECORD":
        raise bad_line(line, "its record has no stream, data or emitted_at")
    raise bad_line(line, "its type is not one of the Airbyte protocol")


def _parse_state(raw: bytes, line: int) -> State:
    message = _load(raw, line)
    state = message.get("state") if isinstance(message, dict) else None
    if not isinstance(state, dict):
        raise bad_line(line, "it is a STATE without a state")
    try:
        _decode_object(_decode_object(raw)["state"])  # what with_destination_stats will need
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise bad_line(line, "it is a STATE that is not strict JSON") from None
    match state.get("type"):
        case "STREAM":
            return _stream_state(state, raw, line)
        case "GLOBAL":
            return _global_state(state, raw, line)
        case None | "LEGACY":
            data = state.get("data")
            return State(line, None, raw, _digest(["LEGACY", data]) if data else None, is_final=_is_final(data))
        case _:
            raise bad_line(line, "its state is neither STREAM, GLOBAL nor LEGACY")


def _stream_state(state: Mapping[str, Any], raw: bytes, line: int) -> State:
    body = state.get("stream")
    stream_id = _descriptor(body)
    if not isinstance(body, Mapping) or stream_id is None:
        raise bad_line(line, "its STREAM state names no stream")
    data = body.get("stream_state")
    digest = _digest(["STREAM", *stream_id, data]) if data else None
    return State(line, stream_id, raw, digest, is_final=_is_final(data))


def _global_state(state: Mapping[str, Any], raw: bytes, line: int) -> State:
    body = state.get("global") or state.get("global_")  # PyAirbyte writes its attribute's name
    if not isinstance(body, Mapping):
        raise bad_line(line, "its GLOBAL state has no global part")
    entries = body.get("stream_states") or []
    if not isinstance(entries, list):
        raise bad_line(line, "its GLOBAL state has no list of stream states")
    parts = []
    for entry in entries:
        stream_id = _descriptor(entry)
        if stream_id is None:
            raise bad_line(line, "its GLOBAL state has an entry without a stream")
        parts.append([stream_id.namespace or "", stream_id.name, entry.get("stream_state")])
    parts.sort(key=lambda part: (part[0], part[1]))
    shared = body.get("shared_state")
    says_nothing = not shared and not any(part[2] for part in parts)
    is_final = all(_is_final(part[2]) for part in parts) and _is_final(shared)
    return State(line, None, raw, None if says_nothing else _digest(["GLOBAL", shared, parts]), is_final=is_final)


def _parse_trace(raw: bytes, line: int) -> StreamStatus | None:
    message = _load(raw, line)
    trace = message.get("trace") if isinstance(message, dict) else None
    status = trace.get("stream_status") if isinstance(trace, dict) and trace.get("type") == "STREAM_STATUS" else None
    if not isinstance(status, dict) or status.get("status") not in ("COMPLETE", "INCOMPLETE"):
        return None
    stream_id = _descriptor(status)
    if stream_id is None:
        raise bad_line(line, "its stream status names no stream")
    return StreamStatus(line, stream_id, status["status"])


def _descriptor(body: Any) -> StreamId | None:
    descriptor = body.get("stream_descriptor") if isinstance(body, Mapping) else None
    if not isinstance(descriptor, Mapping) or not isinstance(descriptor.get("name"), str):
        return None
    return StreamId(descriptor.get("namespace") or None, descriptor["name"])


def _is_final(data: Any) -> bool:
    return not data or (isinstance(data, Mapping) and any(marker in data for marker in COMPLETION_MARKERS))


def _digest(canonical: Any) -> str:
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def bad_line(line: int, why: str) -> BadLineError:
    """A line of the input cannot be used."""
    return BadLineError(
        f"Line {line} of the input cannot be used: {why}. Nothing behind the last STATE before it was stored; "
        "look at the source's output there.",
        line=line,
    )
