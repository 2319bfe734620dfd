"""Answers that are not JSON: lines of JSON, CSV, and either of them (or JSON) as a gzip file. Pure."""

from __future__ import annotations

import csv
import io
import zlib

import msgspec
from msgspec import Raw

from source_rest_api.body import BodyError, wrapped

GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
_LINES = msgspec.json.Decoder(Raw)


class TooLarge(Exception):  # noqa: N818  # the caller knows the limit's name and makes the error
    """A body grows beyond the limit."""


def unzipped(body: bytes, limit: int) -> bytes:
    """The content of a gzip file (all of its members), or the body itself if it is none.

    Raises:
        BodyError: it begins as a gzip file and is broken.
        TooLarge: the content has more than ``limit`` bytes; no more than that is ever in memory.
    """
    if not body.startswith(GZIP):
        return body
    found: list[bytes] = []
    size = 0
    while body:
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            try:
                part = member.decompress(body, CHUNK)
            except zlib.error:
                raise BodyError("is a gzip file that is broken") from None
            body = member.unconsumed_tail
            size += len(part)
            if size > limit:
                raise TooLarge
            if not part and not body and not member.eof:
                raise BodyError("is a gzip file that is cut off")
            found.append(part)
        body = member.unused_data
    return b"".join(found)


def from_lines(body: bytes) -> list[Raw]:
    """The records of JSON lines. Raises BodyError if a line is no JSON."""
    try:
        return [wrapped(line) for line in _LINES.decode_lines(body)]
    except msgspec.DecodeError as cause:
        raise BodyError(f"has a line that is no JSON ({cause})") from None


def from_csv(body: bytes, delimiter: str) -> list[Raw]:
    """The records of a CSV file with a header; every value is a text, a row that is short has nulls at its end.

    Raises:
        BodyError: no header, a name in it twice, or a row with more values than the header.
    """
    csv.field_size_limit(1 << 30)
    rows = csv.reader(io.StringIO(body.decode(), newline=""), delimiter=delimiter, strict=True)
    try:
        names = next(rows, None)
        if names is None:
            return []
        if len(set(names)) != len(names):
            raise BodyError("has a CSV header with a name twice")
        return [_record(names, row, number) for number, row in enumerate(rows, 2) if row]
    except csv.Error as cause:
        raise BodyError(f"is no CSV ({cause})") from None


def _record(names: list[str], row: list[str], number: int) -> Raw:
    if len(row) > len(names):
        raise BodyError(f"has a CSV row ({number}) with {len(row)} values; the header has {len(names)}")
    values = dict(zip(names, [*row, *[None] * (len(names) - len(row))], strict=True))
    return Raw(msgspec.json.encode(values))
